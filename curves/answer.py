"""From a posterior to a step budget (docs/method.md, section 3): budget, interval, or why there is none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from curves.misfit import Misfit
from curves.posterior import TimePrior

Array = NDArray[np.float64]
Status = Literal["ok", "not_reached", "no_gain", "refused"]

TOLERATED_REGRETS = (0.05, 0.1)  # eps, in gain; the second where a steep U leaves no step for the first
TOLERATED_RISK = 0.2  # delta
LEAST_GAIN_PROBABILITY = 0.95
LEAST_PASSED_PROBABILITY = 0.65
WIDEST_INTERVAL = 8.0  # high/low
SENSITIVITY_LENGTHS = (1.0, 10.0)
PRIORS = "1 or 10 times the recorded length"
DRAWS = 2000  # of the minimum
REGRET_DRAWS = 512
GRID = 160  # steps at which regret is looked at
GRID_BELOW = 0.25  # of the minimum's low end: below it the grid is coarse


class RegretDraws(Protocol):
    """What an answer needs: one curve's posterior or a pooled one."""

    @property
    def probability_of_gain(self) -> float:
        """P(some step is better than the base)."""

    @property
    def misfit(self) -> Misfit:
        """Whether the curve is a U at all."""

    @property
    def time_prior_assumed(self) -> bool:
        """True when nobody stated a prior of the minimum's time."""

    @property
    def last_lr_sum(self) -> float:
        """Intrinsic time of the last point of the longest run."""

    def probability_passed(self, lr_sum: float | None = None) -> float:
        """P(the minimum lies before the end of what was observed)."""

    def regret_draws(self, lr_sum: Array, count: int = ..., seed: int = ...) -> Array:
        """Regret in gain at lr_sum, (count, grid)."""

    def minimum_draws(self, horizon_lr_sum: float | None = ..., count: int = ..., seed: int = ...) -> Array:
        """lr_sum at the minimum, (count,)."""

    def gain_summary(self, count: int = ..., seed: int = ...) -> tuple[float, float]:
        """Gain and its standard error, loss units."""

    def with_time_prior(self, prior: TimePrior) -> RegretDraws:
        """The same under another time prior."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of the run that is asked about: lr_sum (horizon_steps + 1,) after each whole step, 0
    first.
    """

    lr_sum: Array

    def __post_init__(self) -> None:
        if len(self.lr_sum) < 2 or self.lr_sum[0] != 0 or np.any(np.diff(self.lr_sum) < 0):
            raise ValueError("a schedule's lr_sum must start at 0, never fall and cover at least one step")

    @property
    def horizon_steps(self) -> int:
        """Steps the schedule covers."""
        return len(self.lr_sum) - 1

    def steps_at(self, lr_sum: Array) -> Array:
        """Whole steps at which lr_sum is reached; the horizon where it never is."""
        found = np.searchsorted(self.lr_sum, np.asarray(lr_sum) * (1 - 1e-12))
        return np.minimum(found, self.horizon_steps).astype(float)

    def steps_beyond(self, lr_sum: Array) -> Array:
        """Steps at which lr_sum is reached, where it lies beyond the horizon by a schedule stretched that far."""
        stretched = self.horizon_steps * np.asarray(lr_sum) / self.lr_sum[-1]
        return np.where(lr_sum > self.lr_sum[-1], stretched, self.steps_at(lr_sum))

    @classmethod
    def interpolated(cls, steps: NDArray[np.int64], lr_sum: Array, horizon_steps: int) -> Schedule:
        """From recorded points (n,), one past step 0; after the last one its learning rate goes on."""
        later = np.asarray(steps) > 0
        at = np.concatenate([[0.0], np.asarray(steps, dtype=float)[later]])
        sums = np.concatenate([[0.0], np.asarray(lr_sum, dtype=float)[later]])
        if len(at) < 2:
            raise ValueError("a schedule cannot be read from step 0 alone")
        grid = np.arange(horizon_steps + 1, dtype=float)
        rate = (sums[-1] - sums[-2]) / (at[-1] - at[-2])
        return cls(np.interp(grid, at, sums) + np.maximum(grid - at[-1], 0.0) * rate)


