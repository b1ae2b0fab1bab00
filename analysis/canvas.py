"""What every figure is drawn on: sizes, colours, the axis of steps, and the files that a figure becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import html
import io
from pathlib import Path
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from curves.run_folder import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart with any colour vision.
INK, GREY, BLUE, GREEN, ORANGE, PURPLE = "#222222", "#767676", "#0072B2", "#009E73", "#D55E00", "#AA4499"
GROUP_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, INK)
MARKERS = "osD^v"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "stepbudget",
    "svg.fonttype": "path",
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure of that many inches, drawn without a display."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def step_axis(axes: Axes, first: float, last: float) -> None:
    """Logarithmic steps with a place for step 0; `first` is the first step after it."""
    axes.set_xscale("symlog", linthresh=first, linscale=0.4)
    axes.set_xlim(-0.25 * first, last * 1.04)
    plain_ticks(axes.xaxis, [0, *[tick for tick in one_two_five(first, last) if tick >= first]])


def step_label(unit: str) -> str:
    """Title of an axis of steps, by what the runs count as one (analysis.run.Run.step_unit)."""
    return f"step ({'optimizer updates' if unit == 'updates' else unit})"


def plain_ticks(axis: Any, ticks: Sequence[float]) -> None:
    """Exactly these ticks, as plain numbers."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([f"{tick:g}" for tick in ticks]))
    axis.set_minor_locator(NullLocator())


def one_two_five(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... from low to high."""
    decades = range(int(np.floor(np.log10(max(low, 1e-9)))), int(np.ceil(np.log10(max(high, 1e-9)))) + 1)
    return [m * 10.0**d for d in decades for m in (1, 2, 5) if low <= m * 10.0**d <= high]


def label_right(axes: Axes, text: str, height: float, colour: Any, bold: bool = False) -> None:
    """Text to the right of the axes at a height in data, where it covers nothing."""
    axes.annotate(
        text, (1.012, height), xycoords=("axes fraction", "data"), va="center", color=colour, fontsize=10,
        fontweight="bold" if bold else "normal", annotation_clip=False,
    )  # fmt: skip


def share_of_width(axes: Axes, step: float) -> float:
    """Where a step stands between the left (0) and the right (1) end of the axes."""
    return float(axes.transAxes.inverted().transform(axes.transData.transform((step, 0)))[0])


def save_figure(figure: Figure, folder: Path, name: str, title: str) -> str:
    """Write folder/name.svg and .png and return the svg as part of a page.

    Args:
        figure: drawn.
        folder: made where it is missing.
        name: of the files, without extension.
        title: what the figure shows, for those who cannot see it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    figure.savefig(folder / f"{name}.png", dpi=144, metadata={"Software": None})
    svg = text.getvalue().replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)
    write_atomically(folder / f"{name}.svg", svg)
    return inline_svg(svg, name)


def inline_svg(svg: str, name: str) -> str:
    """An svg as part of a page: no prologue, scaled by the page, ids unlike those of other figures."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r'<svg ([^>]*?)height="[^"]*"([^>]*?)width="[^"]*"', r"<svg \1\2", body, count=1)
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}.\1"', body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}.\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}.\1)", body)
    return re.sub(r"<metadata>.*?</metadata>\s*", "", body, count=1, flags=re.DOTALL)
