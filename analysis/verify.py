"""A study's recommendation against fresh runs: other seeds of its cells, trained well past the minimum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
import math

import numpy as np
from numpy.typing import NDArray

from analysis import words
from analysis.load import Study
from analysis.recommend import Analysis, FittedRun, fit_run
from analysis.run import Run
from analysis.table import Table, print_table
from conf.errors import RequestError
from curves.posterior import CurvePosterior
from curves.recommendation import CellAnswer, matching_cell

Array = NDArray[np.float64]
RULE_OF_THUMB = 100  # steps per image, divided by the batch
EARLY_SHARE = 0.1
FAR = 3.0


@dataclass(frozen=True)
class Truth:
    """What a fresh run shows, smoothed by its own posterior between its evaluations."""

    steps: Array  # every whole step up to the last evaluation, thinned
    regret: Array  # in gain, 0 at the minimum and 1 at step 0
    minimum: float  # steps
    gain: float  # loss units
    observed_minimum: int  # step of the lowest evaluation

    def at(self, step: float) -> float:
        """Regret at a step, interpolated in log(step + 1); nan beyond the last evaluation."""
        if step > self.steps[-1]:
            return float("nan")
        return float(np.interp(math.log1p(step), np.log1p(self.steps), self.regret))


@dataclass(frozen=True)
class Check:
    """One fresh run against its cell. Regrets are in gain; None where the cell has no steps."""

    cell: str
    run: str
    status: str
    recommended_steps: int | None
    minimum: float
    observed_minimum: int
    regret: float | None  # at the recommended steps; nan where they lie beyond the fresh run's end
    minimum_regret: float | None  # at the median of the minimum
    covered: bool | None
    high_over_low: float | None
    rule_of_thumb_steps: int
    rule_of_thumb_regret: float
    early_gain: float  # share of the gain in the first tenth of the steps to the minimum
    late_rise: float  # regret at three times the minimum


@dataclass(frozen=True)
class Verification:
    """All checks, and the best single number of steps that hindsight would have picked for all of them.

    The means of regret are over the same checks, those whose regret is known; nan where there is none.
    """

    checks: tuple[Check, ...]
    compared: int  # checks that the means of regret are over
    mean_regret: float
    mean_minimum_regret: float
    coverage: float
    constant_steps: int | None
    constant_regret: float
    rule_of_thumb_regret: float
    unmatched: tuple[str, ...]


def truth_of(run: Run) -> Truth | None:
    """The smoothed curve of a fresh run; None where there is nothing to smooth, no gain, or none known."""
    return truth_of_fitted(fit_run(run))


def truth_of_fitted(fitted: FittedRun) -> Truth | None:
    """As `truth_of`, of a run that is fitted already."""
    run, posterior = fitted.run, fitted.posterior
    if posterior is None or posterior.probability_of_gain < 0.5 or run.best is None or not run.has_base:
        return None
    curve = run.curve()
    steps = np.unique(np.concatenate([[0.0], curve.steps, np.geomspace(1, curve.steps[-1], 400).round()]))
    loss = _smoothed(posterior, fitted, np.interp(steps, curve.steps, curve.lr_sum))
    lowest = int(np.argmin(loss))
    gain = float(loss[0] - loss[lowest])
    if lowest == 0 or gain <= 0:
        return None
    return Truth(steps, (loss - loss[lowest]) / gain, float(steps[lowest]), gain, run.best.step)


def _smoothed(posterior: CurvePosterior, fitted: FittedRun, lr_sum: Array) -> Array:
    """Posterior mean plus the smoothed residuals of the points: the wall need not be of the family."""
    curve = fitted.run.curve()
    at_points = posterior.draws(curve.lr_sum, 400)[0].mean(axis=0)
    left = curve.loss - at_points
    smooth = np.convolve(np.pad(left, 1, mode="edge"), np.array([0.25, 0.5, 0.25]), mode="valid")
    smooth[0] = left[0]
    mean = posterior.draws(lr_sum, 400)[0].mean(axis=0)
    result: Array = mean + np.interp(
        np.log1p(lr_sum / curve.lr_sum[1]), np.log1p(curve.lr_sum / curve.lr_sum[1]), smooth
    )
    return result


def verify(analysis: Analysis, fresh: Study) -> Verification:
    """Match fresh runs to cells and compare.

    Raises:
        RequestError: no fresh run is of a cell of the study, or none has a gain to measure regret in.
    """
    cells = analysis.recommendation.cells
    checks: list[Check] = []
    truths: list[Truth] = []
    unmatched: list[str] = []
    for run in fresh.runs:
        cell = matching_cell(cells, run.facts.cell) if run.step_unit == "updates" else None
        truth = truth_of(run) if cell is not None else None
        if cell is None or truth is None:
            measured = "no gain to compare with" if cell is not None else "no such cell in the study"
            if run.step_unit != "updates":
                measured = f"its steps are {run.step_unit}, not optimizer updates"
            unmatched.append(f"{run.name}: {measured if run.points else 'measured no held-out loss'}")
            continue
        unlike = _unlike(run, cell)
        if unlike:
            unmatched.append(f"{run.name}: {unlike}")
            continue
        checks.append(_check(run, cell, cells, truth))
        truths.append(truth)
    if not checks:
        raise RequestError(f"{fresh.root}: no fresh run can be compared ({'; '.join(unmatched)})")
    return _summary(checks, truths, unmatched)


def _unlike(run: Run, cell: CellAnswer) -> str:
    """What of the run's hyperparameters is not what the cell recommends."""
    names = [
        name
        for name in cell.hyperparameters
        if run.facts.hyperparameters.get(name) != cell.hyperparameters[name]
    ]
    shown = (
        f"{name}={run.facts.hyperparameters.get(name)}, not {cell.hyperparameters[name]}" for name in names
    )
    return ", ".join(shown)


