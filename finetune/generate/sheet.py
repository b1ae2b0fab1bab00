"""The grid: images in rows and columns, with what each row and column is."""

from collections.abc import Sequence
import math
import re

from PIL import Image, ImageDraw, ImageFont

INK, PAPER = "black", "white"
LEAST = 128  # pixels of a cell; smaller images are enlarged by a whole factor, pixel by pixel
GAP = 8  # pixels between cells
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def make_sheet(
    images: Sequence[Sequence[Image.Image]], rows: Sequence[tuple[str, str]], columns: Sequence[str]
) -> Image.Image:
    """Lay images out.

    Args:
        images: by row and column.
        rows: what the rows are, in two parts: a prompt, which is shown where it changes, and a seed.
        columns: headings, which may have several lines.
    """
    cell = max(_enlarged(image).width for row in images for image in row)
    font = _font(max(12, cell // 16))
    headings = [_wrap(text, font, cell) for text in columns]
    prompts = [
        "" if index and rows[index - 1][0] == prompt else prompt for index, (prompt, _) in enumerate(rows)
    ]
    labels = [
        "\n".join(filter(None, (_wrap(prompt, font, cell), seed)))
        for prompt, (_, seed) in zip(prompts, rows, strict=True)
    ]
    left = max(_size(label, font)[0] for label in labels) + 2 * GAP
    top = max(_size(text, font)[1] for text in headings) + 2 * GAP
    heights = [max(cell, _size(label, font)[1]) for label in labels]
    width = left + len(columns) * (cell + GAP)
    sheet = Image.new("RGB", (width, top + sum(heights) + GAP * len(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, text in enumerate(headings):
        centre = left + index * (cell + GAP) + cell // 2
        draw.multiline_text((centre, top - GAP), text, INK, font, anchor="md", align="center")
    y = top
    for label, height, row in zip(labels, heights, images, strict=True):
        draw.multiline_text((GAP, y), label, INK, font)
        for index, image in enumerate(row):
            big = _enlarged(image)
            sheet.paste(big, (left + index * (cell + GAP) + (cell - big.width) // 2, y))
        y += height + GAP
    return sheet


def _enlarged(image: Image.Image) -> Image.Image:
    factor = math.ceil(LEAST / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _font(pixels: int) -> Font:
    """DejaVu, which knows more scripts, where it is installed."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", pixels)
    except OSError:
        return ImageFont.load_default(pixels)


def _size(text: str, font: Font) -> tuple[int, int]:
    """Width and height of a text of several lines."""
    _, _, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font)
    return math.ceil(right), math.ceil(bottom)


def _wrap(text: str, font: Font, width: int) -> str:
    """Break lines after spaces and slashes, and where there is none for too long, anywhere."""
    return "\n".join(line for part in text.split("\n") for line in _wrap_line(part, font, width))


def _wrap_line(text: str, font: Font, width: int) -> list[str]:
    lines = [""]
    for word in re.split(r"(?<=[ /])", text):
        if font.getlength((lines[-1] + word).rstrip()) <= width:
            lines[-1] += word
            continue
        lines += [""] if lines[-1] else []
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines
