"""Stop where the loss rises and training no longer makes progress (PQ of Prechelt 1998)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.base import Evaluation, EvaluationRule


@dataclass
class ProgressQuotient(EvaluationRule):
    """alpha: rise of the held-out loss over progress that ends the run; strip: k, evaluations in a strip.

    Prechelt: PQ = GL(t) / P_k(t) > alpha where a strip ends, GL in per cent of the loss and progress
    P_k(t) = 1000 (mean of E_tr over the strip / its least - 1) in per mille. Both in units of gain instead, the gain
    cancels: (E_va(t) - E_opt(t)) / (mean of E_tr - its least). His alpha is a tenth of this one, at equal losses.

    E_tr is the panel on training images, a fixed input as the held-out one is, for the logged training loss scatters a
    hundred times more than it moves. Where that panel is not measured, progress is that of the held-out loss.
    """

    name: ClassVar[str] = "pq"

    alpha: float = 5.0
    strip: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("alpha", self.alpha > 0, "positive")
        self._require("strip", self.strip >= 2, "2 or more: one evaluation shows no progress")

    def decide(self) -> str | None:
        """At the end of a strip, the rise against the progress in it; the base is evaluation 0 and in no strip."""
        count = len(self.finite) - 1
        if count < self.strip or count % self.strip:
            return None
        losses = [evaluation.val_loss for evaluation in self.finite]
        rise, progress = losses[-1] - min(losses), self.progress(self.finite[-self.strip :])
        if rise > self.alpha * progress:
            return f"the loss rose by {rise:.3g} while training progressed by {progress:.3g}"
        return None

    def progress(self, strip: list[Evaluation]) -> float:
        """Mean of the strip above its least, loss units."""
        training = [item.train_panel_loss for item in strip if item.train_panel_loss is not None]
        losses = training if len(training) == len(strip) else [item.val_loss for item in strip]
        return sum(losses) / len(losses) - min(losses)
