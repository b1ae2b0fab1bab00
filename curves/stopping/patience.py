"""Stop after k evaluations without a new best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.base import EvaluationRule


@dataclass
class Patience(EvaluationRule):
    """patience: evaluations without improvement; min_delta: what counts as one, in units of the gain observed
    so far.

    A percentage of the loss would be mis-scaled: the whole gain is about one per cent of the loss (method.md
    section 1).
    """

    name: ClassVar[str] = "patience"

    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("patience", self.patience >= 1, "1 or more")
        self._require("min_delta", self.min_delta >= 0, "0 or more")

    def decide(self) -> str | None:
        """Count evaluations since the last improvement by more than min_delta of the gain so far."""
        losses = [e.val_loss for e in self.finite]
        # Losses that are not finite count as evaluations without improvement.
        waited, best = len(self.evaluations) - len(losses), losses[0]
        for loss in losses[1:]:
            gain = max(losses[0] - best, 0.0)
            waited = 0 if loss < best - self.min_delta * gain else waited + 1
            best = min(best, loss)
        if waited >= self.patience:
            return f"no new best in {waited} evaluations"
        return None
