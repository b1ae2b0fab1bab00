"""The figure of what the held-out loss does not say (analysis.beyond_loss), drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.beyond_loss import CLASSES, HELD_OUT, TRAINING, BeyondLoss
from analysis.canvas import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    label_right,
    new_figure,
    save_figure,
    step_axis,
    step_label,
)
from analysis.figures import spread_labels
from curves.likeness import Likeness, mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {HELD_OUT: BLUE, TRAINING: ORANGE, CLASSES: PURPLE}
WALL = 1.5  # falls above the base at which the picture of the losses ends


def draw_beyond_loss(data: BeyondLoss, limits: tuple[float, float], folder: Path, name: str) -> str:
    """The measures below each other on one axis of steps, that of the cell's curves.

    Args:
        data: to draw.
        limits: first step after 0, and the last.
        folder, name: of the files.

    Returns:
        The figure as svg; it is also written to folder/name.svg and .png.
    """
    drawn = []
    if data.losses:
        drawn.append(_draw_losses)
    if data.likeness:
        drawn.append(_draw_distance)
    if any(mean(record.similarity) is not None for record in data.likeness):
        drawn.append(_draw_similarity)
    title = f"More than loss: {data.title}"
    with new_figure(9.0, 0.9 + 1.9 * len(drawn)) as figure:
        rows = np.atleast_1d(figure.subplots(len(drawn), sharex=True))
        for axes, draw in zip(rows, drawn, strict=True):
            _mark_window(axes, data)
            draw(axes, data)
        step_axis(rows[0], *limits)
        rows[0].set_title(title)
        rows[-1].set_xlabel(step_label(data.step_unit))
        figure.align_ylabels(list(rows))
        return save_figure(figure, folder, name, title)


def _mark_window(axes: Axes, data: BeyondLoss) -> None:
    """Window and recommended steps, as in the figure of the curves."""
    cell = data.answer
    if cell.window is not None:
        axes.axvspan(cell.window["low"], cell.window["high"], color=GREEN, alpha=0.13, linewidth=0)
    if cell.recommended_steps is not None:
        axes.axvline(cell.recommended_steps, color=GREEN, linewidth=2)


def _draw_losses(axes: Axes, data: BeyondLoss) -> None:
    """The change of each panel's loss, up to where a wall leaves the picture."""
    lowest = min(float(series.values.min()) for series in data.losses)
    highest = max(float(series.values.max()) for series in data.losses)
    depth = max(-lowest, 1e-12)
    low, high = lowest - 0.1 * depth, min(highest, WALL * depth) + 0.1 * depth
    axes.set_ylim(low, high)
    axes.axhline(0, color=GREY, linewidth=1)
    ends = [float(np.clip(series.values[-1], low, high)) for series in data.losses]
    for series, height in zip(data.losses, spread_labels(ends, 0.13 * (high - low)), strict=True):
        colour = COLOURS[series.name]
        axes.plot(series.steps, series.values, color=colour, linewidth=1.4, marker="o", markersize=3)
        label_right(axes, series.name, height, colour)
    axes.set_ylabel("loss − first")


def _draw_distance(axes: Axes, data: BeyondLoss) -> None:
    """Every sample's distance to its nearest training image, their mean, and that of held-out images."""
    _draw_samples(axes, [(record, record.nearest) for record in data.likeness])
    named = [("samples", _end([record.nearest for record in data.likeness]), ORANGE)]
    held_out = next((record.held_out for record in data.likeness if record.held_out is not None), None)
    if held_out is not None:
        named.append((HELD_OUT, held_out, INK))
        axes.axhline(held_out, color=INK, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_ylim(0, max(axes.get_ylim()[1], 1.1 * (held_out or 0.0)))
    heights = spread_labels([height for _, height, _ in named], 0.13 * axes.get_ylim()[1])
    for (text, _, colour), height in zip(named, heights, strict=True):
        label_right(axes, text, height, colour)
    axes.set_ylabel("distance to\nnearest training\nimage")


def _draw_similarity(axes: Axes, data: BeyondLoss) -> None:
    """Every sample's cosine similarity to the training images, and their mean."""
    rows = [(record, record.similarity or []) for record in data.likeness]
    _draw_samples(axes, rows)
    label_right(axes, "samples", _end([values for _, values in rows]), ORANGE)
    name = next(record.encoder for record in data.likeness if record.encoder is not None)
    axes.set_ylabel(f"similarity to\ntraining images\n({name})")


def _draw_samples(axes: Axes, rows: Sequence[tuple[Likeness, Sequence[float | None]]]) -> None:
    """Dots for the samples of a step, a line for their mean."""
    dots = [(record.step, value) for record, values in rows for value in values if value is not None]
    axes.plot(
        [step for step, _ in dots], [value for _, value in dots], "o", color=ORANGE, alpha=0.35, markersize=4
    )
    means = [(record.step, mean(values)) for record, values in rows]
    known = [(step, value) for step, value in means if value is not None]
    axes.plot([step for step, _ in known], [value for _, value in known], color=ORANGE, linewidth=1.6)


def _end(rows: Sequence[Sequence[float | None]]) -> float:
    """The mean of the last step that has one."""
    means = [value for row in rows if (value := mean(row)) is not None]
    return means[-1] if means else 0.0
