"""From what packages hold to what is trained on: square RGB pictures on white."""

from __future__ import annotations

import io
from pathlib import Path
import subprocess

from PIL import Image, ImageDraw, ImageFont

SIDE = 128  # px of a finished picture


def drawn_svg(source: Path | bytes) -> Image.Image:
    """An SVG file, or its text, fitted into the square.

    Raises:
        subprocess.CalledProcessError: rsvg-convert cannot draw it.
    """
    content = source.read_bytes() if isinstance(source, Path) else source
    size = ["--width", str(SIDE), "--height", str(SIDE), "--keep-aspect-ratio"]
    done = subprocess.run(["rsvg-convert", *size], input=content, check=True, capture_output=True)
    return on_white(Image.open(io.BytesIO(done.stdout)))


def drawn_glyph(font: ImageFont.FreeTypeFont, character: str) -> Image.Image:
    """A glyph in black, its ink centred."""
    left, top, right, bottom = font.getbbox(character)
    page = Image.new("L", (max(round(right - left), 1), max(round(bottom - top), 1)), 255)
    ImageDraw.Draw(page).text((-left, -top), character, font=font, fill=0)
    return on_white(page, margin=SIDE // 16)


def opened(path: Path) -> Image.Image:
    """A raster file on white, fitted into the square."""
    with Image.open(path) as image:
        return on_white(image)


def on_white(image: Image.Image, margin: int = 0) -> Image.Image:
    """The whole picture in the middle of a white square, as large as fits."""
    layer = image.convert("RGBA")
    inner = SIDE - 2 * margin
    scale = inner / max(layer.size)
    size = (max(round(layer.width * scale), 1), max(round(layer.height * scale), 1))
    layer = layer.resize(size, Image.Resampling.LANCZOS)
    page = Image.new("RGBA", (SIDE, SIDE), "white")
    page.alpha_composite(layer, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return page.convert("RGB")


def quarters(path: Path) -> list[Image.Image]:
    """The four quarters of a photograph, each cut to a square around its middle."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    width, height = photo.width // 2, photo.height // 2
    side = min(width, height)
    found = []
    for left, top in ((0, 0), (width, 0), (0, height), (width, height)):
        x, y = left + (width - side) // 2, top + (height - side) // 2
        found.append(photo.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    return found
