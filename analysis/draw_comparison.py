"""The figures of a comparison: steps of all cells beside each other, and the curves of one cell laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.canvas import (
    GREY,
    GROUP_COLOURS,
    INK,
    MARKERS,
    label_right,
    new_figure,
    one_two_five,
    plain_ticks,
    save_figure,
    step_axis,
    step_label,
)
from analysis.comparison import ComparedCell, Comparison, Entry
from analysis.draw import step_limits
from analysis.figures import CellFigure, cell_figure, spread_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW = 0.3  # inches of a study's row
MOST_ENTRIES = 120  # rows of the overview; more cannot be read in a figure


def study_colour(index: int) -> str:
    """The same in every figure and in the table."""
    return GROUP_COLOURS[index % len(GROUP_COLOURS)]


def draw_steps(comparison: Comparison, folder: Path) -> str | None:
    """Window, recommended steps and minimum of every cell and study; None where no answer has any.

    Returns:
        The figure as svg; it is also written to folder/steps-by-study.svg and .png.
    """
    cells = [cell for cell in comparison.cells if any(map(_has_steps, cell.entries))]
    rows = [(cell, entry) for cell in cells for entry in cell.entries][:MOST_ENTRIES]
    if not rows:
        return None
    title = "Steps by study"
    with new_figure(9.0, 1.6 + ROW * (len(rows) + len(cells))) as figure:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        heights = _heights([cell.name for cell, _ in rows])
        for (_, entry), height in zip(rows, heights, strict=True):
            _draw_entry(axes, entry, height, comparison.studies.index(entry.study))
        axes.set_ylim(min(heights) - 1, max(heights) + 1)
        axes.set_yticks(heights, [f"{_short(cell.name)}  {_short(entry.study)}" for cell, entry in rows])
        for tick, (_, entry) in zip(axes.get_yticklabels(), rows, strict=True):
            tick.set_color(study_colour(comparison.studies.index(entry.study)))
        axes.tick_params(axis="y", length=0, labelsize=10)
        axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        low, high = axes.get_xlim()
        plain_ticks(axes.xaxis, [tick for tick in one_two_five(low, high) if low <= tick <= high])
        axes.set_title(title)
        axes.set_xlabel("step")
        return save_figure(figure, folder, "steps-by-study", title)


def _has_steps(entry: Entry) -> bool:
    return entry.answer.recommended_steps is not None or bool(entry.answer.lower_bound)


def _heights(names: Sequence[str]) -> list[float]:
    """Rows from the top; a gap where another cell begins."""
    heights: list[float] = []
    for index, name in enumerate(names):
        gap = 1.8 if index and names[index - 1] != name else 1.0
        heights.append(heights[-1] - gap if heights else 0.0)
    return heights


def _short(text: str) -> str:
    return text if len(text) <= 32 else f"{text[:20]}…{text[-10:]}"


def _draw_entry(axes: Axes, entry: Entry, height: float, study: int) -> None:
    """Window as a bar, recommended steps as a mark, the minimum's interval as a line, a lower bound as an arrow."""
    cell, colour = entry.answer, study_colour(study)
    if cell.window is not None and cell.recommended_steps is not None:
        low, high = max(cell.window["low"], 1), cell.window["high"]
        axes.plot([low, high], [height, height], color=colour, linewidth=8, alpha=0.25, solid_capstyle="butt")
        if cell.window_open:
            axes.plot([high], [height], marker=">", color=colour, alpha=0.5, markersize=6)
        axes.plot(
            [cell.recommended_steps], [height], MARKERS[study % len(MARKERS)], color=colour, markersize=7
        )
    if cell.minimum is not None:
        axes.plot(
            [max(cell.minimum["low"], 1), cell.minimum["high"]], [height, height], color=INK, linewidth=1.2
        )
        axes.plot([cell.minimum["median"]], [height], "|", color=INK, markersize=9)
    elif cell.lower_bound:
        axes.plot([cell.lower_bound], [height], marker=r"$\rightarrow$", color=colour, markersize=13)


def draw_overlay(cell: ComparedCell, comparison: Comparison, folder: Path, name: str) -> str | None:
    """The best runs' curves of every study; None where their losses may not be compared.

    Returns:
        As draw_steps, to folder/name.svg and .png.
    """
    if cell.losses or cell.steps or len(cell.entries) < 2:
        return None
    figures = [cell_figure(entry.result, [entry.answer]) for entry in cell.entries]
    if not any(figure.lines for figure in figures):
        return None
    title = f"Held-out loss by step: {cell.name}"
    with new_figure(9.0, 4.5) as figure:
        axes = figure.add_subplot()
        limits = np.array([step_limits(part) for part in figures])
        step_axis(axes, float(limits[:, 0].min()), float(limits[:, 1].max()))
        low, high = min(part.lowest for part in figures), max(part.highest for part in figures)
        axes.set_ylim(low - 0.06 * len(figures) * (high - low), high)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.annotate(
            figures[0].reference, (0, 0), (4, 3), textcoords="offset points", color=GREY, fontsize=9.5
        )
        ends = []
        for row, (entry, part) in enumerate(zip(cell.entries, figures, strict=True)):
            colour = study_colour(comparison.studies.index(entry.study))
            end = _draw_curve(axes, part, colour)
            ends.append((entry.study, end, colour))
            _draw_foot(axes, entry, low - 0.06 * (row + 0.4) * (high - low), colour)
        heights = spread_labels([end for _, end, _ in ends], 0.065 * (high - low))
        for (study, _, colour), height in zip(ends, heights, strict=True):
            label_right(axes, _short(study), height, colour, bold=True)
        axes.set_title(title)
        axes.set_xlabel(step_label(figures[0].step_unit))
        axes.set_ylabel(f"held-out loss − {figures[0].reference.removesuffix(' model')}")
        return save_figure(figure, folder, name, title)


def _draw_curve(axes: Axes, data: CellFigure, colour: Any) -> float:
    """Points of the best runs with the posterior's band; returns the height of the last one."""
    best = [line for line in data.lines if line.best] or list(data.lines)
    for line in best:
        axes.plot(
            line.steps, line.delta, "o" if data.band is not None else "o-", color=colour, markersize=3.2
        )
    if data.band is not None:
        axes.fill_between(
            data.band.steps, data.band.low, data.band.high, color=colour, alpha=0.18, linewidth=0
        )
        axes.plot(data.band.steps, data.band.median, color=colour, linewidth=1.6)
    low, high = axes.get_ylim()
    return float(np.clip(best[-1].delta[-1], low, high)) if best else 0.0


def _draw_foot(axes: Axes, entry: Entry, height: float, colour: Any) -> None:
    """Window and recommended steps of a study as a bar below the curves."""
    cell = entry.answer
    if cell.window is None or cell.recommended_steps is None:
        return
    axes.plot(
        [cell.window["low"], cell.window["high"]], [height, height], color=colour, linewidth=6, alpha=0.3,
        solid_capstyle="butt",
    )  # fmt: skip
    axes.plot([cell.recommended_steps], [height], "o", color=colour, markersize=6)
