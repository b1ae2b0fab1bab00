"""A parameter set as a trunk at constant learning rate and branches off it, each cooled down for a budget of its own.

Runs of a set are numbered: 0 is the trunk, k the branch of the k-th budget. A branch is an ordinary run that goes on
from the trunk's training state (`budget.trunk`); it can start once the trunk has kept that.
"""

from collections.abc import Collection
import time
from typing import Any

from conf.errors import RequestError
from conf.schema import Config, Cooldown
from curves.cooldown import SCHEDULE, TRUNK_SCHEDULE, cooldown_start, geometric_budgets
from curves.run_folder import RunFolder, Verdict

NOT_SEARCHED = (
    "budget.trunk",
    "budget.horizon",
    "budget.max_steps",
    "checkpoints.keep",
    "evaluation.average_share",
    "optimizer.schedule",
    "optimizer.decay_share",
)


def budgets(config: Config) -> list[int]:
    """Steps of the branches, rising; none where a sweep has none."""
    return stated_budgets(config.sweep.cooldown, config.budget.max_steps or 1)


def stated_budgets(cooldown: Cooldown, largest: int) -> list[int]:
    """The same of a trunk of `largest` steps."""
    return list(cooldown.budgets) or geometric_budgets(largest, cooldown.ratio, cooldown.branches)


def branching_steps(config: Config) -> list[int]:
    """Where the branches leave the trunk."""
    return [cooldown_start(budget, config.sweep.cooldown.decay_share) for budget in budgets(config)]


def trained_steps(config: Config) -> list[int]:
    """Steps that each run of a parameter set trains itself."""
    pairs = zip(budgets(config), branching_steps(config), strict=True)
    return [config.budget.max_steps or 0, *(budget - start for budget, start in pairs)]


def check_branches(config: Config, searched: Collection[str]) -> None:
    """Check a cell that trains trunks and branches.

    Raises:
        RequestError: a budget lies beyond the trunk, the trunk's schedule decays or a rule may end it, or something else
            decides about what the branches decide.
    """
    steps = budgets(config)
    if not steps:
        return
    if config.optimizer.schedule != TRUNK_SCHEDULE:
        raise RequestError(
            f"optimizer.schedule={config.optimizer.schedule}: branches leave a trunk at constant learning rate and decay "
            f"by themselves: set optimizer.schedule={TRUNK_SCHEDULE} with sweep.cooldown"
        )
    if steps[-1] > (config.budget.max_steps or 0):
        raise RequestError(
            f"sweep.cooldown.budgets: {steps[-1]} lies beyond the trunk, which has budget.max_steps="
            f"{config.budget.max_steps}: drop it, or train a longer trunk"
        )
    if config.stopping.name != "none":
        raise RequestError(
            f"stopping={config.stopping.name}: a trunk that is stopped has no state for its longer branches: use "
            "stopping=none with sweep.cooldown"
        )
    if config.optimizer.warmup_steps > branching_steps(config)[0]:
        raise RequestError(
            f"optimizer.warmup_steps={config.optimizer.warmup_steps}: the shortest branch, of {steps[0]} steps, decays "
            f"from step {branching_steps(config)[0]} on: use fewer, or larger sweep.cooldown.budgets"
        )
    if config.launch.command is not None and config.launch.flags:
        raise RequestError(
            "launch.flags: another's script cannot go on from a trunk's state: use launch=local with sweep.cooldown"
        )
    given: dict[str, object] = {
        "budget.trunk": config.budget.trunk,
        "budget.horizon": config.budget.horizon,
        "checkpoints.keep": config.checkpoints.keep,
        "evaluation.average_share": config.evaluation.average_share,
    }
    for key, value in given.items():
        if value:
            raise RequestError(f"{key}={value}: sweep.cooldown decides it: drop it")
    for name in NOT_SEARCHED:
        if name in searched:
            raise RequestError(
                f"space: searches {name}, which sweep.cooldown decides: search it without, or drop it from the space"
            )


def values_of(config: Config, member: int, trunk: RunFolder | None) -> dict[str, Any]:
    """What run `member` of a parameter set has otherwise than its cell.

    Args:
        trunk: of a branch, its trunk's folder.
    """
    if member == 0:
        return {
            "checkpoints.keep": sorted(set(branching_steps(config))),
            "evaluation.average_share": config.sweep.cooldown.decay_share,
        }
    assert trunk is not None
    return {
        "optimizer.schedule": SCHEDULE,
        "optimizer.decay_share": config.sweep.cooldown.decay_share,
        "budget.max_steps": budgets(config)[member - 1],
        "budget.trunk": str(trunk.path),
    }


def can_start(config: Config, member: int, trunk: RunFolder) -> bool:
    """Whether a trunk has kept the state that a branch goes on from."""
    return trunk.kept_state(branching_steps(config)[member - 1]).is_dir()


def verdict_without_trunk(trunk: RunFolder) -> Verdict:
    """How a branch ends whose trunk ended before it: the same way, for it would have trained the same steps."""
    status, outcome = trunk.read_status(), trunk.outcome() or "crashed"
    reached = status.step if status is not None else 0
    reason = f"its trunk {trunk.path.name} ended ({outcome}) at step {reached}, before this branch"
    return Verdict("stopped" if outcome == "complete" else outcome, reason, None, time.time())
