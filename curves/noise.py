"""How much each point of one curve is trusted: which points are dropped, which count less, and whitening."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

# Shares of a point's height above the minimum by which the U family may be wrong there. The far wall is many
# gains high and must not decide where the bottom is; an early transient above the start is not part of the U
# at all.
WALL_MISFIT = 0.1
DESCENT_MISFIT = 0.05
TRANSIENT_MISFIT = 1.0
GROWTH_FLOOR = 0.1  # below this share of the pivot's time the noise no longer shrinks
FAR_WALL = 6.0  # points this many gains above the minimum, after it, are dropped
VOLUME_FACTORS = 12
NOISE_MEMORY = 0.05  # of neighbouring evaluations, in log time
LEAST_NEWS = 1e-5  # variance, of a point beside its neighbour
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


def running_median(values: Array) -> Array:
    """Median over five points, over three and one at the ends, so that a monotone stretch is left as it is."""
    result = np.array(values, dtype=float)
    if len(values) >= 3:
        result[[1, -2]] = np.median(values[:3]), np.median(values[-3:])
    if len(values) >= 5:
        result[2:-2] = np.sort(np.lib.stride_tricks.sliding_window_view(values, 5), axis=1)[:, 2]
    return result


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


@dataclass(frozen=True)
class ShapeNoise:
    """The noise of each shape over the n points of a curve, ready to whiten with.

    The scatter from stochastic gradients grows with intrinsic time as a power, and is an Ornstein-Uhlenbeck process in
    log time: evaluations closer than NOISE_MEMORY repeat each other.
    """

    inverse: Floats  # (shapes, n) one over the relative standard deviation
    correlation: Floats  # (n-1,) of neighbours
    fresh: Floats  # (n-1,) one over the standard deviation of what a point adds to its neighbour

    def whiten(self, values: Floats) -> Floats:
        """Values (shapes or 1, n or 1) as values with independent unit noise, (shapes, n)."""
        scaled = values * self.inverse
        scaled[:, 1:] -= self.correlation * scaled[:, :-1]
        scaled[:, 1:] *= self.fresh
        return scaled

    def log_volume(self) -> Array:
        """Log determinant of the whitening transform, (shapes,), but for what all shapes share."""
        # Products of a few factors do not underflow, and a logarithm costs as much as ten of them.
        starts = np.arange(0, self.inverse.shape[1], VOLUME_FACTORS)
        parts = np.multiply.reduceat(self.inverse, starts, axis=1, dtype=float)
        return np.asarray(np.log(parts).sum(axis=1))


def shape_noise(lr_sum: Array, points: PointScales, growth: Array) -> ShapeNoise:
    """The noise of shapes with a growth each, (shapes,), at lr_sum (n,)."""
    first = lr_sum[1] if lr_sum[0] == 0 else lr_sum[0]
    relative = (lr_sum + GROWTH_FLOOR * points.pivot) / ((1 + GROWTH_FLOOR) * points.pivot)
    variance = np.multiply.outer((2 * growth).astype(np.float32), np.log(relative).astype(np.float32))
    np.exp(variance, out=variance)
    variance += (points.misfit**2).astype(np.float32)
    variance *= (points.outlier**2).astype(np.float32)
    correlation = np.exp(-np.diff(np.log(lr_sum + first)) / NOISE_MEMORY)
    fresh = 1 / np.sqrt(np.maximum(1 - correlation**2, LEAST_NEWS))
    return ShapeNoise(1 / np.sqrt(variance), correlation.astype(np.float32), fresh.astype(np.float32))
