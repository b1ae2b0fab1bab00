"""Parameters chosen on some image sets and paid for on others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Sets = NDArray[np.str_]


@dataclass(frozen=True)
class Tuned:
    """One policy at one price, every run under parameters that its own image set had no part in.

    Attributes:
        chosen: (runs,) index of the candidate that each run was examined with.
        cost: (runs,) its J; nan where the policy does not apply.
    """

    chosen: NDArray[np.intp]
    cost: Array


def mean_over_sets(values: Array, sets: Sets) -> Array:
    """Mean over image sets of the means over their runs: (..., runs) to (...,). Runs that are nan are left out."""
    means = [_mean(values[..., sets == name]) for name in np.unique(sets)]
    return _mean(np.stack(means, axis=-1))


def best_candidate(costs: Array, sets: Sets) -> int:
    """The candidate of least mean cost (candidates, runs); of equals the first."""
    means = mean_over_sets(costs, sets)
    return int(np.argmin(np.where(np.isnan(means), np.inf, means)))


def tune(costs: Array, sets: Sets) -> Tuned:
    """Leave one image set out at a time: choose on the others, pay on it.

    costs (candidates, runs). With a single image set there is nothing to tune on: candidate 0, the default.
    """
    chosen = np.zeros(costs.shape[1], dtype=np.intp)
    names = np.unique(sets)
    for name in names if len(names) > 1 else []:
        chosen[sets == name] = best_candidate(costs[:, sets != name], sets[sets != name])
    return Tuned(chosen, costs[chosen, np.arange(costs.shape[1])])


def _mean(values: Array) -> Array:
    """nan-mean over the last axis, nan where all are."""
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
