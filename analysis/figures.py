"""What the report's figures show, as plain numbers apart from any drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis import words
from analysis.recommend import CellResult, FittedRun
from curves.recommendation import CellAnswer

Array = NDArray[np.float64]
BAND_LEVEL = 0.9
BAND_DRAWS = 600
BAND_GRID = 160


@dataclass(frozen=True)
class Line:
    """One observed curve: held-out loss minus the base's, at steps."""

    name: str
    lr: float | None
    steps: Array
    delta: Array
    best: bool  # at the best hyperparameters


@dataclass(frozen=True)
class Band:
    """The posterior of the latent curve at the best hyperparameters, BAND_LEVEL between low and high."""

    steps: Array
    low: Array
    median: Array
    high: Array


@dataclass(frozen=True)
class CellFigure:
    """Everything in the figure of one cell; losses are held-out loss minus the base's."""

    title: str
    lines: tuple[Line, ...]
    band: Band | None
    answer: CellAnswer
    lowest: float  # of the axis
    highest: float
    reference: str = "base model"  # what the losses are compared with
    step_unit: str = "updates"


@dataclass(frozen=True)
class SizesGroup:
    """Cells that differ in the number of images alone, by number of images."""

    label: str
    cells: tuple[CellAnswer, ...]


def cell_figure(cell: CellResult, cells: Sequence[CellAnswer]) -> CellFigure:
    """The observed curves of a cell with what is concluded from them."""
    chosen = {item.run.name for item in cell.best} if cell.answer.status != "no_gain" else set()
    lines = tuple(_line(item, item.run.name in chosen) for item in cell.runs if item.run.points)
    band = _band(cell.best)
    lowest, highest = _limits(lines, band)
    measured = all(item.run.has_base for item in cell.runs if item.run.points)
    reference = "base model" if measured else "first evaluation"
    title = words.cell_name(cell.answer, cells)
    unit = cell.runs[0].run.step_unit if cell.runs else "updates"
    return CellFigure(title, lines, band, cell.answer, lowest, highest, reference, unit)


def sizes_groups(cells: Sequence[CellAnswer]) -> list[SizesGroup]:
    """Groups with recommended steps or a lower bound for at least two numbers of images."""
    groups: dict[tuple[str, ...], list[CellAnswer]] = {}
    varying = words.varying_levels(cells)
    for cell in cells:
        answered = cell.recommended_steps is not None or cell.lower_bound is not None
        if answered and cell.run is None and cell.images is not None:
            key = (cell.method, cell.base_id, str(cell.resolution), cell.captions, cell.dataset)
            groups.setdefault(key, []).append(cell)
    found = []
    for group in groups.values():
        if len({cell.images for cell in group}) > 1:
            label = ", ".join([group[0].method, *(words.level(group[0], name) for name in varying)])
            found.append(SizesGroup(label, tuple(sorted(group, key=lambda cell: cell.images or 0))))
    return found


def _line(item: FittedRun, best: bool) -> Line:
    curve = item.run.curve()
    start = float(curve.loss[0])
    return Line(item.run.name, item.run.lr, curve.steps.astype(float), curve.loss - start, best)


def _band(best: Sequence[FittedRun]) -> Band | None:
    """Equal mixture of the replicates' posteriors over what they observed."""
    fitted = [
        item for item in best if item.posterior is not None and item.posterior.probability_of_gain >= 0.5
    ]
    if not fitted:
        return None
    longest = max(fitted, key=lambda item: item.run.points[-1].step)
    curve = longest.run.curve()
    steps = np.concatenate([[0.0], np.geomspace(max(curve.steps[1], 1), curve.steps[-1], BAND_GRID)])
    lr_sum = np.interp(steps, curve.steps, curve.lr_sum)
    draws = []
    for item in fitted:
        assert item.posterior is not None
        draws.append(item.posterior.draws(lr_sum, BAND_DRAWS // len(fitted))[0] - item.start_loss)
    low, median, high = np.quantile(
        np.concatenate(draws), [(1 - BAND_LEVEL) / 2, 0.5, (1 + BAND_LEVEL) / 2], axis=0
    )
    return Band(steps, low, median, high)


def _limits(lines: Sequence[Line], band: Band | None) -> tuple[float, float]:
    """Axis from below the lowest point to a gain above the base: the far wall leaves the picture."""
    values = np.concatenate(
        [line.delta for line in lines] + ([band.low] if band is not None else []) + [np.zeros(1)]
    )
    depth = -float(np.min(values))
    top = float(np.max(values))
    if depth <= 0:
        return -0.1 * (top or 1.0), 1.1 * (top or 1.0)
    return -1.15 * depth, min(1.1 * top, 0.8 * depth) + 0.1 * depth


def line_colours(lines: Sequence[Line]) -> list[float]:
    """Place of each learning rate on a colour scale from 0 to 1, by its logarithm."""
    if not lines:
        return []
    logs = np.log([line.lr or 1.0 for line in lines])
    span = float(np.ptp(logs))
    return [0.5] * len(lines) if span == 0 else [float((value - logs.min()) / span) for value in logs]


def spread_labels(heights: Sequence[float], gap: float) -> list[float]:
    """Heights moved apart to at least `gap`, in the same order, about the same centre."""
    order = np.argsort(heights, kind="stable")
    moved = np.array(heights, dtype=float)[order]
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    excess = (moved - np.array(heights, dtype=float)[order]).mean() if len(moved) else 0.0
    result = np.empty(len(moved))
    result[order] = moved - excess
    return [float(value) for value in result]
