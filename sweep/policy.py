"""What follows when a trainer has ended: another attempt, with what changes, or the end of the trial.

A pure function of the attempts so far, so that a supervisor decides as the one before it would have.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from conf.schema import Config
from sweep.attempts import Attempt, failures_in_vain

FAILED = ("crashed", "out_of_memory", "config_error", "diverged")  # told to Optuna as failed
UNFINISHED = ("preempted", "config_error")  # left running in Optuna: `resume` continues them
BATCH, ACCUMULATION, PANEL_BATCH = "optimizer.batch_size", "optimizer.accumulation", "evaluation.batch_size"
SIZES = (BATCH, ACCUMULATION, PANEL_BATCH)  # what running out of memory changes


def changes_of_next(
    attempts: Sequence[Attempt], sizes: Mapping[str, int], retries: int
) -> dict[str, Any] | None:
    """The changes that a trial's next attempt has; None where the trial is over.

    Out of memory: half the batch and twice the accumulation, until neither batch can be halved. Crashed: again,
    `retries` times without getting further. Preempted, or of an end that nobody saw: again as it was.

    Args:
        attempts: so far, oldest first.
        sizes: of SIZES, as the trial was sampled.
        retries: failures in a row, none of which got further than one before it, after which the trial is over.
    """
    if not attempts:
        return {}
    last = attempts[-1]
    if last.outcome is None or last.outcome == "preempted":
        return last.changes
    if last.outcome == "crashed":
        return last.changes if failures_in_vain(attempts) <= retries else None
    if last.outcome == "out_of_memory":
        smaller = halved({**sizes, **{key: last.changes[key] for key in SIZES if key in last.changes}})
        return None if smaller is None else {**last.changes, **smaller}
    return None


def sizes_of(config: Config, values: Mapping[str, Any]) -> dict[str, int]:
    """The SIZES of a trial: as sampled, else as its cell has them."""
    own = {
        BATCH: config.optimizer.batch_size,
        ACCUMULATION: config.optimizer.accumulation,
        PANEL_BATCH: config.evaluation.batch_size,
    }
    return {key: int(values.get(key, own[key])) for key in SIZES}


def halved(sizes: Mapping[str, int]) -> dict[str, int] | None:
    """Less work at once, the same batch an update; None where there is nothing left to halve."""
    batch, accumulation, panel = (sizes[key] for key in SIZES)
    if batch == 1 and panel == 1:
        return None
    smaller = max((part for part in range(1, batch // 2 + 1) if batch % part == 0), default=1)
    return {BATCH: smaller, ACCUMULATION: accumulation * batch // smaller, PANEL_BATCH: max(1, panel // 2)}
