"""What every stop rule is: an object fed with points that says whether to stop and what to keep."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
import math
from typing import Any, ClassVar, Protocol

import numpy as np

from curves.posterior import Curve

State = dict[str, Any]
RUN_FACTS = ("horizon_steps", "horizon_lr_sum", "images", "batch")  # known of the run, never set by a user


class Point(Protocol):
    """One record of a run; training points carry no val_loss."""

    @property
    def step(self) -> int: ...
    @property
    def lr_sum(self) -> float | None: ...
    @property
    def val_loss(self) -> float | None: ...
    @property
    def image_loss(self) -> Sequence[float] | None: ...
    @property
    def train_panel_loss(self) -> float | None: ...


@dataclass(frozen=True)
class Decision:
    """stop: end the run now; reason: in words; keep_step: the step whose checkpoint is to be kept, best so
    far.
    """

    stop: bool
    reason: str = ""
    keep_step: int | None = None


class StopRule(Protocol):
    """update after every point; the state goes into checkpoints and comes back on resume."""

    name: ClassVar[str]

    def update(self, point: Point) -> Decision:
        """Take one point in and decide. Once stopped, a rule stays stopped."""

    def state_dict(self) -> State:
        """Everything seen so far, JSON-serialisable."""

    def load_state_dict(self, state: State) -> None:
        """Go on from there with identical decisions. Raises ValueError on another rule's state."""


@dataclass(frozen=True)
class Evaluation:
    """The part of an evaluation that rules look at."""

    step: int
    lr_sum: float
    val_loss: float
    image_loss: tuple[float, ...] | None = None
    train_panel_loss: float | None = None


@dataclass
class EvaluationRule(ABC):
    """Keeps the evaluations; a rule only writes `decide`. Points without val_loss are ignored.

    horizon_steps: steps of the budget; horizon_lr_sum: sum of the learning rate over them; images: that are
    trained on, None where nobody knows; batch: images an update.
    """

    name: ClassVar[str] = ""

    horizon_steps: int
    horizon_lr_sum: float
    images: int | None = None
    batch: int = 1
    evaluations: list[Evaluation] = field(default_factory=list, init=False)
    stopped: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.horizon_steps < 1 or not self.horizon_lr_sum > 0:
            raise ValueError(
                f"a stop rule needs a positive horizon, not {self.horizon_steps} steps "
                f"and lr_sum {self.horizon_lr_sum}"
            )
        for item in fields(self):
            if item.init and item.name not in RUN_FACTS:
                self._check_number(item.name, str(item.type))

    def _check_number(self, name: str, kind: str) -> None:
        """A parameter is a finite number, whole where it counts something."""
        value = getattr(self, name)
        if value is None and "None" in kind:
            return
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{name}={value!r} must be a number")
        if kind.startswith("int") and not isinstance(value, int):
            raise ValueError(f"{name}={value!r} must be a whole number")

    def _require(self, name: str, holds: bool, what: str) -> None:
        """Refuse the value of a parameter.

        Raises:
            ValueError: it does not hold; the message names the parameter, its value and what it must be.
        """
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} must be {what}")

    @property
    def last_step(self) -> int | None:
        """The step at which it ends a run whatever is measured, so that it is evaluated there; None without one."""
        return None

    def update(self, point: Point) -> Decision:
        """Take one point in and decide."""
        if point.val_loss is None or point.lr_sum is None or self.stopped is not None:
            return self._decision()
        images = None if point.image_loss is None else tuple(float(v) for v in point.image_loss)
        # A resumed run repeats steps: what it measures now replaces what was seen.
        self.evaluations = [e for e in self.evaluations if e.step < point.step]
        self.evaluations.append(
            Evaluation(
                int(point.step), float(point.lr_sum), float(point.val_loss), images, _train_panel_loss(point)
            )
        )
        if len(self.finite) >= 1:
            self.stopped = self.decide()
        return self._decision()

    @abstractmethod
    def decide(self) -> str | None:
        """Why to stop after the latest evaluation, or None to go on."""

    def _decision(self) -> Decision:
        best = self.best
        return Decision(self.stopped is not None, self.stopped or "", None if best is None else best.step)

    @property
    def finite(self) -> list[Evaluation]:
        """Evaluations with a finite loss."""
        return [e for e in self.evaluations if math.isfinite(e.val_loss)]

    @property
    def best(self) -> Evaluation | None:
        """The lowest evaluation; the earliest of equals."""
        return min(self.finite, key=lambda e: e.val_loss, default=None)

    def curve(self) -> Curve:
        """The finite evaluations as a curve; image losses only where every one has them."""
        finite = self.finite
        images = [e.image_loss for e in finite if e.image_loss is not None]
        complete = len(images) == len(finite) and len({len(i) for i in images}) == 1
        return Curve(
            np.array([e.step for e in finite], dtype=np.int64),
            np.array([e.lr_sum for e in finite]),
            np.array([e.val_loss for e in finite]),
            np.array(images) if complete else None,
        )

    def state_dict(self) -> State:
        """Rule name, evaluations as plain lists and whether it has stopped."""
        rows = [
            [
                e.step,
                e.lr_sum,
                e.val_loss,
                None if e.image_loss is None else list(e.image_loss),
                e.train_panel_loss,
            ]
            for e in self.evaluations
        ]
        return {"rule": self.name, "evaluations": rows, "stopped": self.stopped}

    def load_state_dict(self, state: State) -> None:
        """The inverse of state_dict."""
        if state.get("rule") != self.name:
            raise ValueError(f"this is the state of rule {state.get('rule')!r}, not of {self.name!r}")
        self.evaluations = [_evaluation(*row) for row in state["evaluations"]]
        self.stopped = state["stopped"]


def _evaluation(
    step: int, lr_sum: float, loss: float, images: list[float] | None, train_panel_loss: float | None = None
) -> Evaluation:
    """One row of a state; checkpoints of before 2026-11-26 have no loss on training images."""
    return Evaluation(
        int(step), float(lr_sum), float(loss), None if images is None else tuple(images), train_panel_loss
    )


def _train_panel_loss(point: Point) -> float | None:
    return None if point.train_panel_loss is None else float(point.train_panel_loss)
