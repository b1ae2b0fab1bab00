"""Train so many steps, whatever is measured."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import ClassVar

from curves.stopping.base import Decision, EvaluationRule, Point

RULE_OF_THUMB = 100.0  # steps per image, of forum posts and tutorials


@dataclass
class FixedSteps(EvaluationRule):
    """steps: optimizer updates; or steps_per_image: updates at batch 1 for each image that is trained on, so that
    a batch of B takes a B-th of them. With neither: the rule of thumb, 100 steps per image.
    """

    name: ClassVar[str] = "fixed"

    steps: int | None = None
    steps_per_image: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "steps_per_image"):
            self._require(name, getattr(self, name) is None or getattr(self, name) > 0, "positive")
        if self.steps is not None and self.steps_per_image is not None:
            raise ValueError(
                f"steps={self.steps} and steps_per_image={self.steps_per_image}: give one of them"
            )
        if self.steps is None and self.images is None:
            raise ValueError(
                "steps_per_image needs the number of images, which is not known here: give steps"
            )

    @property
    def last_step(self) -> int:
        if self.steps is not None:
            return self.steps
        per_image = RULE_OF_THUMB if self.steps_per_image is None else self.steps_per_image
        return max(1, math.ceil(per_image * (self.images or 0) / self.batch))

    def update(self, point: Point) -> Decision:
        """Also counts points without a held-out loss: it needs none."""
        super().update(point)
        if self.stopped is None and point.step >= self.last_step:
            self.stopped = self.decide_at(point.step)
        return self._decision()

    def decide(self) -> str | None:
        """By the step alone."""
        return self.decide_at(self.evaluations[-1].step)

    def decide_at(self, step: int) -> str | None:
        """Why to stop at that step, None to go on."""
        return f"all {self.last_step} steps done" if step >= self.last_step else None
