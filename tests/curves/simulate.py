"""Curves with known truth, from a family that is not the model's own: gradient flow on a spectrum drawn by hand.

Made in no time; benchmarks/random_features.py computes a real denoiser's. The spectrum has two bulks (Bonnaire et al.
2025): population directions, learned early, and memorisation directions, whose rates fall as 1/images. Exact gradient flow
learns signal and noise of each direction at the rate of its eigenvalue, so the held-out loss is a sum over directions of
bias and variance (Advani and Saxe 2017, section 3): it falls, then rises, and the minimum moves later with the number of
images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from curves.answer import Schedule
from curves.posterior import Curve

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Denoiser:
    """Spectrum of one random-feature regression."""

    rates: Array  # (directions,) eigenvalues of the empirical kernel
    signal: Array  # (directions,) squared distance of the start to the target
    variance: (
        Array  # (directions,) squared distance of the end to the target: label noise through the inverse
    )

    def loss(self, time: Array) -> Array:
        """Population loss of the flow at times (points,), floor 0."""
        left = np.exp(-np.outer(time, self.rates))
        result: Array = left**2 @ self.signal + (1 - left) ** 2 @ self.variance
        return result

    def minimum(self) -> tuple[float, float]:
        """Time and loss at the minimum; time 0 when the loss only rises."""
        times = np.concatenate([[0.0], np.geomspace(1e-3, 1e4, 3000) / self.rates.max()])
        loss = self.loss(times)
        best = int(np.argmin(loss))
        return float(times[best]), float(loss[best])


def denoiser(seed: int, images: int = 20, noise: float = 1.0, directions: int = 200) -> Denoiser:
    """A random denoiser on that many images.

    Population rates fall as a power of the index and carry the signal; memorisation rates are log-normal
    around 1/images and carry noise^2 times a few gains of variance.
    """
    random = np.random.default_rng(seed)
    decay, source = random.uniform(0.5, 1.5), random.uniform(0.8, 1.6)
    index = np.arange(1, directions + 1)
    population = index**-decay * np.exp(0.2 * random.standard_normal(directions))
    signal = index**-source * random.chisquare(2, directions)
    signal /= signal.sum()
    scatter = random.uniform(0.3, 1.0) * random.standard_normal(directions)
    memorised = random.uniform(0.2, 0.6) / images * np.exp(scatter)
    wall = noise**2 * random.uniform(4, 30) * random.chisquare(2, directions) / (2 * directions)
    zeros = np.zeros(directions)
    return Denoiser(
        np.concatenate([population, memorised]),
        np.concatenate([signal, zeros]),
        np.concatenate([zeros, wall]),
    )


def record(
    loss: Array,
    steps: NDArray[np.int64],
    lr: float,
    *,
    gain: float,
    noise_share: float = 0.02,
    noise_growth: float = 0.5,
    seed: int = 0,
    level: float = 0.05,
    pivot_step: float = 300.0,
) -> Curve:
    """A recorded curve: latent loss (n,) at steps, scatter of noise_share of gain growing with the step."""
    random = np.random.default_rng(seed)
    growth = (np.maximum(steps, 1) / pivot_step) ** noise_growth
    deviation = gain * noise_share * np.minimum(growth, 3) * (steps > 0)
    noisy = level + loss + deviation * random.standard_normal(len(steps))
    return Curve(steps, steps * float(lr), noisy)


def evaluation_steps(last: int, first: int = 4) -> NDArray[np.int64]:
    """Step 0 and whole steps on a geometric grid of ratio 2^(1/4)."""
    count = int(np.floor(4 * np.log2(last / first))) + 1
    return np.unique(np.concatenate([[0], np.round(first * 2 ** (np.arange(count) / 4))])).astype(np.int64)


def constant_schedule(lr: float, horizon: int) -> Schedule:
    """lr at every step."""
    return Schedule(lr * np.arange(horizon + 1, dtype=float))


@dataclass(frozen=True)
class Truth:
    """What is known of a simulated run."""

    step: int
    lr_sum: float
    gain: float
    source: Denoiser

    def regret(self, step: float) -> float:
        """Regret in gain of stopping at step."""
        time, lowest = self.source.minimum()
        return float((self.source.loss(np.array([time * step / self.step]))[0] - lowest) / self.gain)

    def window(self) -> tuple[int, int]:
        """First and last step whose regret is at most 0.05."""
        time, lowest = self.source.minimum()
        steps = np.arange(1, 6 * self.step, max(self.step // 100, 1))
        within = steps[self.source.loss(time * steps / self.step) - lowest <= 0.05 * self.gain]
        return int(within[0]), int(within[-1])


def simulated(seed: int, *, cut: float, lr: float = 1e-4, noise_share: float = 0.02) -> tuple[Curve, Truth]:
    """A run recorded up to cut times the step of its minimum, and its truth."""
    random = np.random.default_rng(seed)
    source = denoiser(seed, images=int(random.choice([5, 10, 20, 50, 200])), noise=random.uniform(0.7, 1.3))
    time, lowest = source.minimum()
    gain = float(source.loss(np.zeros(1))[0] - lowest)
    step = int(np.exp(random.uniform(np.log(100), np.log(2000))))
    steps = evaluation_steps(int(cut * step))
    latent = source.loss(steps * time / step)
    curve = record(latent, steps, lr, gain=gain, noise_share=noise_share, seed=seed, pivot_step=step)
    return curve, Truth(step, step * lr, gain, source)
