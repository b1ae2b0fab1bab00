"""How far a difference of costs may be due to the image sets and runs that happened to be recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.exam.tuning import Sets, mean_over_sets

Array = NDArray[np.float64]
RESAMPLES = 4000
LEVEL = 0.95
FEW_SETS = 2


@dataclass(frozen=True)
class Difference:
    """Mean difference of two policies' costs, over image sets, with its bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def bootstrap(difference: Array, sets: Sets, seed: int = 0) -> Difference:
    """Percentile interval of the mean over image sets of a difference (runs,).

    Image sets are drawn with replacement; where there are no more than FEW_SETS, the runs within each drawn set as well
    (a two-level bootstrap), for the sets alone would give three values. Runs that are nan are left out.
    """
    known = ~np.isnan(difference)
    difference, sets = difference[known], sets[known]
    names = np.unique(sets)
    if not len(names):
        return Difference(np.nan, np.nan, np.nan)
    random = np.random.default_rng(seed)
    means = np.stack([_set_means(difference[sets == name], len(names), random) for name in names])
    place, resample = np.arange(len(names)), np.arange(RESAMPLES)[:, None]
    drawn = random.integers(0, len(names), (RESAMPLES, len(names)))
    totals = means[drawn, place, resample].mean(axis=1)
    low, high = np.quantile(totals, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Difference(float(mean_over_sets(difference, sets)), float(low), float(high))


def _set_means(values: Array, sets: int, random: np.random.Generator) -> Array:
    """Means of one set's runs for each place that it may be drawn into: (places, RESAMPLES)."""
    if sets > FEW_SETS:
        return np.full((sets, RESAMPLES), values.mean())
    return np.asarray(values[random.integers(0, len(values), (sets, RESAMPLES, len(values)))].mean(axis=2))


def levels(sets: Sets) -> str:
    """What was drawn, in words."""
    count = len(np.unique(sets))
    return "image sets" if count > FEW_SETS else "image sets and runs within them"
