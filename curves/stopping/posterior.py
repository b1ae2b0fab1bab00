"""Stop when no later stretch of the run is worth its price (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from curves.posterior import CurvePosterior
from curves.stopping.evidence import PosteriorBased

DRAWS, AHEAD = 400, 32


@dataclass
class PosteriorRule(PosteriorBased):
    """kappa: least expected improvement, in gain, that a whole horizon of further steps must bring.

    For every later evaluation h: E[(f(kept) - min over s_n+1..h of f)+ / gain] <= kappa (h - s_n) / H (docs/method.md,
    section 4). Also stops where
    P(s_n > s*) reaches passed_confidence: there the expectation is all in the tail, which the tempered likelihood fattens.
    """

    name: ClassVar[str] = "posterior"

    kappa: float = 0.2
    passed_confidence: float = 0.95

    def judge(self, posterior: CurvePosterior) -> str | None:
        """Compare the expected improvement with its price at every later step of a grid."""
        if min(posterior.probability_of_gain, posterior.probability_passed()) >= self.passed_confidence:
            return f"the minimum is passed: P = {posterior.probability_passed():.2f}"
        best, before, now = self.best, self.finite[-2], self.finite[-1]
        steps_left = self.horizon_steps - now.step
        if best is None or steps_left <= 0:
            return None
        # The next evaluation is at least as far away as the last one was; from there to the horizon.
        next_share = min((now.step - before.step) / steps_left, 1.0)
        share = np.geomspace(next_share, 1.0, AHEAD)
        # What is left of the learning rate is spread evenly over the steps left.
        lr_left = max(self.horizon_lr_sum - now.lr_sum, 1e-3 * now.lr_sum)
        grid = np.concatenate([[best.lr_sum], now.lr_sum + share * lr_left])
        latent, gain = posterior.draws(grid, DRAWS)
        lowest = np.minimum.accumulate(latent[:, 1:], axis=1)
        # In units of each draw's own gain: early on a few draws have a gain so large that its mean says nothing.
        improvement = (np.maximum(latent[:, :1] - lowest, 0.0) / np.maximum(gain, 1e-300)[:, None]).mean(
            axis=0
        )
        price = self.kappa * share * steps_left / self.horizon_steps
        if np.all(improvement <= price):
            return f"no later step is worth its price: {improvement[-1]:.3f} gain left to the horizon"
        return None
