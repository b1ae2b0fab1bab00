"""A fresh run of a cell that was not run, as draws: what curves.answer answers from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.law import Law, Place
from curves.answer import DRAWS
from curves.misfit import Misfit
from curves.pooling import PooledPosterior
from curves.posterior import TimePrior
from curves.shapes import Shapes, regret_within

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LawDraws:
    """A fresh run of an unseen cell: its time from the law, its shape from the cells that are like it.

    Keeps the protocol curves.answer.RegretDraws.
    """

    law: Law
    place: Place
    donors: tuple[PooledPosterior, ...]
    weights: Array  # of the donors, sum 1
    time_prior_assumed: bool = False
    misfit: Misfit = Misfit(1.0, 0.0, False)

    @property
    def probability_of_gain(self) -> float:
        return float(self.weights @ [donor.probability_of_gain for donor in self.donors])

    @property
    def last_lr_sum(self) -> float:
        return max(donor.last_lr_sum for donor in self.donors)

    def probability_passed(self, lr_sum: float | None = None) -> float:
        """Of the donors their own; P(the minimum lies before lr_sum) where that is asked."""
        if lr_sum is not None:
            return float(np.mean(self.minimum_draws(count=DRAWS) < lr_sum))
        return float(self.weights @ [donor.probability_passed() for donor in self.donors])

    def _draw(self, count: int, seed: int) -> tuple[NDArray[np.intp], Array]:
        """The donor of each of count fresh runs, and lr_sum at its minimum."""
        random = np.random.default_rng(seed)
        donor = random.choice(len(self.donors), count, p=self.weights)
        spread = np.sqrt([item.spread_variance() for item in self.donors])[donor]
        return donor, np.exp(self.law.draw(self.place, count, seed) + spread * random.standard_normal(count))

    def draw_shapes(self, count: int, seed: int = 0) -> Shapes:
        """Shapes of count fresh runs."""
        donor, time = self._draw(count, seed)
        taken = np.bincount(donor, minlength=len(self.donors))
        parts = [item.draw_shapes(int(n), seed) for item, n in zip(self.donors, taken, strict=True) if n]
        # Drawn donor by donor, then put where each one's turn is.
        order = np.argsort(np.argsort(donor, kind="stable"), kind="stable")
        fields = {
            name: np.concatenate([getattr(part, name) for part in parts])[order]
            for name in Shapes.__dataclass_fields__
        }
        return Shapes(**fields).at_time(time)

    def regret_draws(self, lr_sum: Array, count: int = 1000, seed: int = 0) -> Array:
        return regret_within(np.asarray(lr_sum), self.draw_shapes(count, seed))

    def minimum_draws(self, horizon_lr_sum: float | None = None, count: int = 1000, seed: int = 0) -> Array:
        draws = self._draw(count, seed)[1]
        return draws if horizon_lr_sum is None else np.minimum(draws, horizon_lr_sum)

    def gain_summary(self, count: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Of the nearest donor; the law does not say how large the gain is."""
        return self.donors[0].gain_summary(count, seed)

    def with_time_prior(self, prior: TimePrior) -> LawDraws:
        """The law is what is known of the time."""
        return self
