"""Which run to make next: the one that narrows an answer most for each step that it costs (docs/method.md, section 5).

Of log S* of a fresh run of a cell two variances are known (curves.pooling): v of the typical run and s^2 between runs. One
run more tells the typical run up to s^2 + w^2, w^2 being what a curve leaves open of its own minimum, if it passes its
minimum at all, which it does with probability q:

    log(high/low) = 2 z sqrt(v + s^2),      1/v -> 1/v + q / (s^2 + w^2)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
import math

import numpy as np

from analysis import words
from analysis.asked import Asked
from analysis.pilots import next_seed, pilot_command, rounded_up
from analysis.reach import pilot_of
from analysis.recommend import Analysis, CellResult, longest, shows_minimum
from analysis.table import Table, print_table
from analysis.unseen import Unseen, ask_unseen
from curves.answer import LEAST_PASSED_PROBABILITY
from curves.pooling import SPREAD_MEDIAN, PooledPosterior
from curves.posterior import DEFAULT_LOG_SD

Z = 1.645  # of a 90 % interval
CURVE_SD = 0.1  # of log S* in one curve that passed its minimum, where none is known
LONGER = 2.0  # times its horizon, for a cell whose minimum was not reached
NARROWEST = 1e-3  # gain in log(high/low) below which a run is not worth listing


@dataclass(frozen=True)
class Known:
    """What is known of log S* of a cell's fresh run, as variances.

    Attributes:
        typical: of the typical run.
        spread: between runs.
        curve: that one run's own curve leaves open.
        reach: probability that a run of this length passes its minimum.
    """

    typical: float = DEFAULT_LOG_SD**2
    spread: float = SPREAD_MEDIAN**2
    curve: float = CURVE_SD**2
    reach: float = 1.0

    def log_ratio(self, more: int = 0) -> float:
        """log(high/low) of the minimum's 90 % interval after so many more runs (docs/method.md, section 5)."""
        precision = 1 / self.typical + more * self.reach / (self.spread + self.curve)
        return 2 * Z * math.sqrt(1 / precision + self.spread)


@dataclass(frozen=True)
class NextRun:
    """A run that could be made.

    Attributes:
        cell: in words.
        kind: replicate, longer, or first of a cell.
        now, after: high/low of the minimum's interval, and what is expected after it.
        steps: that it is expected to train.
        command: that makes it.
    """

    cell: str
    kind: str
    seed: int
    now: float
    after: float
    steps: int
    command: str

    @property
    def worth(self) -> float:
        """Narrowing for each step: difference of log(high/low) over steps."""
        return math.log(self.now / self.after) / self.steps


def known_of(cell: CellResult, longer: float = 1.0) -> Known:
    """Of a cell that was run; one without a curve to pool knows the prior only.

    longer: length of the next run, in its horizons.
    """
    if cell.pooled is None or not cell.best:
        return Known()
    pooled = cell.pooled
    end = longer * longest(cell.best).facts.horizon_lr_sum
    typical = pooled.log_time()[1] if shows_minimum(pooled) else max(pooled.log_time()[1], CURVE_SD**2)
    return Known(typical, pooled.spread_variance(), _curve_variance(pooled), pooled.probability_passed(end))


def _curve_variance(pooled: PooledPosterior) -> float:
    """Of log S* within a run, mean over the runs that passed their minimum."""
    passed = [run for run in pooled.runs if run.probability_passed() >= LEAST_PASSED_PROBABILITY]
    variances = []
    for run in passed:
        log_time = np.log(run.shapes.time)
        variances.append(float(run.weights @ (log_time - run.weights @ log_time) ** 2))
    return float(np.mean(variances)) if variances else CURVE_SD**2


def ratio_of(cell: CellResult) -> float:
    """high/low of the minimum's interval: as the row has it, else as is known of the cell."""
    interval = cell.answer.minimum
    if interval is not None:
        return max(interval["high"] / max(interval["low"], 1), 1.0)
    return math.exp(known_of(cell).log_ratio())


def expected_ratio(cell: CellResult | None, more: int) -> float:
    """high/low that is expected of a cell after so many more runs; None: of a cell without any."""
    known = Known() if cell is None else known_of(cell)
    now = math.exp(known.log_ratio()) if cell is None else ratio_of(cell)
    return float(now ** (known.log_ratio(more) / known.log_ratio()))


