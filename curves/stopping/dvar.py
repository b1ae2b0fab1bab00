"""Stop where the loss hardly varies any more (DVAR of Voronov et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from curves.stopping.base import EvaluationRule


@dataclass
class DeterministicVariance(EvaluationRule):
    """threshold: variance of the last `window` losses over that of all of them below which the run ends.

    Voronov et al. (arXiv 2302.04841) take a loss on fixed inputs, noise and timesteps, as the panel's is, of training
    images after every step, with a window of 200 steps and a threshold of 0.15. Here it is fed with evaluations: of
    held-out images, and a window of evaluations, which on a geometric grid is a stretch that grows with the step.
    """

    name: ClassVar[str] = "dvar"

    threshold: float = 0.15
    window: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("threshold", 0 < self.threshold < 1, "between 0 and 1")
        self._require("window", self.window >= 2, "2 or more")

    def decide(self) -> str | None:
        """Compare the two variances once the window is full."""
        losses = np.array([evaluation.val_loss for evaluation in self.finite])
        if len(losses) < self.window:
            return None
        losses /= max(float(np.abs(losses).max()), 1e-300)  # so that a diverged loss can be squared
        recent, all_of_them = float(np.var(losses[-self.window :])), float(np.var(losses))
        if recent < self.threshold * all_of_them:
            return f"the loss hardly varies: {recent / all_of_them:.2f} of its variance so far"
        return None
