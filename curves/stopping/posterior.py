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

    For every later step h: E[(f(kept) - min over s_n+1..h of f)+] / gain <= kappa (h - s_n) / H.
    """

    name: ClassVar[str] = "posterior"

    kappa: float = 0.1

    def judge(self, posterior: CurvePosterior) -> str | None:
        """Compare the expected improvement with its price at every later step of a grid."""
        best, now = self.best, self.finite[-1]
        if best is None or now.step >= self.horizon_steps:
            return None
        # lr_sum ahead: the learning rate left over is spread evenly over the steps left.
        share = np.geomspace(0.01, 1.0, AHEAD)
        steps_left = self.horizon_steps - now.step
        lr_left = max(self.horizon_lr_sum - now.lr_sum, 1e-3 * now.lr_sum)
        grid = np.concatenate([[best.lr_sum], now.lr_sum + share * lr_left])
        latent, gain = posterior.draws(grid, DRAWS)
        lowest = np.minimum.accumulate(latent[:, 1:], axis=1)
        improvement = np.maximum(latent[:, :1] - lowest, 0.0).mean(axis=0) / max(gain.mean(), 1e-300)
        price = self.kappa * share * steps_left / self.horizon_steps
        if np.all(improvement <= price):
            worth = float(np.max(improvement - price))
            return f"no later step is worth its price: best balance {worth:.3f} gain"
        return None
