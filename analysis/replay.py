"""`python -m analysis replay` and `tune`: the exam of stop rules on recorded curves (docs/stopping.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.exam.calibrate import calibrate
from analysis.exam.curve_scores import Summary, summarize
from analysis.exam.examine import Examined, differences, examine
from analysis.exam.figure import draw
from analysis.exam.intervals import levels
from analysis.exam.outcomes import PRICES, UNITS, examined_runs, image_sets
from analysis.exam.policies import Memory, policies
from analysis.exam.tables import SHOWN_PRICE, cost_table, difference_table, own_minimum_table, score_table
from analysis.exam.tuning import Sets
from analysis.load import Study
from analysis.run import Run
from analysis.table import Table, print_table
from curves.run_folder import write_json
from curves.stopping.calibration import write_calibrations

FILE = "replay.json"


@dataclass(frozen=True)
class Replay:
    """Everything that the exam found."""

    runs: list[Run]
    sets: Sets
    examined: list[Examined]
    summaries: list[Summary]

    @property
    def tuned(self) -> bool:
        """Whether there was another image set to tune on."""
        return len(np.unique(self.sets)) > 1


def replay(study: Study, level: str = "dataset") -> Replay:
    """Every policy on every finished run that shows a gain over the untouched base.

    Args:
        level: of the cell, that tells image sets apart.

    Raises:
        RequestError: there is no such run, or no such level.
    """
    runs = examined_runs(study)
    sets = image_sets(runs, level)
    return Replay(runs, sets, examine(runs, sets, policies(Memory())), summarize(runs, sets))


def record(found: Replay) -> dict[str, Any]:
    """All figures as plain values."""
    return {
        "schema": 1,
        "runs": [run.name for run in found.runs],
        "image_sets": {name: int((found.sets == name).sum()) for name in map(str, np.unique(found.sets))},
        "prices": PRICES,
        "policies": [_policy_record(item) for item in found.examined],
        "differences": {
            unit: {
                name: [asdict(item) for item in items]
                for name, items in differences(found.examined, unit).items()
            }
            for unit in UNITS
        },
        "curve_posterior": [asdict(item) for item in found.summaries],
    }


def _policy_record(item: Examined) -> dict[str, Any]:
    return {
        "name": item.policy.name,
        "remark": item.policy.remark,
        "cost": {unit: [item.mean_cost(price, unit) for price in PRICES] for unit in UNITS},
        "chosen": {
            unit: [[dict(one) for one in item.chosen(price, unit)] for price in PRICES] for unit in UNITS
        },
        "figures": [
            dict(zip(("regret", "regret_90", "share"), item.figures(price), strict=True)) for price in PRICES
        ],
    }


def print_replay(study: Study, level: str = "dataset") -> None:
    """Run the exam, print its tables with what their columns mean, and write the figure and the figures."""
    found = replay(study, level)
    folder = study.root / "analysis"
    print_table(cost_table(found.examined))
    print(f"\n{_explanation(found, level)}")
    if found.tuned:
        print("\nThe posterior rule's J minus the others', in hundredths of gain (95 % bootstrap interval over"
              f" {levels(found.sets)}; *: excludes 0):\n")  # fmt: skip
        print_table(difference_table(found.examined))
    print(
        "\nJ with the steps in units of the run's own minimum, which does not depend on how long it was recorded:\n"
    )
    print_table(own_minimum_table(found.examined))
    if found.summaries:
        print("\nThe curve posterior, fitted to a part of each curve:\n")
        print_table(score_table(found.summaries))
    write_json(folder / FILE, record(found))
    print(f"\nfigure: {draw(found.examined, folder / 'figures')}\nall figures: {folder / FILE}")


def _explanation(found: Replay, level: str) -> str:
    names = np.unique(found.sets)
    tuned = (
        f"Parameters are tuned for each price on the other image sets ({level}: {', '.join(names)})."
        if found.tuned
        else f"One image set ({level}: {names[0]}): nothing can be tuned, all rules have their default parameters."
    )
    starred = next(item.policy.remark for item in found.examined if item.policy.name.endswith("*"))
    return (
        f"{len(found.runs)} finished runs. {tuned}\n"
        f"regret: of the kept checkpoint, in gain, over the lowest recorded loss; steps: share of the horizon; both at\n"
        f"a price of {SHOWN_PRICE:g}. J: regret + price x share of steps. Means over image sets of means over runs.\n"
        f"*: {starred}. A run that was itself stopped early hides what came after."
    )


def print_tuning(study: Study, level: str, rule: str, prices: Sequence[float], to: Path) -> None:
    """Tune a rule on all runs, write the calibration and say what it holds."""
    runs = examined_runs(study)
    sets = image_sets(runs, level)
    found = calibrate(runs, sets, rule, prices)
    write_calibrations(to, found)
    titles = ["price", "rule", "parameters", "J"]
    rows = [
        [
            f"{item.price:g}",
            item.rule,
            ", ".join(f"{name}={value:g}" for name, value in item.parameters.items() if value is not None),
            f"{item.tuned_on['mean_cost']:.3f}",
        ]
        for item in found
    ]
    print_table(Table(titles, rows, frozenset({"rule", "parameters"})))
    print(
        f"\nTuned on {len(runs)} runs of {len(np.unique(sets))} image sets: J is of these runs, a new set's is higher.\n"
        f"next: python train.py stopping=calibrated stopping.parameters.path={to}"
    )
