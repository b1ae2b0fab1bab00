"""A stop rule's parameters chosen on all recorded runs: what `stopping=calibrated` takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.exam.examine import Examined, examine
from analysis.exam.policies import Memory, Policy, policies
from analysis.exam.tuning import Sets, best_candidate, mean_over_sets
from analysis.run import Run
from conf.errors import RequestError
from curves.stopping.calibration import Calibration


def tunable(memory: Memory) -> dict[str, Policy]:
    """Policies that are a stop rule with parameters to choose, by the rule's name; of several the first."""
    found: dict[str, Policy] = {}
    for policy in policies(memory):
        if policy.rule is not None and policy.by_price is None and len(policy.candidates) > 1:
            found.setdefault(policy.rule, policy)
    return found


def calibrate(runs: Sequence[Run], sets: Sets, rule: str, prices: Sequence[float]) -> list[Calibration]:
    """The best candidate on all image sets at each price.

    Raises:
        RequestError: no such rule, or one without parameters; the others are listed.
    """
    known = tunable(Memory())
    if rule not in known:
        raise RequestError(f"--rule {rule}: must be one of {', '.join(known)}")
    examined = examine(runs, sets, [known[rule]])[0]
    return [_calibration(examined, rule, price) for price in prices]


def _calibration(examined: Examined, rule: str, price: float) -> Calibration:
    costs = examined.costs(price, "horizon")
    place = best_candidate(costs, examined.sets)
    tuned_on: dict[str, Any] = {
        "runs": costs.shape[1],
        "image_sets": sorted(map(str, np.unique(examined.sets))),
        "mean_cost": round(float(mean_over_sets(costs[place], examined.sets)), 4),
    }
    return Calibration(price, rule, dict(examined.policy.candidates[place]), tuned_on)