def next_runs(analysis: Analysis, asked: Asked | None = None) -> list[NextRun]:
    """The runs that could be made, the one that narrows most a step first; of an asked cell alone where one is asked for.

    Raises:
        RequestError: as of analysis.unseen.ask_unseen.
    """
    if asked is not None:
        found = [_first(analysis, ask_unseen(analysis, asked))]
    else:
        found = [run for cell in analysis.cells if not why_not(cell) for run in _of_cell(analysis, cell)]
    return sorted(
        (run for run in found if math.log(run.now / run.after) > NARROWEST),
        key=lambda run: (-run.worth, run.cell),
    )


def why_not(cell: CellResult) -> str:
    """Why one run more of the same would tell nothing; empty where it would."""
    if not cell.best:
        return cell.answer.reason or "no run can be used"
    if cell.answer.status == "no_gain":
        return "the base is not improved: other hyperparameters first"
    if not cell.best[0].run.folder.overrides.is_file():
        return "how its runs were made is not known"
    return ""


def _of_cell(analysis: Analysis, cell: CellResult) -> list[NextRun]:
    """A replicate, and where the minimum was not reached a longer run."""
    run = longest(cell.best)
    found = [
        _again(analysis, cell, "replicate", round(np.mean([item.run.last_step for item in cell.best])), 1.0)
    ]
    if cell.answer.status == "not_reached":
        found.append(_again(analysis, cell, "longer", rounded_up(LONGER * run.facts.horizon), LONGER))
    return found


def _again(analysis: Analysis, cell: CellResult, kind: str, steps: int, longer: float) -> NextRun:
    known, now, run = known_of(cell, longer), ratio_of(cell), longest(cell.best)
    narrower = known.log_ratio(1) / known.log_ratio()
    seed = next_seed([item.run for item in cell.runs])
    row = cell.answer
    levels = {
        "images": row.images,
        "resolution": row.resolution,
        "method": row.method,
        "base_model": row.base_model,
        "optimizer.lr": run.time_rate,
    }
    most = steps if kind == "longer" else run.facts.horizon
    command = pilot_command(analysis.study, run, levels, seed, most)
    name = words.cell_name(row, analysis.recommendation.cells)
    return NextRun(name, kind, seed, now, now**narrower, max(1, steps), command)


def _first(analysis: Analysis, unseen: Unseen) -> NextRun:
    """The first run of a cell that was asked for: until then only the law knows of it."""
    mean, variance = unseen.law.moments(unseen.place)
    spread = float(unseen.weights @ [cell.pooled.spread_variance() for cell in unseen.donors if cell.pooled])
    known = Known(variance, spread)
    steps = rounded_up(LONGER * math.exp(mean) / unseen.place.lr)
    place = unseen.place
    cell = f"{unseen.facts['method']}, {place.images} images, {place.resolution} px, {unseen.facts['base_model']}"
    seed = next_seed(unseen.study.runs)
    now, after = math.exp(known.log_ratio()), math.exp(known.log_ratio(1))
    return NextRun(cell, "first", seed, now, after, steps, pilot_of(unseen))


def next_table(runs: Sequence[NextRun]) -> Table:
    """One row a run, numbered as the commands below it."""
    titles = ["", "cell", "run", "seed", "high/low", "after it", "steps", "narrower a 1000 steps"]
    rows = [
        [
            str(number),
            run.cell,
            run.kind,
            str(run.seed),
            words.number(run.now),
            words.number(run.after),
            str(run.steps),
            f"{100 * (1 - math.exp(-1000 * run.worth)):.0f} %",
        ]
        for number, run in enumerate(runs, 1)
    ]
    return Table(titles, rows, frozenset({"cell", "run"}))


def print_next(analysis: Analysis, asked: Asked | None, as_json: bool) -> None:
    """Print the ranked runs with the commands that make them."""
    runs = next_runs(analysis, asked)
    if as_json:
        print(json.dumps([{**asdict(run), "worth": run.worth} for run in runs], indent=2))
        return
    if runs:
        print_table(next_table(runs))
        print("\nhigh/low: of the minimum's 90 % interval, now and as it is expected after the run.\n")
    else:
        print("no run of these cells would narrow an answer")
    for number, run in enumerate(runs, 1):
        print(f"{number}: {run.command}")
    if asked is None:
        for cell in analysis.cells:
            if why := why_not(cell):
                print(f"left out {words.cell_name(cell.answer, analysis.recommendation.cells)}: {why}")
