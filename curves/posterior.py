"""The posterior of one loss curve: a weighted mixture of U shapes, each with its linear part in closed form.

Given a shape, loss = minimum + gain * regret(lr_sum) + noise is linear, so (minimum, gain, sigma^2) are
normal-inverse-gamma (docs/method.md, section 2). Shapes start as a quasi-random sample of the prior and are
carried to the posterior through a few temperatures (sequential Monte Carlo): a curve with a scatter of 1 % of
its gain occupies so little of the prior that a thousand shapes drawn once leave two or three to speak.
Deterministic, tens of milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtr, stdtrit

from curves.noise import PointScales, log_volume, point_scales, shape_noise, whiten
from curves.shapes import (
    COORDINATES,
    NOISE_GROWTH_HIGHEST,
    NOISE_MEMORY_LOG_SD,
    NOISE_MEMORY_MEDIAN,
    Shapes,
    quasi_normal,
    regret_within,
    relative_regret,
    shapes_from_normal,
)

Array = NDArray[np.float64]

PRIOR_SHAPES, PARTICLES, MOVES, LAST_MOVES = 2048, 384, 3, 4
KEPT_SHARE = 0.3
# The family is not the truth: with the likelihood at full power 90 % intervals covered 62-77 % of simulated
# minima from another family. This power below one (Gruenwald and van Ommen 2017) brought them to about 90 %.
LIKELIHOOD_POWER = 0.5
STRIDES = (0.15, 0.3, 0.6)
NO_GAIN_SHAPES = 256
FEWEST_POINTS = 4
DEFAULT_LOG_SD = 1.5
# Inverse-gamma prior of sigma^2: two points' worth of belief in a scatter of 1 % of the rough gain.
SIGMA_PRIOR_SHAPE, SIGMA_PRIOR_SHARE = 1.5, 0.015
MISFIT_REACH = 0.3  # gains above the minimum up to which a misfit matters: beyond it nothing is recommended
MISFIT_PROBABILITY, MISFIT_SHARE = 0.01, 0.15


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
class Misfit:
    """Posterior-predictive check: are neighbouring residuals more alike than the noise model allows?"""

    p_value: float
    share_of_gain: float  # largest smoothed residual near the bottom, in gain
    flag: bool


@dataclass(frozen=True)
class Linear:
    """Normal-inverse-gamma of (minimum, gain, sigma^2) for each shape; every array is (shapes,)."""

    minimum: Array
    gain: Array
    minimum_precision: Array  # of the constant column
    cross: Array  # sum of the regret column against the constant, over minimum_precision
    gain_precision: Array  # of the regret column, the constant taken out
    freedom: float  # twice the inverse-gamma's shape
    rate: Array

    def log_evidence(self, volume: Array) -> Array:
        """Log marginal likelihood times P(gain > 0 | data), up to a constant that all shapes of a curve
        share.

        The prior is flat on the minimum and on gain in units of the column's own spread over the points, so
        that a shape is not favoured for showing only a small part of its gain.
        """
        positive = stdtr(self.freedom, self.gain / self.gain_scale())
        with np.errstate(divide="ignore"):
            score = volume - np.log(self.minimum_precision) - 0.5 * self.freedom * np.log(self.rate)
            return score + np.log(positive)

    def gain_scale(self) -> Array:
        """Scale of the gain's Student-t, (shapes,)."""
        return np.sqrt(2 * self.rate / self.freedom / np.maximum(self.gain_precision, 1e-300))

    def take(self, index: NDArray[np.intp]) -> Linear:
        """The rows at index."""
        arrays = {name: getattr(self, name)[index] for name in self.__dataclass_fields__ if name != "freedom"}
        return Linear(**arrays, freedom=self.freedom)

    def draw(self, random: np.random.Generator) -> tuple[Array, Array, Array]:
        """One exact draw of (minimum, gain > 0, sigma) for each shape."""
        scale = self.gain_scale()
        below = stdtr(self.freedom, -self.gain / scale)
        uniform = below + (1 - below) * random.uniform(1e-9, 1 - 1e-9, len(below))
        gain = np.maximum(self.gain + scale * stdtrit(self.freedom, np.minimum(uniform, 1 - 1e-12)), 0.0)
        rate = self.rate + 0.5 * self.gain_precision * (gain - self.gain) ** 2
        variance = rate / random.gamma(0.5 * (self.freedom + 1), 1.0, len(below))
        centre = self.minimum - self.cross * (gain - self.gain)
        minimum = centre + np.sqrt(variance / self.minimum_precision) * random.standard_normal(len(below))
        return minimum, gain, np.sqrt(variance)