def _check(run: Run, cell: CellAnswer, cells: Sequence[CellAnswer], truth: Truth) -> Check:
    batch = int(run.facts.hyperparameters.get("batch") or 1)
    thumb = round(RULE_OF_THUMB * (cell.images or 0) / batch)
    interval = cell.minimum
    return Check(
        cell=words.cell_name(cell, cells),
        run=run.name,
        status=cell.status,
        recommended_steps=cell.recommended_steps,
        minimum=truth.minimum,
        observed_minimum=truth.observed_minimum,
        regret=None if cell.recommended_steps is None else truth.at(cell.recommended_steps),
        minimum_regret=None if interval is None else truth.at(interval["median"]),
        covered=None if interval is None else interval["low"] <= truth.minimum <= interval["high"],
        high_over_low=None if interval is None else interval["high"] / max(interval["low"], 1),
        rule_of_thumb_steps=thumb,
        rule_of_thumb_regret=truth.at(min(thumb, truth.steps[-1])),
        early_gain=1 - truth.at(EARLY_SHARE * truth.minimum),
        late_rise=truth.at(FAR * truth.minimum),
    )


def _summary(checks: list[Check], truths: list[Truth], unmatched: list[str]) -> Verification:
    pairs = [
        pair
        for pair in zip(checks, truths, strict=True)
        if pair[0].regret is not None and math.isfinite(pair[0].regret)
    ]
    compared = [check for check, _ in pairs]
    constant_steps, constant_regret = best_constant([truth for _, truth in pairs])
    return Verification(
        checks=tuple(checks),
        compared=len(compared),
        mean_regret=_mean([check.regret for check in compared]),
        mean_minimum_regret=_mean([check.minimum_regret for check in compared]),
        coverage=_mean([check.covered for check in checks]),
        constant_steps=constant_steps,
        constant_regret=constant_regret,
        rule_of_thumb_regret=_mean([check.rule_of_thumb_regret for check in compared]),
        unmatched=tuple(unmatched),
    )


def best_constant(truths: list[Truth]) -> tuple[int | None, float]:
    """The one number of steps with the lowest mean regret, and that."""
    if not truths:
        return None, float("nan")
    grid = np.unique(np.geomspace(1, max(truth.steps[-1] for truth in truths), 600).round())
    regrets = np.array([[truth.at(min(step, truth.steps[-1])) for step in grid] for truth in truths])
    best = int(np.argmin(regrets.mean(axis=0)))
    return int(grid[best]), float(regrets.mean(axis=0)[best])


def _mean(values: Sequence[float | None]) -> float:
    """Over those that are known; nan where none is."""
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def verification_table(result: Verification) -> Table:
    """One row a fresh run; regrets in per cent of the gain."""
    titles = [
        "cell",
        "steps",
        "fresh minimum",
        "lowest point",
        "regret %",
        "at minimum %",
        "holds",
        "high/low",
        "100/image %",
        "first tenth %",
        "rise at 3x %",
    ]
    rows = [
        [
            check.cell,
            words.count(check.recommended_steps)
            if check.status == "ok"
            else words.STATUS_WORDS[check.status],
            words.count(check.minimum),
            str(check.observed_minimum),
            _percent(check.regret),
            _percent(check.minimum_regret),
            words.NONE if check.covered is None else "yes" if check.covered else "no",
            words.NONE if check.high_over_low is None else f"{check.high_over_low:.2f}",
            _percent(check.rule_of_thumb_regret),
            _percent(check.early_gain),
            _percent(check.late_rise),
        ]
        for check in result.checks
    ]
    return Table(titles, rows, frozenset({"cell"}))


def print_verification(analysis: Analysis, fresh: Study, as_json: bool = False) -> None:
    """Print the table and the comparison with what needs no study."""
    result = verify(analysis, fresh)
    if as_json:
        print(json.dumps(_without_nan(asdict(result)), indent=2))
        return
    print_table(verification_table(result))
    answered = sum(check.covered is not None for check in result.checks)
    print(
        f"\nmean regret at the recommended steps {_percent(result.mean_regret)} % of gain, "
        f"at the minimum's median {_percent(result.mean_minimum_regret)} %;\n"
        f"the best single number of steps in hindsight ({words.count(result.constant_steps)}) "
        f"{_percent(result.constant_regret)} %; "
        f"100 steps per image / batch {_percent(result.rule_of_thumb_regret)} %\n"
        f"the minimum's interval holds in {_percent(result.coverage)} % of {answered} fresh runs"
    )
    if result.compared < len(result.checks):
        print(
            f"means over {result.compared} of {len(result.checks)} fresh runs: the others have no recommended "
            "steps, or end before them"
        )
    for line in result.unmatched:
        print(f"left out {line}")


def _percent(value: float | None) -> str:
    return words.NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return [_without_nan(item) for item in value] if isinstance(value, list | tuple) else value
