"""The U-shaped curves that the posterior mixes: a descent plus a rise, written so that the minimum is a
parameter.

method.md writes f(u) = c + a phi1(u) + b phi2(u). Given the time of the minimum the ratio b/a is fixed by f'
= 0 there, so the same family is f(u) = minimum + gain * regret(u / time), where regret is 1 at zero and 0 at
the minimum. A prior on the time of the minimum is then a prior on a parameter, and relative regret does not
depend on the linear part at all. A curve that never rises within the horizon (b = 0) is one whose minimum
lies far beyond it: its prior mass is the time prior's tail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

# Coordinates of one shape under the prior: independent standard normals, in this order.
COORDINATES = (
    "time",
    "descent_time",
    "descent_power",
    "rise_power",
    "onset",
    "kind",
    "slow_share",
    "slow_time",
    "noise_growth",
)
# Prior centres and spreads (natural logs). They put regret near 0.2 at half of the minimum's time, 0.5 at
# twice and 3 at four times, which is what recorded Stable Diffusion 1.5 runs show, with room on both sides.
DESCENT_TIME_MEDIAN, DESCENT_TIME_LOG_SD = 0.2, 1.2
DESCENT_POWER_MEDIAN, DESCENT_POWER_LOG_SD = 1.5, 0.5
# Below one the rise is concave, as that of an adapter on few images under a warm-up.
RISE_POWER_LOWEST, RISE_POWER_EXCESS_MEDIAN, RISE_POWER_EXCESS_LOG_SD = 0.2, 1.0, 0.8
ONSET_AT_ZERO, ONSET_HIGHEST = 0.4, 0.9
RATIONAL_MASS = 0.5
# What a style shares is learnt fast, what its images show slowly: a part of the descent may have a scale of its own.
NO_SLOW_PART, SLOW_SHARE_HIGHEST = 0.2, 0.5
SLOW_TIME_MEDIAN, SLOW_TIME_LOG_SD = 0.7, 0.5
NEIGHBOURS = np.array([0.5, 1.0, 1.6])  # in times of the minimum
LEAST_FALL = 0.05  # of phi1 down to the minimum
SMALLEST = 1e-300
NOISE_GROWTH_HIGHEST = 1.0


@dataclass(frozen=True)
class Shapes:
    """A batch of shapes; every field is an array (shapes,). Times are in lr_sum."""

    time: Array  # lr_sum at the minimum
    descent_time: Array  # time constant of the descent, as a share of `time`
    descent_power: Array  # beta
    rise_power: Array  # gamma, above RISE_POWER_LOWEST
    onset: Array  # start of the rise, as a share of `time`, below 1; 0 where gamma is at most 1
    rational: NDArray[np.bool_]  # phi1 = 1/(1 + (u/tau)^beta) instead of exp(-(u/tau)^beta)
    slow_share: Array  # q: share of a second, exponential part of the descent
    slow_time: Array  # its time constant, as a share of `time`

    def __len__(self) -> int:
        return len(self.time)

    def take(self, index: NDArray[np.intp]) -> Shapes:
        """The shapes at index, in that order."""
        return Shapes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def concatenate(cls, parts: Sequence[Shapes]) -> Shapes:
        """The shapes of all parts, in order."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__dataclass_fields__))

    def at_time(self, time: Array) -> Shapes:
        """The same shapes stretched so that their minimum lies at time (shapes,)."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Shapes(**{**fields, "time": time})


def shapes_from_normal(coordinates: Array, log_time_median: float, log_time_sd: float) -> Shapes:
    """Map standard normal coordinates (shapes, len(COORDINATES)) to shapes; those of the noise are unused."""
    z = dict(zip(COORDINATES, coordinates.T, strict=True))
    onset = (ndtr(z["onset"]) - ONSET_AT_ZERO) / (1 - ONSET_AT_ZERO)
    rise_power = RISE_POWER_LOWEST + RISE_POWER_EXCESS_MEDIAN * np.exp(
        RISE_POWER_EXCESS_LOG_SD * z["rise_power"]
    )
    slow = (ndtr(z["slow_share"]) - NO_SLOW_PART) / (1 - NO_SLOW_PART)
    return Shapes(
        time=np.exp(log_time_median + log_time_sd * z["time"]),
        descent_time=DESCENT_TIME_MEDIAN * np.exp(DESCENT_TIME_LOG_SD * z["descent_time"]),
        descent_power=DESCENT_POWER_MEDIAN * np.exp(DESCENT_POWER_LOG_SD * z["descent_power"]),
        rise_power=rise_power,
        # A concave rise after an onset would start with a cusp.
        onset=np.where(rise_power > 1, ONSET_HIGHEST * np.maximum(onset, 0.0), 0.0),
        rational=z["kind"] < ndtri(RATIONAL_MASS),
        slow_share=SLOW_SHARE_HIGHEST * np.maximum(slow, 0.0),
        slow_time=SLOW_TIME_MEDIAN * np.exp(SLOW_TIME_LOG_SD * z["slow_time"]),
    )


def _rise_ratio(shapes: Shapes) -> Array:
    """b/a that puts the stationary point at x = 1: -phi1'(1) / phi2'(1)."""
    scaled = shapes.descent_time**-shapes.descent_power
    fast = shapes.descent_power * np.where(
        shapes.rational, scaled / (1 + scaled) ** 2, scaled * np.exp(-np.minimum(scaled, 700.0))
    )
    slow = np.exp(-1 / shapes.slow_time) / shapes.slow_time
    falling = fast + shapes.slow_share * (slow - fast)
    rising = shapes.rise_power * (1 - shapes.onset) ** (shapes.rise_power - 1)
    # A kinked rise has slope 0 to rounding at its onset; such shapes end as invalid, not as infinite.
    return np.asarray(falling / np.maximum(rising, 1e-12))


def _descent(x: Floats, log_x: Floats, shapes: Shapes) -> Floats:
    """phi1 at x (shapes, points) in units of `time`; 1 at x = 0."""
    kind = x.dtype.type
    scaled = log_x - np.log(shapes.descent_time).astype(kind)[:, None]
    scaled *= shapes.descent_power.astype(kind)[:, None]
    np.exp(scaled, out=scaled)
    fast = np.empty_like(scaled)
    fast[shapes.rational] = 1 / (1 + scaled[shapes.rational])
    fast[~shapes.rational] = np.exp(-scaled[~shapes.rational])
    slow = np.exp(x * (-1 / shapes.slow_time).astype(kind)[:, None])
    slow -= fast
    slow *= shapes.slow_share.astype(kind)[:, None]
    slow += fast
    return slow


def _rise(x: Floats, log_x: Floats, shapes: Shapes) -> Floats:
    """phi2 at x (shapes, points), times its share of the descent."""
    kind = x.dtype.type
    late = shapes.onset > 0
    past = log_x * shapes.rise_power.astype(kind)[:, None]
    after = np.maximum(x[late] - shapes.onset[late].astype(kind)[:, None], kind(0))
    past[late] = np.log(after) * shapes.rise_power[late].astype(kind)[:, None]
    np.exp(past, out=past)
    past *= _rise_ratio(shapes).astype(kind)[:, None]
    return past


def relative_regret(
    lr_sum: Array, shapes: Shapes, kind: type[np.float32] | type[np.float64] = np.float64
) -> Floats:
    """(f(u) - f at the minimum) / (f(0) - f at the minimum), (shapes, points). docs/method.md, section 2.

    1 at u = 0 and 0 at the minimum. Shapes without a minimum below their start give nan. kind: of the numbers; in single
    precision, good to about 1e-6, it takes a fifth of the time.
    """
    # The derivative vanishes at 1; two neighbours tell a minimum below the start from anything else.
    times = np.concatenate([lr_sum, NEIGHBOURS])
    x = np.multiply.outer((1 / shapes.time).astype(kind), times.astype(kind))
    x[:, -3:] = NEIGHBOURS
    unit = float(np.log(np.mean(lr_sum) + SMALLEST))  # logs are taken about it, for single precision's sake
    log_u = np.log(np.maximum(times, SMALLEST)) - unit
    log_x = log_u.astype(kind) - (np.log(shapes.time) - unit).astype(kind)[:, None]
    log_x[:, -3:] = np.log(NEIGHBOURS)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        value = _descent(x, log_x, shapes)
        value += _rise(x, log_x, shapes)
        bottom = value[:, -2]
        gain = 1 - bottom
        is_minimum = (value[:, -3:].min(axis=1) >= bottom - 1e-6) & (gain > LEAST_FALL)
        regret = value[:, :-3] - bottom[:, None]
        regret *= (1 / np.where(is_minimum, gain, np.nan))[:, None]
    return regret


def regret_within(lr_sum: Array, shapes: Shapes) -> Array:
    """Regret against the minimum over 0..lr_sum[-1], (shapes, points): a shape still falling there has 0 at
    the end.
    """
    regret = relative_regret(lr_sum, shapes, np.float32)
    floor = np.where(shapes.time < lr_sum[-1], 0.0, regret[:, -1])[:, None]
    return np.asarray((regret - floor) / np.maximum(1 - floor, 1e-12))


@lru_cache(maxsize=8)
def quasi_normal(count: int, dimensions: int, skip: int = 0) -> Array:
    """Deterministic low-discrepancy standard normals (count, dimensions).

    Additive recurrence with powers of the generalised golden ratio (Roberts 2018), through the normal
    quantile.
    """
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    uniform = (0.5 + np.arange(1 + skip, count + skip + 1)[:, None] * steps) % 1
    normal: Array = ndtri(np.clip(uniform, 1e-9, 1 - 1e-9))
    normal.setflags(write=False)
    return normal
