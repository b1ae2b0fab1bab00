"""The report's figures drawn with matplotlib: vector text for the page, pixels beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis import words
from analysis.canvas import (
    BLUE,
    GREEN,
    GREY,
    GROUP_COLOURS,
    INK,
    MARKERS,
    ORANGE,
    label_right,
    new_figure,
    one_two_five,
    plain_ticks,
    save_figure,
    share_of_width,
    step_axis,
    step_label,
)
from analysis.figures import CellFigure, Line, SizesGroup, line_colours, spread_labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_LABELS = 7


def draw_cell(data: CellFigure, folder: Path, name: str) -> str:
    """Observed curves, posterior band, window and recommendation of one cell.

    Returns:
        The figure as svg; it is also written to folder/name.svg and .png.
    """
    with new_figure(9.0, 4.5) as figure:
        axes = figure.add_subplot()
        step_axis(axes, *step_limits(data))
        axes.set_title(f"Held-out loss by step: {data.title}", pad=24)
        axes.set_ylim(data.lowest, data.highest)
        axes.axhline(0, color=GREY, linewidth=1)
        axes.annotate(data.reference, (0, 0), (4, 3), textcoords="offset points", color=GREY, fontsize=9.5)
        _draw_window(axes, data)
        if data.band is not None:
            axes.fill_between(
                data.band.steps, data.band.low, data.band.high, color=BLUE, alpha=0.22, linewidth=0
            )
            axes.plot(data.band.steps, data.band.median, color=BLUE, linewidth=1.6)
        _draw_lines(axes, data)
        axes.set_xlabel(step_label(data.step_unit))
        axes.set_ylabel(f"held-out loss − {data.reference.removesuffix(' model')}")
        return save_figure(figure, folder, name, f"Held-out loss by step: {data.title}")


def draw_sizes(groups: list[SizesGroup], folder: Path, name: str) -> str:
    """Recommended steps against the number of images, with the window, and the observed best steps.

    Returns:
        As draw_cell.
    """
    title = "Recommended steps by number of training images"
    with new_figure(9.0, 4.5) as figure:
        axes = figure.add_subplot()
        axes.set_title(title)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends: list[float] = []
        for index, group in enumerate(groups):
            shift = 1.03 ** (index - (len(groups) - 1) / 2)
            ends.append(_draw_group(axes, group, GROUP_COLOURS[index % 5], MARKERS[index % 5], shift))
        _label_groups(axes, groups, ends)
        counts = sorted({cell.images or 0 for group in groups for cell in group.cells})
        plain_ticks(axes.xaxis, counts)
        low, high = axes.get_ylim()
        plain_ticks(axes.yaxis, [tick for tick in one_two_five(low, high) if low <= tick <= high])
        axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel("training images")
        axes.set_ylabel("steps")
        return save_figure(figure, folder, name, title)


def _draw_window(axes: Axes, data: CellFigure) -> None:
    """Window as a shaded stretch, recommended steps as a line, the minimum's interval at the foot."""
    cell = data.answer
    if cell.recommended_steps is None or cell.window is None or cell.minimum is None:
        if cell.lower_bound:
            axes.axvline(cell.lower_bound, color=ORANGE, linewidth=1.6, linestyle=(0, (4, 3)))
            _over(axes, cell.lower_bound, f"the minimum is {words.lower_bound(cell)}", ORANGE)
        return
    axes.axvspan(cell.window["low"], cell.window["high"], color=GREEN, alpha=0.13, linewidth=0)
    axes.axvline(cell.recommended_steps, color=GREEN, linewidth=2)
    text = f"train {cell.recommended_steps} steps   (window {words.window(cell)})"
    _over(axes, cell.recommended_steps, text, "#00704f")
    foot = data.lowest + 0.045 * (data.highest - data.lowest)
    axes.plot([cell.minimum["low"], cell.minimum["high"]], [foot, foot], color=INK, linewidth=2.5)
    axes.plot([cell.minimum["median"]], [foot], "o", color=INK, markersize=6)
    right = share_of_width(axes, cell.minimum["high"]) < 0.79
    axes.annotate(
        f"minimum {words.minimum(cell)}", (cell.minimum["high" if right else "low"], foot),
        (7 if right else -7, -4), textcoords="offset points", ha="left" if right else "right",
        fontsize=9.5, color=INK, bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 1},
    )  # fmt: skip


def _over(axes: Axes, step: float, text: str, colour: str) -> None:
    """Text above the axes at a step, kept inside the picture."""
    place = share_of_width(axes, step)
    side = "left" if place < 0.25 else "right" if place > 0.75 else "center"
    axes.annotate(
        text, (step, 1), (0, 5), xycoords=("data", "axes fraction"), textcoords="offset points",
        ha=side, va="bottom", color=colour, fontweight="bold",
    )  # fmt: skip


