"""All budgets from one run: which budgets, and the step up to which a shorter run is one with a longer.

Randomness is counted, so a run with the schedule warmup_stable_decay over b steps is, up to where its decay begins, the
run at constant learning rate: it can branch off that trunk's training state (Haegele et al. 2024, arXiv 2405.18392).
"""

import math
from typing import Any

SCHEDULE = "warmup_stable_decay"  # of a branch
TRUNK_SCHEDULE = "constant"


def cooldown_start(horizon: int, decay_share: float) -> int:
    """The step at which a branch leaves its trunk: no update up to it has a lower learning rate than the trunk's."""
    return math.floor((1 - decay_share) * horizon + 1e-9)


def geometric_budgets(largest: int, ratio: float, count: int) -> list[int]:
    """`count` budgets in steps, each `ratio` times the one before, up to the largest; fewer where they would coincide."""
    return sorted({max(1, round(largest / ratio**index)) for index in range(count)})


def average_exponent(decay_share: float) -> float:
    """The exponent g for which an average with weights s^g over the steps s is as old as a linear decay.

    A decay over a share d of n steps leaves the plain mean of the weights that the same updates at full rate pass
    through: of mean age d n/2. The average's is n/(g + 2).
    """
    return 2 / decay_share - 2


def is_cooled(hyperparameters: dict[str, Any]) -> bool:
    """Whether a run ends with a cooldown."""
    return hyperparameters.get("schedule") == SCHEDULE
