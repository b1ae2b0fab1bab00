"""Stop where the loss has risen in so many successive strips (UP of Prechelt 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from curves.stopping.base import EvaluationRule


@dataclass
class SuccessiveRises(EvaluationRule):
    """successive: s, strips in a row that each end above the one before; strip: k, evaluations in one.

    Prechelt: UP_s stops after t where UP_(s-1) stops after t - k and E_va(t) > E_va(t - k), looked at where a strip
    ends. It has no threshold, so there is no scale to get wrong; a strip counts evaluations, not epochs.
    """

    name: ClassVar[str] = "up"

    successive: int = 3
    strip: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("successive", "strip"):
            self._require(name, getattr(self, name) >= 1, "1 or more")

    def decide(self) -> str | None:
        """Compare the ends of the last strips; the first evaluation, the base, ends strip 0."""
        losses = [evaluation.val_loss for evaluation in self.finite]
        if (len(losses) - 1) % self.strip:
            return None
        ends = losses[:: self.strip][-self.successive - 1 :]
        rises = [later > earlier for earlier, later in pairwise(ends)]
        if len(rises) == self.successive and all(rises):
            return f"the loss rose in {self.successive} strips in a row"
        return None
