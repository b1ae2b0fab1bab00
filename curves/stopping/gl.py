"""Stop where the loss has risen by so much of the gain (GL of Prechelt 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.base import EvaluationRule


@dataclass
class GeneralizationLoss(EvaluationRule):
    """alpha: rise above the best evaluation that ends the run, in units of the gain so far.

    Prechelt: GL(t) = 100 (E_va(t) / E_opt(t) - 1) > alpha, a percentage of the loss, of which the whole gain of a
    fine-tuning run is about one. Here GL(t) = (E_va(t) - E_opt(t)) / (E_va(0) - E_opt(t)), and without a gain so far
    nothing is said: an early transient is no rise.
    """

    name: ClassVar[str] = "gl"

    alpha: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("alpha", self.alpha > 0, "positive")

    def decide(self) -> str | None:
        """The latest evaluation against the best one."""
        losses = [evaluation.val_loss for evaluation in self.finite]
        lowest = min(losses)
        rise, gain = losses[-1] - lowest, losses[0] - lowest
        if gain > 0 and rise > self.alpha * gain:
            return f"the loss is {rise / gain:.2f} of the gain above its best"
        return None
