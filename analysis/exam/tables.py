"""The exam as tables."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.exam.curve_scores import LEVELS, Summary
from analysis.exam.examine import Examined, differences
from analysis.exam.outcomes import PRICES
from analysis.table import Table

SHOWN_PRICE = 0.1  # the columns of regret and steps are those of the parameters tuned for it


def cost_table(examined: Sequence[Examined]) -> Table:
    """Regret, its 90th percentile and steps at SHOWN_PRICE, and J at every price."""
    titles = ["policy", "regret %", "90th %", "steps %", *(f"J({price:g})" for price in PRICES)]
    rows = []
    for item in examined:
        figures = [100 * value for value in item.figures(SHOWN_PRICE)]
        costs = [f"{item.mean_cost(price):.3f}" for price in PRICES]
        rows.append(
            [item.policy.name, *(f"{value:.1f}" for value in figures[:2]), f"{figures[2]:.0f}", *costs]
        )
    return Table(titles, rows, frozenset({"policy"}))


def own_minimum_table(examined: Sequence[Examined]) -> Table:
    """J at every price, the price being of as many steps as the run's own minimum."""
    titles = ["policy", *(f"J({price:g})" for price in PRICES)]
    rows = [
        [item.policy.name, *(f"{item.mean_cost(price, 'minimum'):.3f}" for price in PRICES)]
        for item in examined
    ]
    return Table(titles, rows, frozenset({"policy"}))


def difference_table(examined: Sequence[Examined]) -> Table:
    """The first policy's J minus each other's in hundredths of gain, with the interval; a star where it excludes 0."""
    rows = []
    for name, items in differences(examined).items():
        cells = [
            f"{100 * item.mean:.1f} [{100 * item.low:.1f}, {100 * item.high:.1f}]{'*' if item.excludes_zero else ' '}"
            for item in items
        ]
        rows.append([name, *cells])
    return Table(
        ["posterior minus", *(f"at {price:g}" for price in PRICES)], rows, frozenset({"posterior minus"})
    )


def score_table(summaries: Sequence[Summary]) -> Table:
    """One row a cut of the curves."""
    intervals = [f"{100 * level:.0f} %" for level in LEVELS]
    titles = ["cut at", "runs", *(f"holds {name}" for name in intervals), *(f"width {name}" for name in intervals),
              "CRPS", "off by", "answered %"]  # fmt: skip
    rows = [
        [
            f"{item.cut:g} of minimum",
            str(item.runs),
            *(f"{100 * value:.0f}" for value in item.covered),
            *(f"x{value:.1f}" for value in item.width),
            f"{item.crps:.2f}",
            f"x{item.factor:.2f}",
            f"{100 * item.answered:.0f}",
        ]
        for item in summaries
    ]
    return Table(titles, rows, frozenset({"cut at"}))
