"""What a reader finds of one run in another tool's log, and how its records are put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
import math
import statistics
from typing import Any, NamedTuple

MOST_STEPS = 10_000_000  # a larger one is damage


class Record(NamedTuple):
    """One logged value; `order` is its place among all records of the log, as they were written."""

    step: float
    value: float
    order: int


@dataclass
class Log:
    """One run of another tool.

    Attributes:
        name: as the source names the run.
        source: file or folder that it was read from.
        values: records of every tag, in the order in which they were written.
        settings: hyperparameters as the tool wrote them.
        notes: what was wrong with the source, in words.
        clock: how a value that was logged under an epoch's number finds its step: by the `order` of writing, not at all
            (`none`), or it needs none since every `row` has its own step.
        counts_calls: whether its steps may be calls of wandb.log, which count on where no step is given.
    """

    name: str
    source: str
    values: dict[str, list[Record]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    clock: str = "order"
    counts_calls: bool = False

    def add(self, tag: str, step: float, value: float) -> None:
        """Append one value."""
        self.values.setdefault(tag, []).append(Record(step, value, self.count))

    @property
    def count(self) -> int:
        """Records of all tags."""
        return sum(map(len, self.values.values()))


@dataclass(frozen=True)
class Series:
    """One tag in order: finite values by step, the step from which on it is not finite, and what was mended."""

    values: dict[int, float]
    diverged_from: int | None = None
    notes: tuple[str, ...] = ()


def in_order(records: Sequence[Record], *, per_update: int = 1, first: int = 0, mean: bool = False) -> Series:
    """Records of one tag by optimizer update, strictly increasing.

    A run that was restarted repeats steps: what was written after an earlier step replaces what stood at or after
    it. Where no step is repeated the order of writing says nothing and the records are sorted.

    Args:
        per_update: logged steps an update.
        first: what is added to a logged step, 1 where the first batch is logged as step 0.
        mean: whether values of one update are averaged (micro-batches) or the last one counts.
    """
    whole = [item for item in records if _is_step(item.step)]
    notes = _counted(len(records) - len(whole), "record", "without a whole step left out")
    steps = [int(item.step) for item in whole]
    falls = any(later < earlier for earlier, later in pairwise(steps))
    if falls and len(set(steps)) == len(steps):
        whole = sorted(whole, key=lambda item: item.step)
        notes += ["records out of order were sorted by step"]
    kept: list[tuple[int, list[float]]] = []
    replaced = 0
    previous = -1
    for item in whole:
        restarted, previous = int(item.step) < previous, int(item.step)
        update = (int(item.step) + first) // per_update
        while restarted and kept and kept[-1][0] >= update:
            replaced += len(kept.pop()[1])
        if kept and kept[-1][0] == update:
            kept[-1][1].append(item.value)
        else:
            kept.append((update, [item.value]))
    notes += _counted(replaced, "record", "replaced by a restart from an earlier step")
    return _finite({update: _one(values, mean) for update, values in kept}, notes)


def _one(values: Sequence[float], mean: bool) -> float:
    """The value of one update."""
    finite = [value for value in values if math.isfinite(value)]
    if not mean or not finite:
        return values[-1]
    return statistics.mean(finite)  # exact: a sum of the largest would overflow


def _finite(values: dict[int, float], notes: list[str]) -> Series:
    """Holes are left out; values that are not finite up to the end are a divergence."""
    finite = {step: value for step, value in values.items() if math.isfinite(value)}
    last = max(finite, default=-1)
    tail = [step for step in values if step > last]
    notes += _counted(len(values) - len(finite) - len(tail), "value", "not finite left out")
    return Series(finite, min(tail, default=None), tuple(notes))


def _is_step(step: float) -> bool:
    return math.isfinite(step) and 0 <= step <= MOST_STEPS and step == int(step)


def _counted(count: int, noun: str, what: str) -> list[str]:
    return [f"{count} {noun}{'' if count == 1 else 's'} {what}"] if count else []
