"""For calibration sweeps: go on until the minimum has surely been passed and no curve is left censored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from curves.posterior import FEWEST_POINTS, TimePrior
from curves.stopping.appraisal import Appraisal, Outlook, appraise
from curves.stopping.base import EvaluationRule


@dataclass
class PosteriorBased(EvaluationRule):
    """What the rules that fit the curve share.

    time_prior_median, time_prior_log_sd: prior of the lr_sum at the minimum (None: half of the horizon, wide).
    least_evaluations: below or at so many nothing is decided. futility: stop where P(gain > 0) falls below it, after
    futility_evaluations and futility_share of the horizon. appraiser: what fits; a replay remembers its answers.
    """

    time_prior_median: float | None = None
    time_prior_log_sd: float = 1.5
    least_evaluations: int = 4
    futility: float = 0.05
    futility_evaluations: int = 8
    futility_share: float = 0.1
    appraiser: Callable[[Outlook], Appraisal] = field(
        default_factory=lambda: appraise, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        median = self.time_prior_median
        self._require("time_prior_median", median is None or median > 0, "positive, or null")
        self._require("time_prior_log_sd", self.time_prior_log_sd > 0, "positive")
        for name in ("futility", "futility_share"):
            self._require(name, 0 <= getattr(self, name) <= 1, "between 0 and 1")

    def decide(self) -> str | None:
        """Fit once there is enough to fit: futility first, then the rule where a gain is established."""
        # Distinct times: a warm-up from zero can leave several evaluations at lr_sum 0.
        if len({e.lr_sum for e in self.finite}) <= max(self.least_evaluations, FEWEST_POINTS):
            return None
        if not self.gain_is_established() and len(self.finite) < self.futility_evaluations:
            return None
        appraisal = self.appraiser(self.outlook())
        if self.is_futile(appraisal):
            return f"no gain to be expected: P(gain > 0) = {appraisal.probability_of_gain:.3f}"
        return self.judge(appraisal) if self.gain_is_established() else None

    @abstractmethod
    def judge(self, appraisal: Appraisal) -> str | None:
        """Why to stop, given that the kept checkpoint beats the base model."""

    def outlook(self) -> Outlook:
        """The curve so far, where it may go, and the prior."""
        prior = (
            None
            if self.time_prior_median is None
            else TimePrior(self.time_prior_median, self.time_prior_log_sd)
        )
        return Outlook(self.curve(), self.horizon_steps, self.horizon_lr_sum, prior)

    def gain_is_established(self) -> bool:
        """Paired improvement over step 0 above 2 standard errors, clustered by image, at any evaluation so far.

        At any, since images part ways as a run goes on: the best checkpoint's error can outgrow its improvement, and
        a rule that asked again would then let a run climb its wall. Without image losses, the scatter of neighbouring
        evaluations stands in for the error.
        """
        curve = self.curve()
        if len(curve.loss) < 2:
            return False
        if curve.image_loss is not None and curve.image_loss.shape[1] > 1:
            difference = curve.image_loss[0] - curve.image_loss[1:]
            error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
            return bool((difference.mean(axis=1) > 2 * error).any())
        scatter = (
            np.median(np.abs(np.diff(curve.loss, 2))) / np.sqrt(6) * 1.4826 if len(curve.loss) > 2 else np.inf
        )
        return bool(curve.loss[0] - curve.loss.min() > 2 * scatter)

    def is_futile(self, appraisal: Appraisal) -> bool:
        """No gain in sight, past the first transient: worse than the start, and not on the way down."""
        finite = self.finite
        if len(finite) < self.futility_evaluations or appraisal.probability_of_gain >= self.futility:
            return False
        if finite[-1].lr_sum < self.futility_share * self.horizon_lr_sum:
            return False
        recent = [e.val_loss for e in finite[-4:]]
        return min(recent) > finite[0].val_loss and max(recent[2:]) >= min(recent[:2])


@dataclass
class Evidence(PosteriorBased):
    """confidence: stop when P(this step lies past the minimum) reaches it, and the rise is there to be seen.

    rise: gains above the best evaluation that the last two must both lie. A flat bottom wobbles by a few percent of gain,
    and a rule that looks at every evaluation would sooner or later take a wobble for the rise.
    """

    name: ClassVar[str] = "evidence"

    confidence: float = 0.95
    rise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("confidence", 0 < self.confidence < 1, "between 0 and 1")
        self._require("rise", self.rise >= 0, "0 or more")

    def judge(self, appraisal: Appraisal) -> str | None:
        """P(s_n > s*) against the confidence, with the gain sure as well and the rise seen."""
        sure = min(appraisal.probability_passed, appraisal.probability_of_gain) >= self.confidence
        if sure and self.has_risen():
            return f"the minimum is passed: P = {appraisal.probability_passed:.2f}"
        return None

    def has_risen(self) -> bool:
        """Whether the last two evaluations both lie `rise` of the observed gain above the best."""
        losses = [evaluation.val_loss for evaluation in self.finite]
        lowest = min(losses)
        return min(losses[-2:]) >= lowest + self.rise * (losses[0] - lowest)
