"""Whether a minimum depends on how the panel weighs its timestep strata.

The held-out loss is a plain mean over strata, most of which is the strata of little noise. Where another weighting puts the
minimum elsewhere, the row says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from analysis.run import Run
from curves.noise import running_median
from curves.posterior import FEWEST_POINTS, Curve, fit
from curves.shapes import Array

MOVED = 1.5  # ratio of minima that is told
NOTICED = 1.25  # ratio of lowest smoothed points from which on both weightings are fitted
FEWEST_STRATA = 4


def _relative(bins: Array) -> Array:
    return np.asarray((bins / bins[0]).mean(axis=1))


def _log_ratio(bins: Array) -> Array:
    return np.asarray(np.log(bins / bins[0]).mean(axis=1))


def _middle(bins: Array) -> Array:
    strata = bins.shape[1]
    return np.asarray(bins[:, strata // 4 : strata - strata // 4].mean(axis=1))


WEIGHTINGS: dict[str, Callable[[Array], Array]] = {
    "the strata weighed equally by their relative loss": _relative,
    "the mean log-ratio to step 0": _log_ratio,
    "the middle half of the strata alone": _middle,
}


def weighting_caveats(runs: Sequence[Run]) -> list[str]:
    """What other weightings say of the minimum, where it is elsewhere; of the first run that measured its strata."""
    for run in runs:
        bins = _bins(run)
        if bins is not None:
            return _caveats(run.curve(), bins, run.facts.horizon_lr_sum)
    return []


def _bins(run: Run) -> Array | None:
    """Losses (points, strata) where every point has them and the base was measured, else None."""
    rows = [point.bins for point in run.points]
    if not run.has_base or len(rows) < FEWEST_POINTS or any(row is None for row in rows):
        return None
    if len({len(row or ()) for row in rows}) != 1 or len(rows[0] or ()) < FEWEST_STRATA:
        return None
    bins = np.array(rows, dtype=float)
    return bins if np.isfinite(bins).all() and (bins > 0).all() else None


def _caveats(curve: Curve, bins: Array, horizon_lr_sum: float) -> list[str]:
    plain = _Minimum(curve, curve.loss, horizon_lr_sum)
    said = []
    for name, weigh in WEIGHTINGS.items():
        other = _Minimum(curve, weigh(bins), horizon_lr_sum)
        if abs(np.log(other.lowest / plain.lowest)) <= np.log(NOTICED):
            continue
        moved = other.fitted / plain.fitted
        if max(moved, 1 / moved) > MOVED:
            said.append(f"by {name} the minimum is at {moved:.1f} times as many steps")
    return said


class _Minimum:
    """Where one weighting's loss is lowest, in lr_sum: read off at once, or fitted when it matters."""

    def __init__(self, curve: Curve, loss: Array, horizon_lr_sum: float) -> None:
        self.curve, self.loss, self.horizon_lr_sum = curve, loss, horizon_lr_sum
        first = curve.lr_sum[curve.lr_sum > 0][0]
        self.lowest = max(float(curve.lr_sum[np.argmin(running_median(loss))]), float(first))

    @property
    def fitted(self) -> float:
        """Median of the posterior; the first evaluation where nothing improves the base."""
        reweighed = Curve(self.curve.steps, self.curve.lr_sum, self.loss)
        posterior = fit(reweighed, horizon_lr_sum=self.horizon_lr_sum)
        if posterior.probability_of_gain < 0.5:
            return float(self.curve.lr_sum[self.curve.lr_sum > 0][0])
        return float(np.median(posterior.minimum_draws(self.horizon_lr_sum)))