def _draw_lines(axes: Axes, data: CellFigure) -> None:
    """Points and lines of the runs, coloured by learning rate, each named at its end."""
    import matplotlib

    scale = matplotlib.colormaps["viridis"]
    named = _named(data.lines)
    ends: list[tuple[Line, float, Any]] = []
    for line, place in zip(data.lines, line_colours(data.lines), strict=True):
        colour = scale(0.05 + 0.75 * place)
        joined = 0.0 if line.best and data.band is not None else 0.9
        axes.plot(
            line.steps, line.delta, color=colour, linewidth=joined, marker="o", markersize=3.4, zorder=3
        )
        if line.name in named:
            ends.append((line, float(np.clip(line.delta[-1], data.lowest, data.highest)), colour))
    heights = spread_labels([height for _, height, _ in ends], 0.062 * (data.highest - data.lowest))
    for (line, end, colour), height in zip(ends, heights, strict=True):
        text = (line.name if line.lr is None else f"lr {words.rate(line.lr)}") + (
            " best" if line.best else ""
        )
        label_right(axes, text, height, colour, line.best)
        last = _leaves_at(line, data.highest)
        axes.annotate(
            "", (last, end), (1.01, height), xycoords="data", textcoords=("axes fraction", "data"),
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6},
            annotation_clip=False,
        )  # fmt: skip


def _leaves_at(line: Line, highest: float) -> float:
    """Step at which a line ends or leaves the picture for good, through the top."""
    inside = np.flatnonzero(line.delta <= highest)
    last = int(inside[-1]) if len(inside) else 0
    if last == len(line.steps) - 1:
        return float(line.steps[-1])
    share = (highest - line.delta[last]) / (line.delta[last + 1] - line.delta[last])
    return float(line.steps[last] + np.clip(share, 0, 1) * (line.steps[last + 1] - line.steps[last]))


def _named(lines: tuple[Line, ...]) -> set[str]:
    """Lines that are labelled: all, or the best and the extreme learning rates; of replicates one."""
    first: dict[tuple[float | None, bool], Line] = {}
    for line in lines:
        first.setdefault((line.lr, line.best), line)
    unique = sorted(first.values(), key=lambda line: line.lr or 0.0)
    if len(unique) > MOST_LABELS:
        unique = [unique[0], *[line for line in unique[1:-1] if line.best], unique[-1]]
    return {line.name for line in unique}


def step_limits(data: CellFigure) -> tuple[float, float]:
    """First step after 0, and the last of all that is drawn: what is concluded may lie beyond every run."""
    cell = data.answer
    concluded = [cell.recommended_steps, cell.lower_bound]
    concluded += [round(part["high"]) for part in (cell.minimum, cell.window) if part is not None]
    ends = [float(line.steps[-1]) for line in data.lines] + [float(step) for step in concluded if step]
    starts = [float(line.steps[line.steps > 0][0]) for line in data.lines if line.steps[-1] > 0]
    return min(starts, default=1.0), max([*ends, 2 * min(starts, default=1.0)])


def _draw_group(axes: Axes, group: SizesGroup, colour: str, marker: str, shift: float) -> float:
    """Recommended steps with window bars, observed best steps, lower bounds. Returns the last height."""
    known = [cell for cell in group.cells if cell.recommended_steps is not None]
    x = [(cell.images or 1) * shift for cell in known]
    axes.plot(
        x,
        [float(cell.recommended_steps or 0) for cell in known],
        color=colour,
        marker=marker,
        linewidth=1.6,
        markersize=7,
    )
    for place, cell in zip(x, known, strict=True):
        if cell.window is not None:
            axes.plot(
                [place, place],
                [max(cell.window["low"], 1), cell.window["high"]],
                color=colour,
                linewidth=5,
                alpha=0.25,
            )
        if cell.minimum is not None:
            axes.plot(
                [place], [cell.minimum["median"]], marker="_", color=colour, markersize=13, markeredgewidth=2
            )
        if cell.best_step_observed:
            axes.plot(
                [place],
                [cell.best_step_observed],
                marker="o",
                color=colour,
                markerfacecolor="white",
                markersize=5,
            )
    for cell in group.cells:
        if cell.recommended_steps is None and cell.lower_bound:
            axes.plot(
                [(cell.images or 1) * shift],
                [cell.lower_bound],
                marker=r"$\uparrow$",
                color=colour,
                markersize=12,
            )
    last = group.cells[-1]
    return float(last.recommended_steps or last.lower_bound or 1)


def _label_groups(axes: Axes, groups: list[SizesGroup], ends: list[float]) -> None:
    low, high = np.log(axes.get_ylim())
    heights = np.exp(spread_labels([float(np.log(end)) for end in ends], 0.08 * float(high - low)))
    for index, (group, height) in enumerate(zip(groups, heights, strict=True)):
        label_right(axes, group.label, float(height), GROUP_COLOURS[index % 5], bold=True)
