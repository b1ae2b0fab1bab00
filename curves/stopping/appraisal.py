"""What the fitted curve says at one evaluation: all that the rules that fit it decide by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from curves.posterior import Curve, CurvePosterior, TimePrior, fit

DRAWS, AHEAD = 400, 32


@dataclass(frozen=True)
class Outlook:
    """What is fitted and where the run may still go. Equal ones have equal appraisals.

    curve: finite evaluations so far, step 0 first; horizon_steps, horizon_lr_sum: of the budget;
    time_prior: of the lr_sum at the minimum, None for the wide one.
    """

    curve: Curve
    horizon_steps: int
    horizon_lr_sum: float
    time_prior: TimePrior | None = None


@dataclass(frozen=True)
class Appraisal:
    """At the latest evaluation.

    probability_of_gain: P(some step is better than the base).
    probability_passed: P(the minimum lies before this step).
    worth: the price of the whole horizon, in gain, up to which going on pays.
    """

    probability_of_gain: float
    probability_passed: float
    worth: float


def appraise(outlook: Outlook) -> Appraisal:
    """Fit the curve so far; tens of milliseconds."""
    posterior = fit(outlook.curve, horizon_lr_sum=outlook.horizon_lr_sum, time_prior=outlook.time_prior)
    return Appraisal(posterior.probability_of_gain, posterior.probability_passed(), worth(posterior, outlook))


def worth(posterior: CurvePosterior, outlook: Outlook) -> float:
    """max over later steps h of E[(loss of the best checkpoint - min over s_(n+1)..h of f)+ / gain] / ((h - s_n)/H).

    docs/method.md, section 4.

    The best checkpoint's loss is the recorded one: it is known, luck and all, whereas what is still to come is the
    latent curve f. Taking f there as well would hope for a loss that the run has had already. 0 at the horizon.
    """
    curve = outlook.curve
    now, before = int(curve.steps[-1]), int(curve.steps[-2])
    steps_left = outlook.horizon_steps - now
    if steps_left <= 0:
        return 0.0
    # The next evaluation is at least as far away as the last one was; from there to the horizon.
    share = np.geomspace(min((now - before) / steps_left, 1.0), 1.0, AHEAD)
    # What is left of the learning rate is spread evenly over the steps left.
    lr_sum = float(curve.lr_sum[-1])
    lr_left = max(outlook.horizon_lr_sum - lr_sum, 1e-3 * lr_sum)
    latent, gain = posterior.draws(lr_sum + share * lr_left, DRAWS)
    lowest = np.minimum.accumulate(latent, axis=1)
    # In units of each draw's own gain: early on a few draws have a gain so large that its mean says nothing.
    better = np.maximum(float(curve.loss.min()) - lowest, 0.0) / np.maximum(gain, 1e-300)[:, None]
    return float(np.max(better.mean(axis=0) / (share * steps_left / outlook.horizon_steps)))
