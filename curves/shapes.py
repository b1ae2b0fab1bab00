"""The U-shaped curves that the posterior mixes: a descent plus a rise, written so that the minimum is a
parameter.

method.md writes f(u) = c + a phi1(u) + b phi2(u). Given the time of the minimum the ratio b/a is fixed by f'
= 0 there, so the same family is f(u) = minimum + gain * regret(u / time), where regret is 1 at zero and 0 at
the minimum. A prior on the time of the minimum is then a prior on a parameter, and relative regret does not
depend on the linear part at all. A curve that never rises within the horizon (b = 0) is one whose minimum
lies far beyond it: its prior mass is the time prior's tail.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.float64]

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
    "noise_memory",
)
# Prior centres and spreads (natural logs). They put regret near 0.2 at half of the minimum's time, 0.5 at
# twice and 3 at four times, which is what recorded Stable Diffusion 1.5 runs show, with room on both sides.
DESCENT_TIME_MEDIAN, DESCENT_TIME_LOG_SD = 0.2, 1.2
DESCENT_POWER_MEDIAN, DESCENT_POWER_LOG_SD = 1.2, 0.5
# Below one the rise is concave, as that of an adapter on few images under a warm-up.
RISE_POWER_LOWEST, RISE_POWER_EXCESS_MEDIAN, RISE_POWER_EXCESS_LOG_SD = 0.5, 1.0, 0.6
ONSET_AT_ZERO, ONSET_HIGHEST = 0.4, 0.9
RATIONAL_MASS = 0.5
# What a style shares is learnt fast, what its images show slowly: a part of the descent may have a scale of its own.
NO_SLOW_PART, SLOW_SHARE_HIGHEST = 0.2, 0.5
SLOW_TIME_MEDIAN, SLOW_TIME_LOG_SD = 0.7, 0.5
NOISE_GROWTH_HIGHEST = 1.0
NOISE_MEMORY_MEDIAN, NOISE_MEMORY_LOG_SD = 0.05, 0.5


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


def _power(base: Array, exponent: Array) -> Array:
    """base (shapes, points) to exponent (shapes,), 0 where base is not positive; through logs, which is
    faster.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(base, 0.0))
    result: Array = np.exp(np.minimum(exponent[:, None] * logs, 300.0))
    return result


def _descent(x: Array, shapes: Shapes) -> Array:
    """phi1 at x (shapes, points) in units of `time`; 1 at x = 0."""
    scaled = _power(x / shapes.descent_time[:, None], shapes.descent_power)
    fast = np.where(shapes.rational[:, None], 1 / (1 + scaled), np.exp(-scaled))
    slow = np.exp(-x / shapes.slow_time[:, None])
    return np.asarray(fast + shapes.slow_share[:, None] * (slow - fast))


def _rise_ratio(shapes: Shapes) -> Array:
    """b/a that puts the stationary point at x = 1: -phi1'(1) / phi2'(1)."""
    scaled = _power(1 / shapes.descent_time[:, None], shapes.descent_power)[:, 0]
    fast = shapes.descent_power * np.where(
        shapes.rational, scaled / (1 + scaled) ** 2, scaled * np.exp(-scaled)
    )
    slow = np.exp(-1 / shapes.slow_time) / shapes.slow_time
    falling = fast + shapes.slow_share * (slow - fast)
    rising = shapes.rise_power * (1 - shapes.onset) ** (shapes.rise_power - 1)
    # A kinked rise has slope 0 to rounding at its onset; such shapes end as invalid, not as infinite.
    return np.asarray(falling / np.maximum(rising, 1e-12))


def relative_regret(lr_sum: Array, shapes: Shapes) -> Array:
    """(f(u) - f at the minimum) / (f(0) - f at the minimum), (shapes, points). docs/method.md, section 2.

    1 at u = 0 and 0 at the minimum. Shapes without a minimum below their start give nan.
    """
    x = lr_sum[None, :] / shapes.time[:, None]
    # The derivative vanishes at 1; two neighbours tell a minimum below the start from anything else.
    neighbours = np.tile(np.array([0.5, 1.0, 1.6]), (len(shapes), 1))
    at = np.concatenate([x, neighbours], axis=1)
    value = _descent(at, shapes)
    value += _rise_ratio(shapes)[:, None] * _power(at - shapes.onset[:, None], shapes.rise_power)
    bottom = value[:, -2]
    gain = 1 - bottom
    is_minimum = (value[:, -3:].min(axis=1) >= bottom - 1e-12) & (gain > 0.05)
    return np.asarray((value[:, :-3] - bottom[:, None]) / np.where(is_minimum, gain, np.nan)[:, None])


def regret_within(lr_sum: Array, shapes: Shapes) -> Array:
    """Regret against the minimum over 0..lr_sum[-1], (shapes, points): a shape still falling there has 0 at
    the end.
    """
    regret = relative_regret(lr_sum, shapes)
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
