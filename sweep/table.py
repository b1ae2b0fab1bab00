"""The table of trials: its rows as data, and their drawing with rich."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import itertools
import textwrap

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from sweep.clock import duration

_BARS = "▁▂▃▄▅▆▇█"
_KEPT = "\N{NO-BREAK SPACE}"
_LEAST_CELL = 18  # columns of a cell's name
_STYLES = {
    "complete": "green",
    "stopped": "green",
    "pruned": "yellow",
    "preempted": "yellow",
    "running": "cyan",
}


@dataclass
class Row:
    """One trial as it is shown.

    Attributes:
        losses: held-out losses in the order of the steps.
        eta_s: seconds to its horizon; None where unknown or ended.
        outcome: None while it runs.
        objectives: values of what the sweep minimizes, once they are known.
    """

    number: int
    cell: str
    step: int = 0
    max_steps: int | None = None
    losses: list[float] = field(default_factory=list)
    eta_s: float | None = None
    outcome: str | None = None
    reason: str = ""
    values: dict[str, object] = field(default_factory=dict)
    objectives: list[float] = field(default_factory=list)

    @property
    def best(self) -> float | None:
        return min(self.losses, default=None)


@dataclass(frozen=True)
class Totals:
    """The sweep in numbers; times in seconds."""

    study: str
    done: int
    running: int
    planned: int
    elapsed_s: float | None = None
    eta_s: float | None = None
    note: str = ""
    spent: Sequence[str] = ()  # amounts in words, with their limits

    def lines(self) -> list[str]:
        """The state, and what is spent."""
        return [self.line(), *([f"spent: {', '.join(self.spent)}"] if self.spent else [])]

    def line(self) -> str:
        parts = [f"{self.study}: {self.done} of {self.planned} trials done, {self.running} running"]
        if self.elapsed_s is not None:
            parts.append(f"elapsed {duration(self.elapsed_s)}")
        if self.eta_s is not None and self.done < self.planned:
            parts.append(f"about {duration(self.eta_s)} left")
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


def draw(totals: Totals, rows: Sequence[Row], width: int, height: int | None = None) -> RenderableType:
    """Totals, then the trials in the order of their numbers; or, on a screen of so many lines, what matters now."""
    head = [part for line in totals.lines() for part in fill(line, width)]
    texts = [Text(part, style="bold") for part in head]
    if height is None:
        return Group(*texts, _table(rows, width))
    shown = most_important(rows, max(1, height - 4 - len(head)))  # beside the table's head, note and cursor
    note = [Text(_hidden(rows, shown), style="dim")] if len(shown) < len(rows) else []
    return Group(*texts, _table(shown, width), *note)


def most_important(rows: Sequence[Row], count: int) -> list[Row]:
    """All that run, then those that ended, the latest first; failures are the last to make room."""
    running = [row for row in rows if row.outcome is None]
    ended = sorted((row for row in rows if row.outcome is not None), key=lambda row: -row.number)
    by_need = sorted(ended, key=lambda row: row.outcome in _STYLES)
    kept = [id(row) for row in by_need[: max(0, count - len(running))]]
    return [*running[:count], *(row for row in ended if id(row) in kept)]


def fill(line: str, width: int) -> list[str]:
    """A line as lines that fit, broken between its parts, which commas separate, rather than within one."""
    whole = [part.replace(" ", _KEPT) if len(part) < width else part for part in line.split(", ")]
    return [part.replace(_KEPT, " ") for part in textwrap.wrap(", ".join(whole), max(20, width))]


def _hidden(rows: Sequence[Row], shown: Sequence[Row]) -> str:
    """What does not fit on the screen."""
    running = sum(row.outcome is None for row in rows) - sum(row.outcome is None for row in shown)
    ended = len(rows) - len(shown) - running
    parts = [f"{running} running trials"] * (running > 0) + [f"{ended} that have ended"] * (ended > 0)
    return f"{' and '.join(parts)} are not shown"


def _table(rows: Sequence[Row], width: int) -> Table:
    """The columns that fit, each as wide as its texts; only the cell's name may be cut."""
    gap = 2 if width >= 100 else 1
    columns = _columns(rows, max(6, min(40, (width - 80) // 2 + 6)))
    widths = _fitting(columns, width, gap)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), expand=False)
    for name, wide in widths.items():
        justify: JustifyMethod = "right" if name in ("step", "left") else "left"
        table.add_column(name, justify=justify, no_wrap=True, overflow="ellipsis", width=wide)
    for cells in zip(*(columns[name] for name in widths), strict=True):
        *texts, outcome = cells  # which stands last
        table.add_row(*(Text(text) for text in texts), Text(outcome, style=_STYLES.get(outcome, "red")))
    return table


def _columns(rows: Sequence[Row], spark: int) -> dict[str, list[str]]:
    """The table's texts by the names of its columns; the curve is drawn right of its last value."""
    return {
        "trial": [f"{row.number:04d}" for row in rows],
        "cell": [row.cell for row in rows],
        "step": [f"{row.step}/{row.max_steps}" if row.max_steps else str(row.step) for row in rows],
        "held-out": [f"{row.losses[-1]:.4f}" if row.losses else "" for row in rows],
        "loss": [sparkline(row.losses, spark).ljust(spark) for row in rows],
        "left": [
            duration(row.eta_s) if row.eta_s is not None and row.outcome is None else "" for row in rows
        ],
        "outcome": [row.outcome or "running" for row in rows],
    }


def _fitting(columns: Mapping[str, Sequence[str]], width: int, gap: int) -> dict[str, int]:
    """Widths of the columns that fit: a narrow terminal loses the curve, then the time left, then the loss."""
    widths = {name: max(len(text) for text in (name, *texts)) for name, texts in columns.items()}
    longest, widths["cell"] = widths["cell"], min(widths["cell"], _LEAST_CELL)
    for name in ("loss", "left", "held-out"):
        if sum(widths.values()) + gap * (len(widths) - 1) > width:
            del widths[name]
    spare = width - sum(widths.values()) - gap * (len(widths) - 1)
    widths["cell"] = max(1, min(longest, widths["cell"] + spare))
    return widths


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as bars of eight heights; means of neighbours where there are more values than columns."""
    if len(values) > width:
        edges = [round(index * len(values) / width) for index in range(width + 1)]
        values = [
            sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges) if high > low
        ]
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    return "".join(_BARS[round((value - low) / span * 7) if span > 0 else 3] for value in values)
