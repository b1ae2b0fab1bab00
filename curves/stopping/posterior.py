"""Stop when no later stretch of the run is worth its price (method.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from curves.stopping.appraisal import Appraisal
from curves.stopping.evidence import PosteriorBased


@dataclass
class PosteriorRule(PosteriorBased):
    """kappa: price of a whole horizon of steps, in gain: what going on must be expected to bring in return.

    Stops where for every later step h E[(loss of the best checkpoint - min over s_n+1..h of f)+ / gain]
    <= kappa (h - s_n) / H (`curves.stopping.appraisal.worth`). docs/method.md, section 4.
    """

    name: ClassVar[str] = "posterior"

    kappa: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("kappa", self.kappa > 0, "positive: a price of nothing is stopping=none")

    def judge(self, appraisal: Appraisal) -> str | None:
        """Compare what going on is worth with its price."""
        if appraisal.worth <= self.kappa:
            return f"no later step is worth its price: {appraisal.worth:.3f} gain for a whole horizon"
        return None