def _regress(column: Array, loss: Array, deviation: Array, correlation: Array, sigma_rate: float) -> Linear:
    """Weighted regression of loss (n,) on [1, column] for each shape; column, deviation (shapes, n)."""
    ones = whiten(np.ones_like(deviation), deviation, correlation)
    x = whiten(column, deviation, correlation)
    y = whiten(np.broadcast_to(loss, deviation.shape), deviation, correlation)
    one_one = np.einsum("si,si->s", ones, ones)
    cross = np.einsum("si,si->s", ones, x) / one_one
    mean = np.einsum("si,si->s", ones, y) / one_one
    x = x - cross[:, None] * ones
    y = y - mean[:, None] * ones
    precision = np.einsum("si,si->s", x, x)
    slope = np.einsum("si,si->s", x, y) / np.maximum(precision, 1e-300)
    residual = y - slope[:, None] * x
    rate = sigma_rate + 0.5 * np.einsum("si,si->s", residual, residual)
    freedom = len(loss) - 2 + 2 * SIGMA_PRIOR_SHAPE
    return Linear(mean - cross * slope, slope, one_one, cross, precision, freedom, rate)


@dataclass(frozen=True)
class _Problem:
    """One curve made ready: points kept, loss in units of the rough gain."""

    lr_sum: Array
    loss: Array
    points: PointScales
    prior: TimePrior

    def noise(self, coordinates: Array) -> tuple[Array, Array]:
        growth = NOISE_GROWTH_HIGHEST * ndtr(coordinates[:, COORDINATES.index("noise_growth")])
        log_memory = NOISE_MEMORY_LOG_SD * coordinates[:, COORDINATES.index("noise_memory")]
        return shape_noise(self.lr_sum, self.points, growth, NOISE_MEMORY_MEDIAN * np.exp(log_memory))

    def shapes(self, coordinates: Array) -> Shapes:
        return shapes_from_normal(coordinates, np.log(self.prior.median_lr_sum), self.prior.log_sd)

    def score(self, coordinates: Array) -> tuple[Shapes, Linear, Array]:
        """Shapes, their linear parts and log evidence (-inf where a shape has no visible descent)."""
        shapes = self.shapes(coordinates)
        deviation, correlation = self.noise(coordinates)
        regret = relative_regret(self.lr_sum, shapes)
        first = self.lr_sum[self.lr_sum > 0][0]
        valid = np.isfinite(regret).all(axis=1) & (shapes.time > 0.7 * first)
        linear = _regress(
            np.where(valid[:, None], regret, 0.0), self.loss, deviation, correlation, self.rate()
        )
        evidence = linear.log_evidence(log_volume(deviation, correlation))
        return shapes, linear, np.where(valid & (linear.gain_precision > 1e-12), evidence, -np.inf)

    def score_no_gain(self) -> Array:
        """Log evidence of curves that only rise from the start: minimum + b * (u/end)^q, b > 0."""
        coordinates = quasi_normal(NO_GAIN_SHAPES, len(COORDINATES))
        deviation, correlation = self.noise(coordinates)
        power = np.exp(0.7 * coordinates[:, 0])
        rise = (self.lr_sum / self.lr_sum[-1])[None, :] ** power[:, None]
        linear = _regress(rise, self.loss, deviation, correlation, self.rate())
        return linear.log_evidence(log_volume(deviation, correlation))

    def rate(self) -> float:
        return SIGMA_PRIOR_SHAPE * SIGMA_PRIOR_SHARE**2


def _log_mean(log_values: Array) -> float:
    top = float(np.max(log_values))
    return top + float(np.log(np.mean(np.exp(log_values - top)))) if np.isfinite(top) else -np.inf