@dataclass(frozen=True)
class Interval:
    """Steps at the minimum: quantiles of the posterior, `level` between low and high."""

    low: int
    median: int
    high: int
    level: float = 0.9

    def stretched(self, factors: tuple[float, float]) -> Interval:
        """With the log distances of its low and high end from the median times these factors."""
        median = max(self.median, 1)
        low = int(np.floor(median * (self.low / median) ** factors[0])) if self.low else 0
        return replace(self, low=low, high=int(np.ceil(median * (self.high / median) ** factors[1])))


@dataclass(frozen=True)
class Window:
    """Steps at which regret is more likely than not within the tolerance.

    open: `high` is only where the horizon ends, and the window may go on beyond it.
    """

    low: int
    high: int
    open: bool = False


@dataclass(frozen=True)
class Answer:
    """What a cell's curves say. Steps are None unless status is ok; reason says why in a sentence.

    recommended_steps: where the last checkpoint is kept; recommended_steps_best_kept: where the best one is.
    priced_steps: the cheapest, where the horizon has a price. lower_bound: of a minimum that was not reached.
    expected_minimum: where that lies, beyond the horizon too; it leans on the prior, so no budget follows from it.
    """

    status: Status
    reason: str
    recommended_steps: int | None = None
    recommended_steps_best_kept: int | None = None
    minimum: Interval | None = None
    window: Window | None = None
    priced_steps: int | None = None
    lower_bound: int | None = None
    expected_minimum: Interval | None = None
    gain: float | None = None
    gain_se: float | None = None
    probability_of_gain: float | None = None
    probability_passed: float | None = None


def answer(
    posterior: RegretDraws,
    schedule: Schedule,
    *,
    price: float | None = None,
    stretch: tuple[float, float] = (1.0, 1.0),
    seed: int = 0,
) -> Answer:
    """The budget for one run on that schedule; its last step is the horizon. docs/method.md, section 3.

    price: lambda, the cost of the whole horizon in gain, for `priced_steps`. stretch: of the minimum's interval below and
    above its median, of a fresh run's that of curves.calibration. Thresholds are those of
    method.md section 3.
    """
    gain, gain_se = posterior.gain_summary(REGRET_DRAWS, seed)
    passed = posterior.probability_passed()
    facts = Answer(
        "refused",
        "",
        gain=gain,
        gain_se=gain_se,
        probability_of_gain=posterior.probability_of_gain,
        probability_passed=passed,
    )
    if posterior.misfit.flag and posterior.probability_of_gain > 0.5:
        return replace(facts, reason=_misfit_reason(posterior.misfit))
    if posterior.probability_of_gain < LEAST_GAIN_PROBABILITY:
        reason = f"the base model is not improved: P(gain > 0) = {posterior.probability_of_gain:.2f}"
        return replace(facts, status="no_gain", reason=reason)
    draws = posterior.minimum_draws(float(schedule.lr_sum[-1]), DRAWS, seed)
    minimum = _interval(schedule.steps_at(draws))
    expected = _interval(schedule.steps_beyond(posterior.minimum_draws(None, DRAWS, seed)))
    unfinished = _unfinished(posterior, schedule, expected, passed, seed)
    if unfinished:
        # The last point bounds a minimum that was not passed better than a quantile that leans on the prior.
        last = int(schedule.steps_at(np.array([posterior.last_lr_sum]))[0])
        bound = min(minimum.low, last)
        return replace(
            facts, status="not_reached", reason=unfinished, lower_bound=bound, expected_minimum=expected
        )
    minimum = minimum.stretched(stretch)
    minimum = replace(minimum, high=min(minimum.high, schedule.horizon_steps))
    steps = _step_grid(schedule.horizon_steps, minimum.low)
    regret = posterior.regret_draws(schedule.lr_sum[steps], REGRET_DRAWS, seed)
    tolerance = next((eps for eps in TOLERATED_REGRETS if _tolerable(regret, eps)), None)
    refusal = _refusal(minimum, regret, tolerance)
    if refusal or tolerance is None:
        return replace(facts, reason=refusal or "")
    reason = f"the minimum was passed: P = {passed:.2f}"
    if tolerance > TOLERATED_REGRETS[0]:
        reason += (
            f"; no step is sure to be within 5 % of the gain, so steps and window are for {tolerance:.0%}"
        )
    found = replace(facts, status="ok", reason=reason, minimum=minimum)
    return _with_steps(found, steps, regret, tolerance, price)


