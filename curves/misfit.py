"""Whether a curve is a U at all: a posterior-predictive check of its residuals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from curves.sampling import Problem, Sample
from curves.shapes import Array

MISFIT_REACH = 0.3  # gains above the minimum up to which a misfit matters: beyond it nothing is recommended
MISFIT_PROBABILITY, MISFIT_SHARE = 0.01, 0.15
REPLICAS = 400
LEAST_GAIN = 0.5


@dataclass(frozen=True)
class Misfit:
    """Posterior-predictive check: are neighbouring residuals more alike than the noise model allows?"""

    p_value: float
    share_of_gain: float  # largest smoothed residual near the bottom, in gain
    flag: bool


def check(problem: Problem, sample: Sample) -> Misfit:
    """Lag-one likeness of the mean residual against what the noise model would give."""
    linear = sample.linear
    residual = problem.loss - linear.minimum[:, None] - linear.gain[:, None] * sample.regret
    white = sample.noise.whiten(residual).mean(axis=0)
    observed = float((white[1:] * white[:-1]).sum() / max(float((white**2).sum()), 1e-300))
    p_value = float((1 + (_expected_likeness(len(white)) >= observed).sum()) / (1 + REPLICAS))
    smooth = np.convolve(residual.mean(axis=0), np.ones(3) / 3, mode="valid")
    # In units of the rough gain, so 1 but for the fit; a fit that sees none must not hide what it misses.
    gain = max(float(linear.gain.mean()), LEAST_GAIN)
    near = problem.loss - problem.loss.min() < MISFIT_REACH * gain
    share = float(np.max(np.abs(smooth) * near[1:-1], initial=0.0) / gain)
    return Misfit(p_value, share, p_value < MISFIT_PROBABILITY and share > MISFIT_SHARE)


@lru_cache(maxsize=256)
def _expected_likeness(points: int) -> Array:
    """Lag-one likeness of independent residuals, (REPLICAS,)."""
    replicas = np.random.default_rng(0).standard_normal((REPLICAS, points))
    replicas -= replicas.mean(axis=1, keepdims=True)
    return np.asarray((replicas[:, 1:] * replicas[:, :-1]).sum(axis=1) / (replicas**2).sum(axis=1))
