"""The posterior of one loss curve: a weighted mixture of U shapes, each with its linear part in closed form.

Given a shape, loss = minimum + gain * regret(lr_sum) + noise is linear, so (minimum, gain, sigma^2) are
normal-inverse-gamma (curves.linear; docs/method.md, section 2). The shapes come from curves.sampling. Deterministic,
about ten milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curves.linear import Linear
from curves.misfit import Misfit, check
from curves.noise import point_scales
from curves.sampling import Problem, normalised, sample_shapes, systematic
from curves.shapes import Array, Shapes, regret_within, relative_regret

FEWEST_POINTS = 4
DEFAULT_LOG_SD = 1.25
# The family misplaces a minimum by a few percent even of a curve without scatter, because a bottom is flat.
TIME_MISFIT = 0.04  # standard deviation in log time


@dataclass(frozen=True)
class Curve:
    """One recorded curve, in any order; points whose loss is not finite are ignored by the fit.

    steps (n,) optimizer updates; lr_sum (n,) sum of the learning rate over them (the intrinsic time); loss
    (n,) held-out loss; image_loss (n, images) the same per held-out image, or None. Step 0 may be absent.
    """

    steps: NDArray[np.int64]
    lr_sum: Array
    loss: Array
    image_loss: Array | None = None

    def __post_init__(self) -> None:
        shapes = {np.shape(self.steps), np.shape(self.lr_sum), np.shape(self.loss)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"steps, lr_sum and loss must be vectors of one length, not of shapes {shapes}")
        if self.image_loss is not None and np.shape(self.image_loss)[:1] != np.shape(self.loss):
            raise ValueError(f"image_loss must have one row a point, not shape {np.shape(self.image_loss)}")

    def usable(self) -> Curve:
        """Sorted by lr_sum, finite, one point a time: the last recorded, as a resumed run repeats steps."""
        finite = np.isfinite(self.loss) & np.isfinite(self.lr_sum)
        last_of_time = {time: i for i, time in enumerate(self.lr_sum) if finite[i]}
        order = np.array([last_of_time[time] for time in sorted(last_of_time)], dtype=np.intp)
        images = None if self.image_loss is None else np.asarray(self.image_loss, dtype=float)[order]
        return Curve(
            np.asarray(self.steps, dtype=np.int64)[order],
            np.asarray(self.lr_sum, dtype=float)[order],
            np.asarray(self.loss, dtype=float)[order],
            images,
        )

    def until(self, step: int) -> Curve:
        """The prefix up to and including step."""
        early = np.asarray(self.steps) <= step
        images = None if self.image_loss is None else self.image_loss[early]
        return Curve(self.steps[early], self.lr_sum[early], self.loss[early], images)


@dataclass(frozen=True)
class TimePrior:
    """Log-normal prior of the intrinsic time of the minimum: its median in lr_sum and its spread in natural
    logs.
    """

    median_lr_sum: float
    log_sd: float = DEFAULT_LOG_SD

    def __post_init__(self) -> None:
        if not (self.median_lr_sum > 0 and self.log_sd > 0):
            raise ValueError(f"a time prior needs a positive median and spread, not {self}")

    def log_density(self, lr_sum: Array) -> Array:
        """Normal log density of log(lr_sum)."""
        z = (np.log(lr_sum) - np.log(self.median_lr_sum)) / self.log_sd
        return np.asarray(-0.5 * z**2 - np.log(self.log_sd))


@dataclass(frozen=True)
class CurvePosterior:
    """Weighted shapes with their linear parts, all on the loss scale. Made by `fit`.

    Everything drawn is given that there is a gain; `probability_of_gain` says how far that may be believed.
    """

    curve: Curve  # the usable points
    time_prior: TimePrior
    time_prior_assumed: bool
    horizon_lr_sum: float | None
    shapes: Shapes
    linear: Linear
    weights: Array  # (shapes,), sum 1
    probability_of_gain: float
    misfit: Misfit
    loss_offset: float
    loss_unit: float

    @property
    def last_lr_sum(self) -> float:
        """Intrinsic time of the last usable point."""
        return float(self.curve.lr_sum[-1])

    @property
    def sigma(self) -> float:
        """Posterior mean scatter of a clean point near the bottom, loss units."""
        typical = np.sqrt(2 * self.linear.rate / max(self.linear.freedom - 1, 1.0))
        return float(self.weights @ typical) * self.loss_unit

    def probability_passed(self, lr_sum: float | None = None) -> float:
        """P(the minimum lies before lr_sum); default: before the last point."""
        at = self.last_lr_sum if lr_sum is None else lr_sum
        return float(self.weights[self.shapes.time < at].sum())

    def draw_index(self, count: int, seed: int = 0) -> NDArray[np.intp]:
        """Systematic resampling of the shapes: indices (count,)."""
        return systematic(self.weights, count, np.random.default_rng(seed).random())

    def draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> tuple[Array, Array]:
        """Latent loss (count, grid) at lr_sum (grid,) and the gain (count,) of the same draws; loss units."""
        index = self.draw_index(count, seed)
        minimum, gain, _ = self.linear.take(index).draw(np.random.default_rng(seed + 1))
        regret = relative_regret(np.asarray(lr_sum), self.shapes.take(index), np.float32)
        curve = minimum[:, None] + gain[:, None] * regret
        return self.loss_offset + self.loss_unit * curve, self.loss_unit * gain

    def draw_shapes(self, count: int = 1000, seed: int = 0) -> Shapes:
        """Shapes whose minima are off by what the family misplaces them, (count,)."""
        shapes = self.shapes.take(self.draw_index(count, seed))
        off = np.random.default_rng(seed + 1).standard_normal(count)
        return shapes.at_time(shapes.time * np.exp(TIME_MISFIT * off))

    def regret_draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> Array:
        """Regret in gain at lr_sum (grid,) ending at the horizon, against the minimum over 0..horizon:
        (count, grid).
        """
        return regret_within(np.asarray(lr_sum), self.draw_shapes(count, seed))

    def minimum_draws(self, horizon_lr_sum: float | None = None, count: int = 1000, seed: int = 0) -> Array:
        """lr_sum at the minimum over 0..horizon (or at all, without a horizon), (count,)."""
        draws = self.draw_shapes(count, seed).time
        return draws if horizon_lr_sum is None else np.minimum(draws, horizon_lr_sum)

    def gain_summary(self, count: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Mean and standard deviation of the gain, loss units."""
        drawn = self.linear.take(self.draw_index(count, seed)).draw(np.random.default_rng(seed + 1))
        gain = self.loss_unit * drawn[1]
        return float(np.mean(gain)), float(np.std(gain))

    def with_time_prior(self, prior: TimePrior) -> CurvePosterior:
        """The same posterior under another prior of the minimum's time, by reweighting the shapes."""
        change = prior.log_density(self.shapes.time) - self.time_prior.log_density(self.shapes.time)
        with np.errstate(divide="ignore"):
            weights = normalised(np.log(self.weights) + change)
        return replace(self, weights=weights, time_prior=prior)


