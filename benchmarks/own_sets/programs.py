"""Pictures drawn by program: flat shapes."""

from __future__ import annotations

from collections.abc import Callable
import math
import random

from PIL import Image, ImageDraw

from benchmarks.own_sets.pictures import SIDE

COLOURS = {
    "red": "#d62728",
    "blue": "#1f4fb4",
    "green": "#2ca02c",
    "yellow": "#f2c80f",
    "black": "#202020",
    "purple": "#8a4fbd",
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
FINER = 4  # drawn so many times larger, for smooth edges
LARGEST = 3  # shapes in a picture


def shapes(number: int) -> tuple[str, Callable[[], Image.Image]]:
    """The caption and the drawing of picture `number`: one to three shapes in a row on a tinted ground."""
    source = random.Random(f"shapes {number}")
    count = source.randint(1, LARGEST)
    chosen = [(source.choice(list(COLOURS)), source.choice(SHAPES)) for _ in range(count)]
    tint = tuple(source.randint(205, 255) for _ in range(3))
    turn = source.uniform(0, math.tau)

    def draw() -> Image.Image:
        page = Image.new("RGB", (SIDE * FINER, SIDE * FINER), tint)
        pen = ImageDraw.Draw(page)
        for place, (colour, shape) in enumerate(chosen):
            x = SIDE * FINER * (place + 0.5) / count
            y = SIDE * FINER * (0.5 + 0.18 * math.sin(turn + 2 * place))
            _draw_shape(pen, shape, COLOURS[colour], (x, y), SIDE * FINER * 0.42 / max(count, 1.3))
        return page.resize((SIDE, SIDE), Image.Resampling.LANCZOS)

    return " and ".join(f"{colour} {shape}" for colour, shape in chosen), draw


def _draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, colour: str, centre: tuple[float, float], radius: float
) -> None:
    x, y = centre
    box = (x - radius, y - radius, x + radius, y + radius)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "ring":
        pen.ellipse(box, outline=colour, width=round(radius / 3))
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "cross":
        pen.rectangle((x - radius, y - radius / 3, x + radius, y + radius / 3), fill=colour)
        pen.rectangle((x - radius / 3, y - radius, x + radius / 3, y + radius), fill=colour)
    else:
        corners, inner = (3, 1.0) if shape == "triangle" else (5, 0.45)
        pen.polygon(_corners(centre, radius, corners, inner), fill=colour)


def _corners(
    centre: tuple[float, float], radius: float, count: int, inner: float
) -> list[tuple[float, float]]:
    """Corners of a star, of a regular polygon where inner is 1."""
    reach = [radius, radius * inner] if inner < 1 else [radius]
    total = count * len(reach)
    angles = [math.tau * index / total - math.pi / 2 for index in range(total)]
    return [
        (
            centre[0] + reach[index % len(reach)] * math.cos(angle),
            centre[1] + reach[index % len(reach)] * math.sin(angle),
        )
        for index, angle in enumerate(angles)
    ]
