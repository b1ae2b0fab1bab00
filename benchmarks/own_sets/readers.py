"""What of a package's files becomes a picture, and what its caption is: one reader a kind of package."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
import json
from pathlib import Path
import re
import unicodedata

from PIL import Image, ImageFont

from benchmarks.own_sets.pictures import drawn_glyph, drawn_svg, opened, quarters

Candidate = tuple[str, Callable[[], Image.Image]]  # caption, and what draws the picture
MOST_WORDS = 5
GLYPH_SIZE = 112  # px


def words_of(stem: str) -> str:
    """A file's name as a caption: its words, without numbers."""
    return " ".join(word for word in re.split(r"[^a-z]+", stem.lower()) if len(word) > 1)


def icons(files: Path, folders: Sequence[str]) -> Iterator[Candidate]:
    """Drawings of icon themes and clip art; a link to another icon is that icon again."""
    for folder in folders:
        for path in sorted((files / folder).glob("*")):
            if path.is_symlink() or path.suffix not in (".svg", ".png"):
                continue
            caption = words_of(path.stem)
            if 1 <= len(caption.split()) <= MOST_WORDS:
                yield caption, partial(drawn_svg if path.suffix == ".svg" else opened, path)


def stamps(files: Path, folders: Sequence[str]) -> Iterator[Candidate]:
    """Photographs of single things, cut out, each with a text of what it shows."""
    for folder in folders:
        for path in sorted((files / folder).glob("*.png")):
            text = path.with_suffix(".txt")
            if text.is_file() and not path.stem.endswith("_mirror"):
                caption = words_of(text.read_text(encoding="utf-8").splitlines()[0])
                if 1 <= len(caption.split()) <= MOST_WORDS:
                    yield caption, partial(opened, path)


def emoji_files(files: Path, folder: str) -> Iterator[Candidate]:
    """Files named by one code point, captioned with its Unicode name."""
    for path in sorted((files / folder).glob("*.svg")):
        caption = "" if "-" in path.stem else unicodedata.name(chr(int(path.stem, 16)), "").lower()
        if 1 <= len(caption.split()) <= MOST_WORDS and "digit" not in caption:
            yield caption, partial(drawn_svg, path)


def emoji_glyphs(files: Path, font: str, first: int, last: int) -> Iterator[Candidate]:
    """Glyphs of a range of code points that the font has, captioned with their Unicode names."""
    face = ImageFont.truetype(str(files / font), GLYPH_SIZE)
    missing = bytes(face.getmask("\uffff"))
    for code in range(first, last + 1):
        caption = unicodedata.name(chr(code), "").lower()
        if 1 <= len(caption.split()) <= MOST_WORDS and bytes(face.getmask(chr(code))) != missing:
            yield caption, partial(drawn_glyph, face, chr(code))


def iconify(files: Path, table: str) -> Iterator[Candidate]:
    """Icons of a package that holds all drawings in one JSON file."""
    record = json.loads((files / table).read_text(encoding="utf-8"))
    width, height = record.get("width", 16), record.get("height", 16)
    for name, icon in sorted(record["icons"].items()):
        size = f"0 0 {icon.get('width', width)} {icon.get('height', height)}"
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}">{icon["body"]}</svg>'
        caption = words_of(name)
        if 1 <= len(caption.split()) <= MOST_WORDS:
            yield caption, partial(drawn_svg, svg.replace("currentColor", "black").encode())


def flags(files: Path, folder: str) -> Iterator[Candidate]:
    """Flags of countries, captioned with their two-letter codes."""
    for path in sorted((files / folder).glob("??.svg")):
        if not path.is_symlink():
            yield f"flag {path.stem}", partial(drawn_svg, path)


def photograph_quarters(files: Path, folder: str, names: Sequence[str]) -> Iterator[Candidate]:
    """The quarters of photographs, captioned with the photograph's name and the place."""
    for name in names:
        places = ("upper left", "upper right", "lower left", "lower right")
        for place, image in zip(places, quarters(files / folder / name), strict=True):
            yield f"{words_of(Path(name).stem)} {place}", image.copy