def fit(
    curve: Curve,
    *,
    horizon_lr_sum: float | None = None,
    time_prior: TimePrior | None = None,
    image_bootstrap: int = 0,
    seed: int = 0,
) -> CurvePosterior:
    """Posterior of one curve.

    horizon_lr_sum: intrinsic time at the budget; it only centres the default time prior (between half
    of it and the last recorded time; without a horizon, the last recorded time). image_bootstrap: that many refits on
    resampled held-out images, mixed with equal weight: the error of which images were held out, common to all
    points of a run. Raises ValueError below FEWEST_POINTS finite points.
    """
    usable = curve.usable()
    if len(usable.loss) < FEWEST_POINTS:
        raise ValueError(
            f"a curve needs at least {FEWEST_POINTS} finite evaluations, this one has {len(usable.loss)}"
        )
    assumed = time_prior is None
    if time_prior is None:
        last = usable.lr_sum[-1]
        anchor = last if horizon_lr_sum is None else np.sqrt(last * 0.5 * horizon_lr_sum)
        time_prior = TimePrior(float(anchor))
    centre = _fit_loss(usable, time_prior, assumed, horizon_lr_sum)
    if image_bootstrap == 0 or usable.image_loss is None:
        return centre
    random = np.random.default_rng(seed)
    images = usable.image_loss.shape[1]
    refits = []
    for _ in range(image_bootstrap):
        chosen = random.integers(0, images, images)
        resampled = replace(usable, loss=usable.image_loss[:, chosen].mean(axis=1))
        refits.append(_fit_loss(resampled, time_prior, assumed, horizon_lr_sum))
    return _mixture(centre, refits)


def _fit_loss(curve: Curve, prior: TimePrior, assumed: bool, horizon: float | None) -> CurvePosterior:
    """Posterior of usable points, without the bootstrap."""
    points = point_scales(curve.lr_sum, curve.loss)
    unit, offset = points.gain, float(np.median(curve.loss))
    loss = (curve.loss[points.kept] - offset) / unit
    median, sd = float(np.log(prior.median_lr_sum)), prior.log_sd
    problem = Problem(curve.lr_sum[points.kept], loss, points, median, sd)
    sample, log_evidence = sample_shapes(problem)
    without = problem.evidence_without_gain()
    chance = 1 / (1 + np.exp(np.clip(without - log_evidence, -700, 700)))
    return CurvePosterior(
        curve=curve,
        time_prior=prior,
        time_prior_assumed=assumed,
        horizon_lr_sum=horizon,
        shapes=sample.shapes,
        linear=sample.linear,
        weights=np.full(len(sample.shapes), 1 / len(sample.shapes)),
        probability_of_gain=float(chance),
        misfit=check(problem, sample),
        loss_offset=offset,
        loss_unit=unit,
    )


def _mixture(centre: CurvePosterior, refits: list[CurvePosterior]) -> CurvePosterior:
    """Equal-weight mixture of refits, in the units of the centre; chance of gain averaged, misfit of the
    centre.
    """
    unit, offset = centre.loss_unit, centre.loss_offset
    linears = [r.linear.rescaled((r.loss_offset - offset) / unit, r.loss_unit / unit) for r in refits]
    return replace(
        centre,
        shapes=Shapes.concatenate([r.shapes for r in refits]),
        linear=Linear.concatenate(linears),
        weights=np.concatenate([r.weights for r in refits]) / len(refits),
        probability_of_gain=float(np.mean([r.probability_of_gain for r in refits])),
    )
