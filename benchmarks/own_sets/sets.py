"""The project's own image sets: where each comes from, under which licence, and what of it is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.own_sets import programs, readers
from benchmarks.own_sets.packages import Package
from benchmarks.own_sets.readers import Candidate


@dataclass(frozen=True)
class ImageSet:
    """One style of pictures.

    Attributes:
        package: None where a program here draws them.
        licence: as the package states it.
        shows: what kind of pictures they are.
        read: candidates from the package's unpacked files.
    """

    name: str
    package: Package | None
    licence: str
    shows: str
    read: Callable[[Path], Iterator[Candidate]]


THEMES = "usr/share/icons"
CLIP_ART = "usr/share/openclipart/svg"
STAMPS = "usr/share/tuxpaint/stamps"
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg"),
    "rocket.jpg",
)


def _in(parent: str, *folders: str) -> list[str]:
    return [f"{parent}/{folder}" for folder in folders]


def _by_program(draw: Callable[[int], Candidate]) -> Callable[[Path], Iterator[Candidate]]:
    return lambda _: (draw(number) for number in range(200))


SETS = (
    ImageSet(
        "tango",
        Package("debian", "tango-icon-theme"),
        "public domain",
        "desktop icons with soft shades and dark outlines",
        partial(
            readers.icons,
            folders=_in(f"{THEMES}/Tango/scalable", "apps", "categories", "devices", "mimetypes", "places"),
        ),
    ),
    ImageSet(
        "oxygen",
        Package("debian", "oxygen-icon-theme"),
        "LGPL-3+",
        "glossy desktop icons",
        partial(
            readers.icons,
            folders=_in(
                f"{THEMES}/oxygen/base/128x128", "apps", "categories", "devices", "mimetypes", "places"
            ),
        ),
    ),
    ImageSet(
        "papirus",
        Package("debian", "papirus-icon-theme"),
        "GPL-3",
        "flat coloured icons of programs",
        partial(readers.icons, folders=[f"{THEMES}/Papirus/64x64/apps"]),
    ),
    ImageSet(
        "symbola",
        Package("debian", "fonts-symbola"),
        "free for any use",
        "emoji as black outlines of a font",
        partial(
            readers.emoji_glyphs,
            font="usr/share/fonts/truetype/ancient-scripts/Symbola_hint.ttf",
            first=0x1F300,
            last=0x1F6FF,
        ),
    ),
    ImageSet(
        "clipart",
        Package("debian", "openclipart-svg"),
        "public domain",
        "clip art of animals by many hands",
        partial(
            readers.icons,
            folders=_in(f"{CLIP_ART}/animals", ".", "birds", "bugs", "dinosaurs", "fish", "mammals"),
        ),
    ),
    ImageSet(
        "stamps",
        Package("debian", "tuxpaint-stamps-default"),
        "GPL-2+ and public domain",
        "photographs of fruit, vegetables and flowers, cut out",
        partial(readers.stamps, folders=_in(STAMPS, "food/fruit", "food/vegetables", "plants/flowers")),
    ),
    ImageSet(
        "photographs",
        Package("debian", "python3-skimage"),
        "CC0 and public domain, each as its README.txt says",
        "quarters of 14 photographs: parts of one photograph can lie on both sides of the split",
        partial(
            readers.photograph_quarters,
            folder="usr/lib/python3/dist-packages/skimage/data",
            names=PHOTOGRAPHS,
        ),
    ),
    ImageSet(
        "flags",
        Package("npm", "circle-flags", "2.8.3"),
        "MIT",
        "flags of countries, cut to circles",
        partial(readers.flags, folder="package/flags"),
    ),
    ImageSet(
        "twemoji",
        Package("npm", "@twemoji/svg", "15.0.0"),
        "CC-BY-4.0",
        "flat coloured emoji",
        partial(readers.emoji_files, folder="package"),
    ),
    ImageSet(
        "silhouettes",
        Package("npm", "@iconify-json/game-icons", "1.2.4"),
        "CC-BY-3.0",
        "black silhouettes of things in games (game-icons.net)",
        partial(readers.iconify, table="package/icons.json"),
    ),
    ImageSet(
        "shapes",
        None,
        "this project's",
        "one to three flat shapes on a tinted ground, drawn by `programs.py`",
        _by_program(programs.shapes),
    ),
)
