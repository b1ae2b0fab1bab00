"""Several runs of one cell as one posterior for a fresh run of it.

Runs of a cell share the shape up to a shift in log intrinsic time: with x = log(lr ratio to the fresh run),

    log(time_j) = mu + slope x_j + N(0, spread^2 + (LR_BREAK x_j)^2)

slope allows that s* x lr is only roughly constant (measured slope -0.94 of s* on lr, breaking at high lr),
the last term that a run at a far learning rate says less. (mu, slope, spread) are integrated on a grid; each
run enters through its weighted shapes with its own time prior divided out, so an unfinished run speaks as the
prefix that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curves.misfit import Misfit
from curves.posterior import CurvePosterior, TimePrior
from curves.sampling import systematic
from curves.shapes import Array, Floats, Shapes, regret_within

SPREAD_MEDIAN, SPREAD_LOG_SD = 0.22, 0.5  # between runs that differ by seed only, natural log of time
SLOPE_SD = 0.15  # of log(lr_sum at the minimum) on log(lr)
LR_BREAK = 0.15  # extra spread per natural log unit of learning rate
PARTICLES = 160  # of each run
CENTRES = 65


@dataclass(frozen=True)
class PooledPosterior:
    """Draws for a fresh run: weighted grid of (mu, slope, spread) and, for each node, the runs' reweighted
    shapes.
    """

    runs: tuple[CurvePosterior, ...]
    log_lr_ratios: tuple[float, ...]  # log of each run's learning rate over the fresh run's
    time_prior: TimePrior
    time_prior_assumed: bool
    nodes: Array  # (nodes, 3): mu, slope, spread
    node_weights: Array  # (nodes,), sum 1
    shapes: Shapes  # PARTICLES of each run, in the order of runs
    donor_weights: Array  # (runs,), sum 1: whose shape a fresh run takes

    @property
    def last_lr_sum(self) -> float:
        """Intrinsic time of the last point of the longest run."""
        return max(run.last_lr_sum for run in self.runs)

    @property
    def probability_of_gain(self) -> float:
        """Of the run that is surest of it; a cell has a gain if one of its runs does."""
        return max(run.probability_of_gain for run in self.runs)

    @property
    def misfit(self) -> Misfit:
        """The median run's check: one odd run among good ones is outvoted."""
        order = sorted((run.misfit for run in self.runs), key=lambda m: (m.flag, -m.p_value))
        return order[(len(order) - 1) // 2]

    def probability_passed(self, lr_sum: float | None = None) -> float:
        """P that at least the surest run passed its own minimum (or that a fresh one has by lr_sum)."""
        if lr_sum is not None:
            return float(np.mean(self.minimum_draws(count=2000) < lr_sum))
        return max(run.probability_passed() * run.probability_of_gain for run in self.runs)

    def _draw_nodes(self, count: int, seed: int) -> tuple[Array, Array]:
        """Nodes (count, 3) in proportion to their weight, and the time of a fresh run's minimum at each."""
        random = np.random.default_rng(seed)
        nodes = self.nodes[systematic(self.node_weights, count, random.random())]
        return nodes, np.exp(nodes[:, 0] + nodes[:, 2] * random.standard_normal(count))

    def log_time(self) -> tuple[float, float]:
        """Mean and variance of log S* of the cell's typical run: what its fresh runs scatter around."""
        mean = float(self.node_weights @ self.nodes[:, 0])
        return mean, float(self.node_weights @ (self.nodes[:, 0] - mean) ** 2)

    def spread_variance(self) -> float:
        """Mean of the variance of log S* between runs that differ by seed only."""
        return float(self.node_weights @ self.nodes[:, 2] ** 2)

    def draw_shapes(self, count: int, seed: int = 0) -> Shapes:
        """Shapes of count fresh runs, their times drawn around mu."""
        nodes, time = self._draw_nodes(count, seed)
        random = np.random.default_rng(seed + 1)
        donor = random.choice(len(self.runs), count, p=self.donor_weights)
        index = np.empty(count, dtype=np.intp)
        for run in range(len(self.runs)):
            mine = np.flatnonzero(donor == run)
            if len(mine):
                index[mine] = self._shape_of(run, nodes[mine], random)
        return self.shapes.take(index).at_time(time)

    def _shape_of(self, run: int, nodes: Array, random: np.random.Generator) -> NDArray[np.intp]:
        """One shape of that run for each node, given what the other runs say of its time."""
        first, x = run * PARTICLES, self.log_lr_ratios[run]
        log_time = np.log(self.shapes.time[first : first + PARTICLES])
        prior = self.runs[run].time_prior.log_density(np.exp(log_time))
        centre = nodes[:, 0] + nodes[:, 1] * x
        weight = _likeness(log_time, prior, centre, nodes[:, 2, None], x)[1]
        cumulative = np.cumsum(weight, axis=1)
        target = random.random(len(nodes))[:, None].astype(np.float32) * cumulative[:, -1:]
        chosen = np.minimum((cumulative < target).sum(axis=1), PARTICLES - 1)
        return np.asarray(first + chosen, dtype=np.intp)

    def regret_draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> Array:
        """Regret in gain of a fresh run at lr_sum (grid,) ending at the horizon: (count, grid)."""
        return regret_within(np.asarray(lr_sum), self.draw_shapes(count, seed))

    def minimum_draws(self, horizon_lr_sum: float | None = None, count: int = 1000, seed: int = 0) -> Array:
        """lr_sum at a fresh run's minimum, (count,)."""
        draws = self._draw_nodes(count, seed)[1]
        return draws if horizon_lr_sum is None else np.minimum(draws, horizon_lr_sum)

    def gain_summary(self, count: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Mean gain over runs and its standard error, both within and between runs, loss units."""
        parts = np.array([run.gain_summary(count, seed) for run in self.runs])
        weight = self.donor_weights
        mean = float(weight @ parts[:, 0])
        variance = weight @ (parts[:, 1] ** 2 + (parts[:, 0] - mean) ** 2)
        return mean, float(np.sqrt(variance / len(parts)))

    def with_time_prior(self, prior: TimePrior) -> PooledPosterior:
        """The same under another prior of the time of the minimum."""
        change = prior.log_density(np.exp(self.nodes[:, 0])) - self.time_prior.log_density(
            np.exp(self.nodes[:, 0])
        )
        weights = self.node_weights * np.exp(change - change.max())
        return replace(self, node_weights=weights / weights.sum(), time_prior=prior)


def _likeness(
    log_time: Array, prior: Array, centre: Array, spread: Array | float, x: float
) -> tuple[Array, Floats]:
    """Density of a run's particles around each centre over the run's own prior, (centres, particles).

    As the log of each row's highest, up to a constant of all rows, and the rest as shares of that.
    """
    variance = spread**2 + (LR_BREAK * x) ** 2
    # Single precision: the exponential is most of the cost of pooling.
    away = (centre[:, None] - log_time).astype(np.float32)
    log_weight = away**2 * np.asarray(-0.5 / variance, dtype=np.float32) - prior.astype(np.float32)
    top = log_weight.max(axis=1, keepdims=True)
    return top[:, 0].astype(float) - 0.5 * np.log(np.ravel(variance)), np.exp(log_weight - top)


def _run_log_likelihood(run: CurvePosterior, log_time: Array, nodes: Array, x: float) -> Array:
    """Log of the run's marginal likelihood over its own prior, at each node (nodes,); interpolated in the centre."""
    prior = run.time_prior.log_density(np.exp(log_time))
    centre = nodes[:, 0] + nodes[:, 1] * x
    grid = np.linspace(centre.min(), centre.max(), CENTRES)
    result = np.empty(len(nodes))
    for spread in np.unique(nodes[:, 2]):
        top, shares = _likeness(log_time, prior, grid, float(spread), x)
        of_spread = nodes[:, 2] == spread
        result[of_spread] = np.interp(centre[of_spread], grid, top + np.log(shares.mean(axis=1)))
    return result


def _nodes(centre: float, reach: float, one_rate: bool) -> tuple[Array, Array]:
    """Grid of (mu, slope, spread) and the log prior of slope and spread at each node.

    one_rate: all runs have the fresh run's learning rate, so that the slope is of no account.
    """
    mu = np.linspace(centre - reach, centre + reach, 97)
    slope_z, spread_z = np.zeros(1) if one_rate else np.linspace(-2, 2, 7), np.linspace(-2, 2, 7)
    grid = np.stack(np.meshgrid(mu, slope_z, spread_z, indexing="ij"), axis=-1).reshape(-1, 3)
    log_prior = -0.5 * grid[:, 1] ** 2 - 0.5 * grid[:, 2] ** 2
    nodes = np.stack(
        [grid[:, 0], SLOPE_SD * grid[:, 1], SPREAD_MEDIAN * np.exp(SPREAD_LOG_SD * grid[:, 2])], axis=1
    )
    return nodes, log_prior


def pool(
    runs: Sequence[CurvePosterior],
    learning_rates: Sequence[float] | None = None,
    fresh_learning_rate: float | None = None,
    *,
    time_prior: TimePrior | None = None,
) -> PooledPosterior:
    """Pool the posteriors of runs of one cell.

    learning_rates: peak learning rate of each run, and fresh_learning_rate of the run that is asked about
    (default: the first run's); without them all runs count as replicates. time_prior: of the fresh run's
    minimum; the first run's by default. Runs without a gain keep their vote on nothing: they are left out
    unless no run has one. Raises ValueError on an empty list or lists of different lengths.
    """
    if not runs:
        raise ValueError("pooling needs at least one run")
    if learning_rates is None and fresh_learning_rate is not None:
        raise ValueError("a fresh run's learning rate means nothing without those of the runs")
    rates = list(learning_rates) if learning_rates is not None else [1.0] * len(runs)
    if len(rates) != len(runs) or min(rates) <= 0:
        raise ValueError(f"pooling needs one positive learning rate a run, not {rates} for {len(runs)} runs")
    fresh = rates[0] if fresh_learning_rate is None else fresh_learning_rate
    ordered = sorted(zip(rates, runs, strict=True), key=_content_key)
    gaining = [pair for pair in ordered if pair[1].probability_of_gain >= 0.5] or ordered
    kept = tuple(run for _, run in gaining)
    ratios = tuple(float(np.log(rate / fresh)) for rate, _ in gaining)
    prior = time_prior if time_prior is not None else _widest_prior(kept)
    shapes = [run.shapes.take(run.draw_index(PARTICLES)) for run in kept]
    log_times = [np.log(part.time) for part in shapes]
    everything = np.concatenate(log_times)
    low, high = float(everything.min()), float(everything.max())
    # The fresh run's time may lie this far from that of a run at another learning rate.
    carried = 2 * np.hypot(SLOPE_SD, LR_BREAK) * max(abs(x) for x in ratios)
    nodes, log_weight = _nodes((low + high) / 2, (high - low) / 2 + 0.7 + carried, not any(ratios))
    log_weight += prior.log_density(np.exp(nodes[:, 0]))
    for run, log_time, x in zip(kept, log_times, ratios, strict=True):
        log_weight += _run_log_likelihood(run, log_time, nodes, x)
    weights = np.exp(log_weight - log_weight.max())
    fields = {n: np.concatenate([getattr(s, n) for s in shapes]) for n in Shapes.__dataclass_fields__}
    return PooledPosterior(
        runs=kept,
        log_lr_ratios=ratios,
        time_prior=prior,
        time_prior_assumed=time_prior is None and all(run.time_prior_assumed for run in kept),
        nodes=nodes,
        node_weights=weights / weights.sum(),
        shapes=Shapes(**fields),
        donor_weights=_donor_weights(kept, ratios),
    )


def _content_key(pair: tuple[float, CurvePosterior]) -> tuple[float, ...]:
    """Order by content, so that the answer does not depend on the order in which runs are listed."""
    rate, run = pair
    return (rate, *run.curve.lr_sum[-1:], *run.curve.loss.tolist())


def _widest_prior(runs: tuple[CurvePosterior, ...]) -> TimePrior:
    """Centre of the runs' own priors; the widest of their spreads."""
    centre = np.exp(np.mean([np.log(run.time_prior.median_lr_sum) for run in runs]))
    return TimePrior(float(centre), max(run.time_prior.log_sd for run in runs))


def _donor_weights(runs: tuple[CurvePosterior, ...], ratios: tuple[float, ...]) -> Array:
    """Runs that passed their minimum, at the learning rate asked about, are likelier donors of the shape."""
    passed = np.array([run.probability_passed() for run in runs])
    weights = (0.05 + passed) * np.exp(-0.5 * np.array(ratios) ** 2)
    return np.asarray(weights / weights.sum())
