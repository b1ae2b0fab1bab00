"""The linear part of a curve: given its shape, (minimum, gain, sigma^2) in closed form as a normal-inverse-gamma."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from curves.noise import ShapeNoise
from curves.shapes import Array, Floats

# Inverse-gamma prior of sigma^2: two points' worth of belief in a scatter of 1 % of the rough gain.
SIGMA_PRIOR_SHAPE, SIGMA_PRIOR_SHARE = 1.5, 0.015
SURE = 8.0  # standard errors beyond which the sign of a gain is not in doubt


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
        errors = self.gain / self.gain_scale()
        doubtful = errors < SURE
        score = volume - np.log(self.minimum_precision) - 0.5 * self.freedom * np.log(self.rate)
        with np.errstate(divide="ignore"):
            score[doubtful] += np.log(stdtr(self.freedom, errors[doubtful]))
        return np.asarray(score)

    def gain_scale(self) -> Array:
        """Scale of the gain's Student-t, (shapes,)."""
        return np.sqrt(2 * self.rate / self.freedom / np.maximum(self.gain_precision, 1e-300))

    def take(self, index: NDArray[np.intp]) -> Linear:
        """The rows at index."""
        arrays = {name: getattr(self, name)[index] for name in self.__dataclass_fields__ if name != "freedom"}
        return Linear(**arrays, freedom=self.freedom)

    @classmethod
    def concatenate(cls, parts: Sequence[Linear]) -> Linear:
        """The shapes of all parts, in order; they share their degrees of freedom."""
        names = [name for name in cls.__dataclass_fields__ if name != "freedom"]
        arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
        return cls(**arrays, freedom=parts[0].freedom)

    def rescaled(self, shift: float, ratio: float) -> Linear:
        """The same with the loss in other units: shift + ratio * loss."""
        return replace(
            self, minimum=shift + ratio * self.minimum, gain=ratio * self.gain, rate=ratio**2 * self.rate
        )

    def draw(self, random: np.random.Generator) -> tuple[Array, Array, Array]:
        """One exact draw of (minimum, gain > 0, sigma) for each shape."""
        count = len(self.gain)
        variance = self.rate / random.gamma(0.5 * self.freedom, 1.0, count)
        gain = self.gain + np.sqrt(variance / self.gain_precision) * random.standard_normal(count)
        # A draw that is not positive is drawn again, from what is left of its Student-t.
        again = np.flatnonzero(gain <= 0)
        scale = self.gain_scale()[again]
        below = stdtr(self.freedom, -self.gain[again] / scale)
        uniform = below + (1 - below) * random.uniform(1e-9, 1 - 1e-9, len(again))
        redrawn = self.gain[again] + scale * stdtrit(self.freedom, np.minimum(uniform, 1 - 1e-12))
        gain[again] = np.maximum(redrawn, 0.0)
        rate = self.rate[again] + 0.5 * self.gain_precision[again] * (gain[again] - self.gain[again]) ** 2
        variance[again] = rate / random.gamma(0.5 * (self.freedom + 1), 1.0, len(again))
        centre = self.minimum - self.cross * (gain - self.gain)
        minimum = centre + np.sqrt(variance / self.minimum_precision) * random.standard_normal(count)
        return minimum, gain, np.sqrt(variance)


def regress(column: Floats, loss: Floats, noise: ShapeNoise) -> Linear:
    """Weighted regression of loss (n,), in units of the gain, on [1, column (shapes, n)] for each shape."""
    ones = noise.whiten(np.ones((1, 1), dtype=column.dtype))
    x, y = noise.whiten(column), noise.whiten(loss[None, :])
    one_one = np.vecdot(ones, ones)
    cross = np.vecdot(ones, x) / one_one
    mean = np.vecdot(ones, y) / one_one
    x -= cross[:, None] * ones
    y -= mean[:, None] * ones
    precision = np.vecdot(x, x)
    slope = np.vecdot(x, y) / np.maximum(precision, 1e-12)
    y -= slope[:, None] * x
    rate = SIGMA_PRIOR_SHAPE * SIGMA_PRIOR_SHARE**2 + 0.5 * np.vecdot(y, y)
    arrays = {
        "minimum": mean - cross * slope,
        "gain": slope,
        "minimum_precision": one_one,
        "cross": cross,
        "gain_precision": precision,
        "rate": rate,
    }
    return Linear(
        **{name: value.astype(float) for name, value in arrays.items()},
        freedom=len(loss) - 2 + 2 * SIGMA_PRIOR_SHAPE,
    )
