"""Learning rates that diverged: later trials of the cell with the same choices stay below them."""

from collections.abc import Mapping
from typing import Any

from sweep.space import CellSpace, Values

LR = "optimizer.lr"


class Divergence:
    """The lowest learning rate of a cell that diverged, for every combination of choices.

    Only parameters with choices are compared: batch sizes or ranks from a range may differ.
    """

    def __init__(self, space: CellSpace) -> None:
        self._choices = {
            item.name for item in space.parameters if item.declared.choices is not None and item.name != LR
        }
        self._lowest: dict[tuple[tuple[str, Any], ...], float] = {}

    def note(self, values: Mapping[str, Any]) -> None:
        """A trial with these values by name diverged; one without a learning rate of its own tells nothing."""
        if LR in values:
            chosen = self._chosen(values)
            self._lowest[chosen] = min(values[LR], self._lowest.get(chosen, values[LR]))

    def allows(self, values: Values) -> bool:
        """Whether values by name lie below what diverged."""
        lowest = self._lowest.get(self._chosen(values))
        return lowest is None or LR not in values or bool(values[LR] < lowest)

    def words(self) -> str:
        """For example `diverged from optimizer.lr=0.02 up (method=lora)`; empty where nothing did."""
        found = []
        for chosen, lowest in sorted(self._lowest.items(), key=lambda item: (item[1], str(item[0]))):
            place = f" ({', '.join(f'{name}={value}' for name, value in chosen)})" if chosen else ""
            found.append(f"{LR}={lowest:.4g} up{place}")
        return f"diverged from {', from '.join(found)}" if found else ""

    def _chosen(self, values: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        return tuple((name, values[name]) for name in sorted(self._choices) if name in values)
