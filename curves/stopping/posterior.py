"""Stop when no later stretch of the run is worth its price (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.appraisal import Appraisal
from curves.stopping.evidence import PosteriorBased


@dataclass
class PosteriorRule(PosteriorBased):
    """kappa: price of a whole horizon of steps, in gain: what going on must be expected to bring in return.

    doubt: of the family of curves, in gain; what a second descent that the family does not have is worth.

    Stops where worth + doubt / u <= kappa, worth being `curves.stopping.appraisal.worth` and u > 0 the share of the
    horizon since the best evaluation. So it never stops at its best evaluation. docs/method.md, section 4.
    """

    name: ClassVar[str] = "posterior"

    kappa: float = 0.1
    doubt: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("kappa", self.kappa > 0, "positive: a price of nothing is stopping=none")
        self._require("doubt", self.doubt >= 0, "0 or more")

    def judge(self, appraisal: Appraisal) -> str | None:
        """Compare what going on is worth with its price."""
        best, latest = self.best, self.finite[-1]
        if best is None or best == latest:
            return None
        waited = (latest.step - best.step) / self.horizon_steps
        worth = appraisal.worth + self.doubt / waited
        if worth <= self.kappa:
            return f"no later step is worth its price: {worth:.3f} gain for a whole horizon"
        return None
