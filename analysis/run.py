"""One run as the analysis sees it: what it is, and the evaluations that may be used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
import math
from typing import Any

import numpy as np

from curves.point import Point
from curves.posterior import Curve
from curves.recommendation import IDENTITY
from curves.run_folder import RunFacts, RunFolder

NO_PANEL = "without a panel name"


@dataclass(frozen=True)
class Run:
    """One readable run folder, or the folds of one parameter set as if they were one (analysis.folds)."""

    folder: RunFolder
    facts: RunFacts
    points: tuple[Point, ...]  # evaluations, in order, up to where the run diverged
    last_step: int
    outcome: str | None  # None while it runs
    folds: int = 1  # runs that it is joined from; the folder is the first one's

    @property
    def name(self) -> str:
        return self.folder.path.name

    @property
    def lr(self) -> float | None:
        """Peak learning rate; None where an imported log does not say it."""
        value = self.facts.hyperparameters.get("lr")
        return None if value is None else float(value)

    @property
    def time_rate(self) -> float:
        """Intrinsic time of a step at the peak; steps themselves are the time where no learning rate is known."""
        return 1.0 if self.lr is None else self.lr

    @property
    def imported(self) -> dict[str, Any]:
        """What the importer recorded of another tool's log; empty for a run of our own."""
        return dict(self.facts.extra.get("imported") or {})

    @property
    def step_unit(self) -> str:
        """What its steps are: optimizer updates, unless another tool counts otherwise."""
        return str(self.imported.get("steps", "updates"))

    @property
    def unknown(self) -> list[str]:
        """Levels of the cell that an imported log does not say; captions come with the images."""
        return [name for name in IDENTITY if name != "captions" and self.facts.cell[name] is None]

    @property
    def has_base(self) -> bool:
        """Whether the untouched base was measured."""
        return bool(self.points) and self.points[0].step == 0

    @property
    def panels(self) -> frozenset[str]:
        """Names of the panels that its points were measured on; an unnamed one is like no other."""
        return frozenset(point.panel or self.facts.panel or NO_PANEL for point in self.points)

    @property
    def best(self) -> Point | None:
        """The evaluation with the lowest held-out loss, of equals the first."""
        return min(self.points, key=_held_out_loss, default=None)

    def curve(self) -> Curve:
        """The evaluations as arrays; image_loss only where every point has it for the same images."""
        return self._curve

    @cached_property
    def _curve(self) -> Curve:
        rows = [point.image_loss for point in self.points]
        whole = bool(rows) and all(rows) and len({len(row) for row in rows if row}) == 1
        return Curve(
            np.array([point.step for point in self.points], dtype=np.int64),
            np.array([_lr_sum(point, self.time_rate) for point in self.points], dtype=float),
            np.array([point.val_loss for point in self.points], dtype=float),
            np.array(rows, dtype=float) if whole else None,
        )


def _held_out_loss(point: Point) -> float:
    return math.inf if point.val_loss is None else point.val_loss


def _lr_sum(point: Point, rate: float) -> float:
    """Recorded intrinsic time; where a log lacks it, that of a constant learning rate."""
    return rate * point.step if point.lr_sum is None else point.lr_sum
