"""How much each point of one curve is trusted: which points are dropped, which count less, and whitening."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Shares of a point's height above the minimum by which the U family may be wrong there. The far wall is many
# gains high and must not decide where the bottom is; an early transient above the start is not part of the U
# at all.
WALL_MISFIT = 0.1
DESCENT_MISFIT = 0.05
TRANSIENT_MISFIT = 1.0
GROWTH_FLOOR = 0.1  # below this share of the pivot's time the noise no longer shrinks
FAR_WALL = 6.0  # points this many gains above the minimum, after it, are dropped
OUTLIER = 5.0  # noise units off the running median at which a point starts to count less


@dataclass(frozen=True)
class PointScales:
    """What is known of a curve's noise before any shape is fitted."""

    kept: NDArray[np.bool_]  # (points,)
    outlier: Array  # (kept points,) factor on the noise of a point that sticks out of its neighbours
    misfit: Array  # (kept points,) how far the family may be off there, in units of the noise
    noise: float  # rough standard deviation of one clean point, loss units
    pivot: float  # lr_sum of the lowest smoothed point: noise growth is 1 there
    gain: float  # rough gain, loss units, at least three times the noise


def running_median(values: Array, width: int = 5) -> Array:
    """Median over a centred window, shrinking at the ends so that a monotone stretch is left as it is."""
    half = width // 2
    reach = np.minimum(half, np.minimum(np.arange(len(values)), np.arange(len(values))[::-1]))
    return np.array([np.median(values[i - r : i + r + 1]) for i, r in enumerate(reach)])


def rough_noise(lr_sum: Array, loss: Array) -> float:
    """Robust scatter of one point (loss units): residuals from the line through both neighbours."""
    if len(loss) < 4:
        return float(0.05 * np.ptp(loss))
    share = (lr_sum[2:] - lr_sum[1:-1]) / (lr_sum[2:] - lr_sum[:-2])
    residual = loss[1:-1] - share * loss[:-2] - (1 - share) * loss[2:]
    standard = residual / np.sqrt(1 + share**2 + (1 - share) ** 2)
    return float(1.4826 * np.median(np.abs(standard)))


def point_scales(lr_sum: Array, loss: Array) -> PointScales:
    """Weigh the points of one curve; lr_sum strictly increasing, loss finite, at least 3 points."""
    smooth = running_median(loss)
    lowest = int(np.argmin(smooth))
    rounding = 1e-12 * float(np.abs(loss).max()) + 1e-300
    noise = max(rough_noise(lr_sum, loss), 0.003 * float(np.ptp(loss[: lowest + 2])), rounding)
    gain = max(float(smooth[0] - smooth[lowest]), 3 * noise)
    height = np.maximum(smooth - smooth[lowest], 0.0)
    after = np.arange(len(loss)) > lowest
    misfit = np.where(after, WALL_MISFIT, DESCENT_MISFIT) * height
    misfit = np.where(after, misfit, misfit + TRANSIENT_MISFIT * np.maximum(smooth - smooth[0], 0.0))
    outlier = np.maximum(np.abs(loss - smooth) / (OUTLIER * noise), 1.0)
    kept = ~(after & (height > FAR_WALL * gain))
    kept[: lowest + 3] = True
    return PointScales(
        kept, outlier[kept], misfit[kept] / noise, noise, max(float(lr_sum[lowest]), float(lr_sum[1])), gain
    )


def shape_noise(lr_sum: Array, points: PointScales, growth: Array, memory: Array) -> tuple[Array, Array]:
    """Noise of each shape: relative standard deviations (shapes, n) and correlations of neighbours (shapes,
    n-1).

    The scatter from stochastic gradients grows with intrinsic time as a power, `growth`, and is an
    Ornstein-Uhlenbeck process in log time with correlation length `memory`: evaluations closer than it repeat
    each other.
    """
    first = lr_sum[1] if lr_sum[0] == 0 else lr_sum[0]
    relative = (lr_sum + GROWTH_FLOOR * points.pivot) / ((1 + GROWTH_FLOOR) * points.pivot)
    grown = np.exp(growth[:, None] * np.log(relative))
    deviation = points.outlier * np.sqrt(grown**2 + points.misfit**2)
    gaps = np.diff(np.log(lr_sum + first))
    return deviation, np.exp(-gaps[None, :] / memory[:, None])


def whiten(values: Array, deviation: Array, correlation: Array) -> Array:
    """Turn values (shapes or 1, n) with that noise into values with independent unit noise, (shapes, n)."""
    scaled = values / deviation
    fresh = (scaled[:, 1:] - correlation * scaled[:, :-1]) / np.sqrt(1 - correlation**2)
    return np.concatenate([scaled[:, :1], fresh], axis=1)


def log_volume(deviation: Array, correlation: Array) -> Array:
    """Log determinant of the whitening transform, (shapes,)."""
    result: Array = -np.log(deviation).sum(axis=1) - 0.5 * np.log1p(-(correlation**2)).sum(axis=1)
    return result
