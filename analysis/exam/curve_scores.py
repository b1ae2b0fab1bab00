"""How well the curve posterior knows the step of the minimum from a part of the curve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.exam.tuning import Sets, mean_over_sets
from analysis.run import Run
from analysis.schedule import fresh_schedule
from curves.answer import answer
from curves.posterior import FEWEST_POINTS, Curve, fit

Array = NDArray[np.float64]
CUTS = (0.5, 0.8, 1.3)  # of the step of the minimum
LEVELS = (0.5, 0.8, 0.9)
DRAWS = 2000
NEAR = 0.05  # of the gain: what a recommendation tolerates


@dataclass(frozen=True)
class Score:
    """One run cut at one place.

    Attributes:
        covered: for each of LEVELS whether the interval of the minimum's step holds the true one.
        width: for each of LEVELS the interval's high over its low.
        crps: continuous ranked probability score of the natural logarithm of the step; 0 is certainty of the truth.
        log_error: natural logarithm of the posterior's median over the truth.
        answered: whether the recommendation is `ok`.
    """

    covered: tuple[bool, ...]
    width: tuple[float, ...]
    crps: float
    log_error: float
    answered: bool


@dataclass(frozen=True)
class Summary:
    """Means over image sets of the runs' scores at one cut; widths and the error's factor are means of logarithms."""

    cut: float
    runs: int
    covered: tuple[float, ...]
    width: tuple[float, ...]
    crps: float
    factor: float  # exp of the mean absolute log_error
    answered: float


def true_minimum(curve: Curve) -> float | None:
    """Step of the minimum: geometric mean of the steps whose loss lies within NEAR of the gain above the lowest.

    The bottom is flat and the lowest point is there by luck. None where the curve ends there, or has no gain.
    """
    lowest = float(curve.loss.min())
    near = curve.loss - lowest <= NEAR * (curve.loss[0] - lowest)
    if near[0] or near[-1]:
        return None
    return float(np.exp(np.mean(np.log(curve.steps[near]))))


def score(run: Run, cut: float) -> Score | None:
    """The posterior of the curve up to that share of its minimum's step; None without a minimum or enough points."""
    curve = run.curve()
    minimum = true_minimum(curve)
    if minimum is None:
        return None
    prefix = curve.until(int(cut * minimum))
    if len(np.unique(prefix.lr_sum)) <= FEWEST_POINTS:
        return None
    posterior = fit(prefix, horizon_lr_sum=run.facts.horizon_lr_sum)
    schedule = fresh_schedule(run)
    draws = np.log(
        np.maximum(schedule.steps_at(posterior.minimum_draws(run.facts.horizon_lr_sum, DRAWS)), 1.0)
    )
    truth = float(np.log(minimum))
    ends = [np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) for level in LEVELS]
    return Score(
        tuple(bool(low <= truth <= high) for low, high in ends),
        tuple(float(np.exp(high - low)) for low, high in ends),
        crps(draws, truth),
        float(np.median(draws)) - truth,
        answer(posterior, schedule).status == "ok",
    )


def crps(draws: Array, truth: float) -> float:
    """E|X - truth| - E|X - X'| / 2 of draws (n,) (Gneiting and Raftery 2007, equation 21)."""
    ordered = np.sort(draws)
    count = len(ordered)
    spread = float((2 * np.arange(1, count + 1) - count - 1) @ ordered) / count**2
    return float(np.mean(np.abs(ordered - truth))) - spread


def summarize(runs: Sequence[Run], sets: Sets) -> list[Summary]:
    """Every cut at which some run can be scored."""
    found = []
    for cut in CUTS:
        scores = [score(run, cut) for run in runs]
        known = [(item, name) for item, name in zip(scores, sets, strict=True) if item is not None]
        if known:
            found.append(_summary(cut, [item for item, _ in known], np.array([name for _, name in known])))
    return found


def _summary(cut: float, scores: Sequence[Score], sets: Sets) -> Summary:
    def mean(values: Array) -> Array:
        return mean_over_sets(values.T, sets)

    return Summary(
        cut,
        len(scores),
        tuple(map(float, mean(np.array([item.covered for item in scores], dtype=float)))),
        tuple(map(float, np.exp(mean(np.log([item.width for item in scores]))))),
        float(mean(np.array([item.crps for item in scores]))),
        float(np.exp(mean(np.abs([item.log_error for item in scores])))),
        float(mean(np.array([item.answered for item in scores], dtype=float))),
    )
