"""Makes the image sets that the recorded curves come from: folders of pictures with captions.

    python -m benchmarks.own_sets.build [--to FOLDER] [--only NAME ...]

Fetches packages with `apt-get download` and `npm pack`, draws with rsvg-convert (Debian's librsvg2-bin) and Pillow.
The same package versions give the same pictures. A set that is complete is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import random
import subprocess
import sys

from PIL import Image

from benchmarks.own_sets.packages import fetch
from benchmarks.own_sets.readers import Candidate
from benchmarks.own_sets.sets import SETS, ImageSet

SIZE = 48  # pictures a set: 32 to train on, 16 held out
LEAST_INK = 0.02  # mean distance from white, of 1, below which a picture is taken for empty


def choose(candidates: list[Candidate], count: int) -> list[tuple[str, Image.Image]]:
    """The first that differ in caption and picture, of a fixed random order."""
    random.Random(0).shuffle(candidates)
    captions: set[str] = set()
    seen: set[bytes] = set()
    chosen: list[tuple[str, Image.Image]] = []
    for caption, draw in candidates:
        if len(chosen) == count:
            break
        if caption in captions:
            continue
        try:
            image = draw()
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"  left out {caption}: {error}", file=sys.stderr)
            continue
        content = image.tobytes()
        ink = 1 - sum(content) / (255 * len(content))
        if content not in seen and ink >= LEAST_INK:
            captions.add(caption)
            seen.add(content)
            chosen.append((caption, image))
    return chosen


def build(image_set: ImageSet, to: Path, work: Path) -> str:
    """Write one set; a line that says what it is made of."""
    version = "-"
    files = work
    if image_set.package is not None:
        files, version = fetch(image_set.package, work)
    folder = to / image_set.name
    if len(list(folder.glob("*.png"))) < SIZE:
        folder.mkdir(parents=True, exist_ok=True)
        for caption, image in choose(list(image_set.read(files)), SIZE):
            stem = caption.replace(" ", "-")
            image.save(folder / f"{stem}.png", optimize=True)
            (folder / f"{stem}.txt").write_text(f"{caption}\n", encoding="utf-8")
    name = "-" if image_set.package is None else image_set.package.name
    count = len(list(folder.glob("*.png")))
    return f"| {image_set.name} | {name} | {version} | {image_set.licence} | {image_set.shows} | {count} |"


def main() -> int:
    """Returns: 1 where a set has too few pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--to", type=Path, default=Path("runs/own-sets"))
    parser.add_argument("--only", nargs="+", choices=[item.name for item in SETS])
    options = parser.parse_args()
    work = options.to / ".packages"
    work.mkdir(parents=True, exist_ok=True)
    print("| set | package | version | licence | shows | pictures |\n|---|---|---|---|---|---|")
    rows = []
    for image_set in SETS:
        if options.only is None or image_set.name in options.only:
            rows.append(build(image_set, options.to.resolve(), work.resolve()))
            print(rows[-1], flush=True)
    return int(any(not row.endswith(f"| {SIZE} |") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