def _normalised(log_weight: Array) -> Array:
    top = np.max(log_weight)
    weight = np.exp(log_weight - top) if np.isfinite(top) else np.ones_like(log_weight)
    return np.asarray(weight / weight.sum())


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
        return _systematic(self.weights, count, np.random.default_rng(seed).random())

    def draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> tuple[Array, Array]:
        """Latent loss (count, grid) at lr_sum (grid,) and the gain (count,) of the same draws; loss units."""
        index = self.draw_index(count, seed)
        minimum, gain, _ = self.linear.take(index).draw(np.random.default_rng(seed + 1))
        curve = minimum[:, None] + gain[:, None] * relative_regret(
            np.asarray(lr_sum), self.shapes.take(index)
        )
        return self.loss_offset + self.loss_unit * curve, self.loss_unit * gain

    def regret_draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> Array:
        """Regret in gain at lr_sum (grid,) ending at the horizon, against the minimum over 0..horizon:
        (count, grid).
        """
        return regret_within(np.asarray(lr_sum), self.shapes.take(self.draw_index(count, seed)))

    def minimum_draws(self, horizon_lr_sum: float | None = None, count: int = 1000, seed: int = 0) -> Array:
        """lr_sum at the minimum over 0..horizon (or at all, without a horizon), (count,)."""
        draws = self.shapes.time[self.draw_index(count, seed)]
        return draws if horizon_lr_sum is None else np.minimum(draws, horizon_lr_sum)

    def gain_summary(self, count: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Mean and standard deviation of the gain, loss units."""
        _, gain = self.draws(np.zeros(1), count, seed)
        return float(np.mean(gain)), float(np.std(gain))

    def with_time_prior(self, prior: TimePrior) -> CurvePosterior:
        """The same posterior under another prior of the minimum's time, by reweighting the shapes."""
        change = prior.log_density(self.shapes.time) - self.time_prior.log_density(self.shapes.time)
        with np.errstate(divide="ignore"):
            weights = _normalised(np.log(self.weights) + change)
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

    horizon_lr_sum: intrinsic time at the budget; it only centres the default time prior (half of it, a factor
    of e^1.5 either way; without a horizon, the last recorded time). image_bootstrap: that many refits on
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
        anchor = usable.lr_sum[-1] if horizon_lr_sum is None else 0.5 * horizon_lr_sum
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
    problem = _Problem(curve.lr_sum[points.kept], loss, points, prior)
    particles, with_gain = _sample_shapes(problem)
    without = _log_mean(LIKELIHOOD_POWER * problem.score_no_gain())
    chance = 1 / (1 + np.exp(np.clip(without - with_gain, -700, 700)))
    return CurvePosterior(
        curve=curve,
        time_prior=prior,
        time_prior_assumed=assumed,
        horizon_lr_sum=horizon,
        shapes=particles.shapes,
        linear=particles.linear,
        weights=np.full(len(particles.shapes), 1 / len(particles.shapes)),
        probability_of_gain=float(chance),
        misfit=_check(problem, particles),
        loss_offset=offset,
        loss_unit=unit,
    )


@dataclass
class _Particles:
    """Shapes on their way from the prior to the posterior."""

    coordinates: Array  # (shapes, len(COORDINATES)), standard normal under the prior
    shapes: Shapes
    linear: Linear
    evidence: Array  # log evidence of each

    def take(self, index: NDArray[np.intp]) -> _Particles:
        return _Particles(
            self.coordinates[index], self.shapes.take(index), self.linear.take(index), self.evidence[index]
        )

    def where(self, chosen: NDArray[np.bool_], other: _Particles) -> _Particles:
        """Other's rows where chosen, one's own elsewhere."""
        both = np.where(chosen, len(chosen), 0) + np.arange(len(chosen))
        return _concatenate_particles([self, other]).take(both.astype(np.intp))


def _sample_shapes(problem: _Problem) -> tuple[_Particles, float]:
    """Tempered sequential Monte Carlo (Del Moral et al. 2006): equally weighted shapes and the log evidence
    of them all.

    Between temperatures the particles move by differences of one another.
    """
    random = np.random.default_rng(0)
    start = quasi_normal(PRIOR_SHAPES, len(COORDINATES))
    particles = _Particles(start, *problem.score(start))
    temperature, total = 0.0, 0.0
    while temperature < LIKELIHOOD_POWER and np.isfinite(particles.evidence).any():
        step = _next_step(particles.evidence, LIKELIHOOD_POWER - temperature)
        total += _log_mean(step * particles.evidence)
        weights = _normalised(step * particles.evidence)
        temperature += step
        particles = particles.take(_systematic(weights, PARTICLES, random.random()))
        for _ in range(MOVES if temperature < LIKELIHOOD_POWER else LAST_MOVES):
            particles = _move(problem, particles, temperature, random)
    return particles, total if temperature > 0 else -np.inf


def _systematic(weights: Array, count: int, start: float) -> NDArray[np.intp]:
    """Systematic resampling: indices (count,), in order."""
    index = np.searchsorted(np.cumsum(weights), (start + np.arange(count)) / count)
    return np.minimum(index, len(weights) - 1).astype(np.intp)


def _next_step(evidence: Array, left: float) -> float:
    """Largest rise in temperature, up to left, that keeps KEPT_SHARE of the valid particles effective."""
    wanted = KEPT_SHARE * min(PARTICLES, int(np.isfinite(evidence).sum()))

    def keeps_enough(step: float) -> bool:
        return float(1 / (_normalised(step * evidence) ** 2).sum()) >= wanted

    if keeps_enough(left):
        return left
    low, high = 0.0, left
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if keeps_enough(middle) else (low, middle)
    return max(low, 1e-3 * left)


def _move(problem: _Problem, old: _Particles, temperature: float, random: np.random.Generator) -> _Particles:
    """One Metropolis move of every particle, along the difference of two others (ter Braak 2006).

    Differences follow ridges that a fitted Gaussian does not.
    """
    z = old.coordinates
    count = len(z)
    difference = z[random.integers(0, count, count)] - z[random.integers(0, count, count)]
    jitter = 0.02 * z.std(axis=0) * random.standard_normal(z.shape)
    proposed = z + random.choice(STRIDES, count)[:, None] * difference + jitter
    new = _Particles(proposed, *problem.score(proposed))
    log_ratio = 0.5 * ((z**2).sum(axis=1) - (proposed**2).sum(axis=1))
    log_ratio += temperature * (new.evidence - old.evidence)
    return old.where(np.log(random.random(count)) < log_ratio, new)


def _concatenate_shapes(parts: list[Shapes]) -> Shapes:
    return Shapes(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in Shapes.__dataclass_fields__)
    )