def _within(regret: Array, tolerance: float) -> Array:
    """P(regret within the tolerance) at each step, from draws (draws, steps)."""
    return np.asarray(np.mean(regret <= tolerance, axis=0))


def _tolerable(regret: Array, tolerance: float) -> bool:
    """Whether some step is within the tolerance with the risk that is taken."""
    return bool(_within(regret, tolerance).max() >= 1 - TOLERATED_RISK)


def _with_steps(
    found: Answer, steps: NDArray[np.int64], regret: Array, tolerance: float, price: float | None
) -> Answer:
    """The answer with its budgets and window; regret (draws, steps), the last step being the horizon."""
    within = _within(regret, tolerance)
    best_so_far = _within(np.minimum.accumulate(regret, axis=1), tolerance)
    likely = steps[within >= 0.5]
    return replace(
        found,
        recommended_steps=int(steps[within >= 1 - TOLERATED_RISK][0]),
        recommended_steps_best_kept=int(steps[best_so_far >= 1 - TOLERATED_RISK][0]),
        window=Window(int(likely[0]), int(likely[-1]), open=bool(likely[-1] == steps[-1])),
        priced_steps=None if price is None else _priced(steps, regret, price),
    )


def _step_grid(horizon_steps: int, low: int) -> NDArray[np.int64]:
    """0 and whole steps up to the horizon, about GRID of them, evenly spaced in log and densest around and after low."""
    if horizon_steps <= GRID:
        return np.arange(horizon_steps + 1)
    start = float(np.clip(GRID_BELOW * low, 1.0, horizon_steps / 2))
    parts = [np.zeros(1), np.geomspace(1.0, start, GRID // 8), np.geomspace(start, horizon_steps, GRID)]
    return np.unique(np.round(np.concatenate(parts))).astype(np.int64)


def _interval(draws: Array) -> Interval:
    """Quantiles of steps (draws,)."""
    low, median, high = np.quantile(draws, [0.05, 0.5, 0.95])
    return Interval(int(np.floor(low)), int(np.round(median)), int(np.ceil(high)))


def _unfinished(
    posterior: RegretDraws, schedule: Schedule, expected: Interval, passed: float, seed: int
) -> str | None:
    """Why the minimum cannot be said to be reached, if so, and how much its place owes to the prior."""
    likely = f"it is expected between {expected.low} and {expected.high} steps"
    unsure = passed < LEAST_PASSED_PROBABILITY
    reason = f"no run passed its minimum with confidence: P = {passed:.2f}; train longer than the lower bound; {likely}"
    if not posterior.time_prior_assumed:
        return reason if unsure else None
    near, far = (
        int(np.median(schedule.steps_beyond(moved.minimum_draws(None, DRAWS, seed))))
        for moved in (
            posterior.with_time_prior(TimePrior(n * posterior.last_lr_sum)) for n in SENSITIVITY_LENGTHS
        )
    )
    if unsure:
        return f"{reason}, with a median of {near} or {far} by a prior at {PRIORS}"
    moved = abs(np.log(max(far, 1) / max(near, 1)))
    if moved > np.log(max(expected.high, 1) / max(expected.low, 1)) and moved > np.log(1.05):
        return f"the answer follows the prior: {near} or {far} steps by a prior at {PRIORS}; train longer; {likely}"
    return None


def _misfit_reason(misfit: Misfit) -> str:
    return (
        f"misfit: the curve is not a U (p = {misfit.p_value:.3f}, "
        f"off by {misfit.share_of_gain:.2f} of the gain)"
    )


def _refusal(minimum: Interval, regret: Array, tolerance: float | None) -> str | None:
    """Why no number may be given, if so."""
    if minimum.high > WIDEST_INTERVAL * max(minimum.low, 1):
        return f"too wide: the minimum lies between {minimum.low} and {minimum.high} steps"
    if tolerance is None:
        best = _within(regret, TOLERATED_REGRETS[-1]).max()
        return f"too wide: no step is within {TOLERATED_REGRETS[-1]:.0%} of the gain with probability above {best:.2f}"
    return None


def _priced(steps: NDArray[np.int64], regret: Array, price: float) -> int:
    """argmin of expected regret + price * step/horizon."""
    return int(steps[np.argmin(regret.mean(axis=0) + price * steps / steps[-1])])
