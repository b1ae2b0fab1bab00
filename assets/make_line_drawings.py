"""Makes the example image set: captioned line drawings of everyday things, from the OpenMoji package.

Get the source with `npm pack openmoji@17.0.0`, unpack it, and pass the folder `package` that comes out.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
import csv
import io
from pathlib import Path
import random
import subprocess
import unicodedata

import numpy as np
from PIL import Image

SIDE = 128  # px of a finished image
ARTBOARD = 144  # px that OpenMoji's 72 units are drawn at; a border of 4 units is empty in most
# Abstract signs, letters, clocks and flags are no things; hearts of all colours have one outline.
LEFT_OUT = {"symbols", "flags", "component", "extras-openmoji", "extras-unicode"}
LEFT_OUT_SUBGROUPS = {"heart", "time", "hand-single-finger", "skin-tone", "hair-style"}


def candidates(package: Path) -> Iterator[tuple[str, str, str]]:
    """Code point, subgroup and caption of every drawing of one code point."""
    with (package / "data" / "openmoji.csv").open(encoding="utf-8") as table:
        for row in csv.DictReader(table):
            code = row["hexcode"].removesuffix("-FE0F")
            if row["group"] in LEFT_OUT or row["subgroups"] in LEFT_OUT_SUBGROUPS:
                continue
            if row["skintone"] or "-" in code:
                continue
            # The base model's captions are Unicode names, so the same words name the same thing here.
            caption = unicodedata.name(chr(int(code, 16)), "").lower()
            if caption and len(caption.split()) <= 5:
                yield row["hexcode"], row["subgroups"], caption


def chosen(package: Path, known: set[str], count: int) -> list[tuple[str, str]]:
    """Code points and captions that the base knows, in turn from each subgroup, for diverse subjects."""
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for code, subgroup, caption in candidates(package):
        if caption in known:
            groups[subgroup].append((code, caption))
    shuffle = random.Random(0)
    for members in groups.values():
        shuffle.shuffle(members)
    taken: list[tuple[str, str]] = []
    while len(taken) < count and any(groups.values()):
        for members in groups.values():
            if members and len(taken) < count:
                taken.append(members.pop())
    return sorted(taken, key=lambda pair: pair[1])


def rasterised(drawing: Path) -> Image.Image:
    """The drawing on white, RGB, 128 x 128 px."""
    command = ["rsvg-convert", "--width", str(ARTBOARD), "--height", str(ARTBOARD), str(drawing)]
    png = subprocess.run(command, check=True, capture_output=True).stdout
    layer = Image.open(io.BytesIO(png)).convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    border = (ARTBOARD - SIDE) // 2
    image = page.convert("RGB")
    inner = image.crop((border, border, ARTBOARD - border, ARTBOARD - border))
    # A drawing that reaches into the border is shrunk rather than cut.
    ink = int((255 - np.asarray(image, dtype=np.int64)).sum())
    kept = int((255 - np.asarray(inner, dtype=np.int64)).sum())
    return inner if kept == ink else image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def contact_sheet(images: list[Image.Image], columns: int, side: int) -> Image.Image:
    """Tiles the images row by row at `side` pixels each."""
    sheet = Image.new("RGB", (columns * side, -(-len(images) // columns) * side), "white")
    for index, image in enumerate(images):
        tile = image.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(tile, (index % columns * side, index // columns * side))
    return sheet


def main() -> None:
    """Writes images, captions and the contact sheet."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("package", type=Path, help="the unpacked openmoji package")
    parser.add_argument("--to", type=Path, default=Path("assets/line-drawings"))
    parser.add_argument("--known", type=Path, default=Path("assets/tiny-sd/captions.txt"))
    parser.add_argument("--figure", type=Path, default=Path("docs/assets/example-images.png"))
    parser.add_argument("--variant", choices=["black", "color"], default="black")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    known = set(options.known.read_text(encoding="utf-8").splitlines())
    options.to.mkdir(parents=True, exist_ok=True)
    options.figure.parent.mkdir(parents=True, exist_ok=True)
    images = []
    for code, caption in chosen(options.package, known, options.count):
        image = rasterised(options.package / options.variant / "svg" / f"{code}.svg")
        stem = caption.replace(" ", "-")
        image.save(options.to / f"{stem}.png", optimize=True)
        (options.to / f"{stem}.txt").write_text(caption + "\n", encoding="utf-8")
        images.append(image)
    contact_sheet(images, 20, 64).save(options.figure, optimize=True)
    print(f"{len(images)} images in {options.to}")


if __name__ == "__main__":
    main()
