"""The exam: every policy, tuned on some image sets and paid for on the others, at every price."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.exam.intervals import Difference, bootstrap
from analysis.exam.outcomes import PRICES, Outcome
from analysis.exam.policies import Parameters, Policy
from analysis.exam.tuning import Sets, Tuned, mean_over_sets, tune
from analysis.run import Run

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Examined:
    """One policy on all runs.

    Attributes:
        outcomes: (candidates, runs), None where it does not apply.
        sets: (runs,) image set of each.
    """

    policy: Policy
    outcomes: NDArray[np.object_]
    sets: Sets

    def costs(self, price: float, unit: str) -> Array:
        """J of every candidate on every run: (candidates, runs)."""
        return self._values(lambda item: item.cost(price, unit))

    def tuned(self, price: float, unit: str = "horizon") -> Tuned:
        """At that price, chosen on the other image sets, or as the price says."""
        costs = self.costs(price, unit)
        if self.policy.by_price is not None:
            place = self.policy.candidates.index(self.policy.by_price(price))
            return Tuned(np.full(costs.shape[1], place, dtype=np.intp), costs[place])
        return tune(costs, self.sets)

    def mean_cost(self, price: float, unit: str = "horizon") -> float:
        """J over image sets."""
        return float(mean_over_sets(self.tuned(price, unit).cost, self.sets))

    def figures(self, price: float) -> tuple[float, float, float]:
        """Mean regret, its 90th percentile over runs, and mean share of the horizon, tuned for the price."""
        chosen = self.tuned(price).chosen
        items = [self.outcomes[place, run] for run, place in enumerate(chosen)]
        regret = np.array([np.nan if item is None else item.regret for item in items])
        share = np.array([np.nan if item is None else item.horizons for item in items])
        means = mean_over_sets(np.stack([regret, share]), self.sets)
        known = regret[~np.isnan(regret)]
        return float(means[0]), float(np.quantile(known, 0.9)), float(means[1])

    def chosen(self, price: float, unit: str = "horizon") -> list[Parameters]:
        """Parameters that each image set was examined with, in the order of their names."""
        places = self.tuned(price, unit).chosen
        return [self.policy.candidates[places[self.sets == name][0]] for name in np.unique(self.sets)]

    def _values(self, value: Callable[[Outcome], float]) -> Array:
        rows = [[np.nan if item is None else value(item) for item in row] for row in self.outcomes]
        return np.array(rows, dtype=float)


def examine(runs: Sequence[Run], sets: Sets, policies: Sequence[Policy]) -> list[Examined]:
    """Replay every candidate of every policy on every run; those that apply to no run are left out."""
    found = []
    for policy in policies:
        outcomes = np.empty((len(policy.candidates), len(runs)), dtype=object)
        for place, parameters in enumerate(policy.candidates):
            for number, run in enumerate(runs):
                outcomes[place, number] = policy.outcome(run, parameters)
        if any(isinstance(item, Outcome) for item in outcomes.flat):
            found.append(Examined(policy, outcomes, sets))
    return found


def difference(ours: Examined, other: Examined, price: float, unit: str = "horizon") -> Difference:
    """Our J minus the other's, run by run; below zero ours is the cheaper one."""
    return bootstrap(ours.tuned(price, unit).cost - other.tuned(price, unit).cost, ours.sets)


def differences(examined: Sequence[Examined], unit: str = "horizon") -> dict[str, list[Difference]]:
    """Of the first policy against every other, at every price."""
    ours, *others = examined
    return {other.policy.name: [difference(ours, other, price, unit) for price in PRICES] for other in others}