def _concatenate_particles(parts: list[_Particles]) -> _Particles:
    return _Particles(
        np.concatenate([p.coordinates for p in parts]),
        _concatenate_shapes([p.shapes for p in parts]),
        _concatenate_linear([p.linear for p in parts]),
        np.concatenate([p.evidence for p in parts]),
    )


def _concatenate_linear(parts: list[Linear]) -> Linear:
    names = [name for name in Linear.__dataclass_fields__ if name != "freedom"]
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    return Linear(**arrays, freedom=parts[0].freedom)


def _check(problem: _Problem, particles: _Particles) -> Misfit:
    """Lag-one likeness of the mean residual against what the noise model would give."""
    linear, weights = particles.linear, np.full(len(particles.evidence), 1 / len(particles.evidence))
    deviation, correlation = problem.noise(particles.coordinates)
    regret = relative_regret(problem.lr_sum, particles.shapes)
    residual = problem.loss - linear.minimum[:, None] - linear.gain[:, None] * regret
    white = weights @ whiten(residual, deviation, correlation)
    observed = float((white[1:] * white[:-1]).sum() / max(float((white**2).sum()), 1e-300))
    replicas = np.random.default_rng(0).standard_normal((400, len(white)))
    replicas -= replicas.mean(axis=1, keepdims=True)
    expected = (replicas[:, 1:] * replicas[:, :-1]).sum(axis=1) / (replicas**2).sum(axis=1)
    p_value = float((1 + (expected >= observed).sum()) / (1 + len(expected)))
    mean_residual = weights @ residual
    smooth = np.convolve(mean_residual, np.ones(3) / 3, mode="valid")
    gain = float(weights @ linear.gain)
    near = problem.loss - problem.loss.min() < MISFIT_REACH * gain
    share = float(np.max(np.abs(smooth) * near[1:-1], initial=0.0) / max(gain, 1e-12))
    return Misfit(p_value, share, p_value < MISFIT_PROBABILITY and share > MISFIT_SHARE)


def _mixture(centre: CurvePosterior, refits: list[CurvePosterior]) -> CurvePosterior:
    """Equal-weight mixture of refits, in the units of the centre; chance of gain averaged, misfit of the
    centre.
    """
    linears = []
    for refit in refits:
        ratio = refit.loss_unit / centre.loss_unit
        shift = (refit.loss_offset - centre.loss_offset) / centre.loss_unit
        part = refit.linear
        linears.append(
            replace(
                part,
                minimum=shift + ratio * part.minimum,
                gain=ratio * part.gain,
                rate=ratio**2 * part.rate,
            )
        )
    return replace(
        centre,
        shapes=_concatenate_shapes([r.shapes for r in refits]),
        linear=_concatenate_linear(linears),
        weights=np.concatenate([r.weights for r in refits]) / len(refits),
        probability_of_gain=float(np.mean([r.probability_of_gain for r in refits])),
    )
