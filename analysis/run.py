"""One run as the analysis sees it: what it is, and the evaluations that may be used."""

from __future__ import annotations

from dataclasses import dataclass
import math

import numpy as np

from curves.point import Point
from curves.posterior import Curve
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
    def lr(self) -> float:
        """Peak learning rate."""
        return float(self.facts.hyperparameters["lr"])

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
        rows = [point.image_loss for point in self.points]
        whole = bool(rows) and all(rows) and len({len(row) for row in rows if row}) == 1
        return Curve(
            np.array([point.step for point in self.points], dtype=np.int64),
            np.array([_lr_sum(point, self.lr) for point in self.points], dtype=float),
            np.array([point.val_loss for point in self.points], dtype=float),
            np.array(rows, dtype=float) if whole else None,
        )


def _held_out_loss(point: Point) -> float:
    return math.inf if point.val_loss is None else point.val_loss


def _lr_sum(point: Point, lr: float) -> float:
    """Recorded intrinsic time; where an older log lacks it, that of a constant learning rate."""
    return lr * point.step if point.lr_sum is None else point.lr_sum
