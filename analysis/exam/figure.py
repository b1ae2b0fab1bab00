"""The exam drawn: what every other policy costs above the posterior rule, with its interval, at each price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.canvas import BLUE, GREY, INK, STYLE
from analysis.exam.examine import Examined, differences
from analysis.exam.intervals import Difference
from analysis.exam.outcomes import PRICES
from curves.run_folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "replay"
WIDEST = 4.0  # times the median policy's excess: dearer ones are drawn at the edge, with an arrow


@dataclass(frozen=True)
class Panel:
    """One price: the posterior's mean cost, and that of the others above it."""

    price: float
    ours: float
    names: tuple[str, ...]
    excess: tuple[Difference, ...]  # the other's J minus ours
    widest: float  # end of the axis

    def limits(self) -> tuple[float, float]:
        """Of the axis: all intervals, up to the end."""
        low = min([0.0, *(item.low for item in self.excess)])
        high = max([0.0, *(min(item.high, self.widest) for item in self.excess)])
        return max(low, -self.widest) - 0.06 * (high - low), high + 0.08 * (high - low)


def panels(examined: Sequence[Examined]) -> list[Panel]:
    """Plain numbers of the figure; the dearest policy at all prices together stands first."""
    against = differences(examined)
    names = sorted(against, key=lambda name: sum(item.mean for item in against[name]))
    found = []
    for place, price in enumerate(PRICES):
        excess = tuple(_turned(against[name][place]) for name in names)
        widest = WIDEST * max(float(np.median([abs(item.mean) for item in excess])), 0.01)
        found.append(Panel(price, examined[0].mean_cost(price), tuple(names), excess, widest))
    return found


def _turned(item: Difference) -> Difference:
    return Difference(-item.mean, -item.high, -item.low)


def draw(examined: Sequence[Examined], folder: Path) -> Path:
    """Write folder/replay.svg and .png; the path of the latter."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    data = panels(examined)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.0, 1.6 + 0.34 * len(data[0].names)), layout="constrained")
        FigureCanvasAgg(figure)
        row: Any = figure.subplots(1, len(data), sharey=True)
        for axes, panel in zip(row, data, strict=True):
            _draw_panel(axes, panel)
        figure.supxlabel(
            "J above that of the posterior rule, in gain; bars: 95 % bootstrap intervals", fontsize=11
        )
        return _save(figure, folder)


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set_xlim(panel.limits())
    axes.axvline(0, color=BLUE, linewidth=1.6)
    for height, item in enumerate(panel.excess):
        colour = INK if item.excludes_zero else GREY
        axes.plot([item.low, item.high], [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
        shown, marker = (
            (item.mean, "o") if item.mean <= panel.limits()[1] else (0.97 * panel.limits()[1], ">")
        )
        axes.plot(
            [shown],
            [height],
            marker=marker,
            color=colour,
            markerfacecolor=colour if item.excludes_zero else "white",
            markersize=6,
        )
    axes.set_yticks(range(len(panel.names)), panel.names)
    axes.set_ylim(-0.6, len(panel.names) - 0.4)
    axes.grid(axis="x", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_title(f"price {panel.price:g}\nposterior: J = {panel.ours:.3f}", fontsize=11, color=INK)


def _save(figure: Figure, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    write_atomically(folder / f"{NAME}.svg", text.getvalue())
    figure.savefig(folder / f"{NAME}.png", dpi=120, metadata={"Software": None})
    return folder / f"{NAME}.png"
