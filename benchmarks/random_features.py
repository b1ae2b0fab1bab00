"""Loss curves with known truth, from a family that is not the posterior's: a random-feature denoiser.

A world holds a population of images, random features of noisy images, and a base: the linear readout that a ridge
regression finds on many images of a broad population. Fine-tuning takes N images of a style and follows the exact
gradient flow of the denoising loss from that base (closed form in the eigenvectors of the features' empirical
covariance; Bonnaire et al. 2025, section 4). The held-out loss is that of a panel: images of the style that were not
trained on, noise strata, fixed noise. It falls while the style is learnt and rises once the N images are memorized.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from curves.answer import Schedule
from curves.grid import evaluation_steps
from curves.posterior import Curve

Array = NDArray[np.float64]

PIXELS, LATENT, FEATURES, STRATA = 24, 5, 384, 8
PANEL_IMAGES = 12
TRAINING_ROWS = 12_000  # noisy images that stand for the expectation over noise
BASE_IMAGES = 1500
RIDGE = 3e-3  # of the base, in mean eigenvalues
IMAGE_NOISE = 0.5  # of every pixel: what nothing predicts and memorizing learns
STYLE_SPREAD = 0.6  # of a style's images, over that of the broad population
WHITENING = (
    0.25  # power of the inverse covariance that scales the features, as an adaptive optimizer does in part
)
LEAST_RATE = 1e-12
GRID = 800  # flow times at which the truth is computed
FLOW_PER_LR = (
    400.0  # flow time of one unit of lr_sum: the minimum of 20 images at 1e-4 is at some hundred steps
)


@dataclass(frozen=True)
class Panel:
    """Noisy images and the noise in them."""

    features: Array  # (rows, FEATURES)
    noise: Array  # (rows, PIXELS)


class World:
    """A population, random features of it, and a base that knows the broad population."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng([seed, 1])
        self.decode_first = random.standard_normal((LATENT, PIXELS))
        self.decode_last = random.standard_normal((PIXELS, PIXELS)) / np.sqrt(PIXELS)
        self.style = random.standard_normal(LATENT)
        self.weights = 1.5 * random.standard_normal((PIXELS, FEATURES)) / np.sqrt(PIXELS)
        self.biases = random.standard_normal((STRATA, FEATURES))  # how a feature sees the noise level
        angle = 0.5 * np.pi * (np.arange(STRATA) + 0.5) / STRATA
        self.signal, self.sigma = np.cos(angle), np.sin(angle)
        self.scale = np.eye(FEATURES)
        many = self.panel(self.images(BASE_IMAGES, False, random), 1, random)
        rates, vectors = np.linalg.eigh(_covariance(many.features))
        self.scale = (vectors * np.maximum(rates / rates[-1], 1e-4) ** -WHITENING) @ vectors.T
        self.base = _ridge(many.features @ self.scale, many.noise)  # readout (FEATURES, PIXELS)

    def images(self, count: int, of_style: bool, random: np.random.Generator) -> Array:
        """Images (count, PIXELS) of the style or of the broad population."""
        latent = random.standard_normal((count, LATENT))
        if of_style:
            latent = STYLE_SPREAD * latent + self.style
        plain = np.tanh(latent @ self.decode_first) @ self.decode_last
        return np.asarray(plain + IMAGE_NOISE * random.standard_normal((count, PIXELS)))

    def panel(self, images: Array, draws: int, random: np.random.Generator) -> Panel:
        """Every image at every stratum with `draws` noises: rows in the order image, stratum, draw."""
        noise = random.standard_normal((len(images), STRATA, draws, PIXELS))
        mixed = self.signal[:, None, None] * images[:, None, None, :] + self.sigma[:, None, None] * noise
        features = erf(mixed @ self.weights + self.biases[:, None, :]) / np.sqrt(FEATURES)
        return Panel(features.reshape(-1, FEATURES) @ self.scale, noise.reshape(-1, PIXELS))


def _covariance(features: Array) -> Array:
    return np.asarray(features.T @ features / len(features))


def _ridge(features: Array, noise: Array) -> Array:
    covariance = _covariance(features)
    ridge = RIDGE * np.trace(covariance) / FEATURES * np.eye(FEATURES)
    return np.asarray(np.linalg.solve(covariance + ridge, features.T @ noise / len(noise)))


@lru_cache(maxsize=1)
def world(seed: int) -> World:
    return World(seed)


@dataclass(frozen=True)
class Truth:
    """Held-out loss of one fine-tuning along the flow, without scatter.

    Attributes:
        lr_sum: (grid,) intrinsic time, 0 first.
        bins: (grid, strata) mean loss of each stratum.
    """

    lr_sum: Array
    bins: Array

    @property
    def loss(self) -> Array:
        return np.asarray(self.bins.mean(axis=1))

    @property
    def best(self) -> float:
        """lr_sum at the minimum; 0 where nothing improves the base."""
        return float(self.lr_sum[np.argmin(self.loss)])

    @property
    def scale(self) -> float:
        """The minimum's lr_sum, or where there is none that at which a tenth of the rise is over."""
        risen = self.loss - self.loss[0] >= 0.1 * np.ptp(self.loss)
        return self.best if self.best > 0 else float(self.lr_sum[np.argmax(risen)])

    @property
    def gain(self) -> float:
        return float(self.loss[0] - self.loss.min())

    def at(self, lr_sum: Array) -> Array:
        """Loss at other times; interpolated."""
        return np.asarray(np.interp(lr_sum, self.lr_sum, self.loss))

    def regret(self, lr_sum: float) -> float:
        """(loss - minimum) / gain."""
        return float((self.at(np.array([lr_sum]))[0] - self.loss.min()) / self.gain)


@lru_cache(maxsize=512)
def fine_tune(seed: int, images: int, *, useful: bool = True) -> Truth:
    """The flow of one world's base on that many images of its style, measured on others of the style.

    useful: otherwise measured on images of the broad population, which the base knows and forgets.
    """
    here, random = world(seed), np.random.default_rng([seed, 2, images])
    draws = max(TRAINING_ROWS // (images * STRATA), 4)
    training = here.panel(here.images(images, True, random), draws, random)
    held_out = here.panel(here.images(PANEL_IMAGES, useful, random), 1, random)
    rates, vectors = np.linalg.eigh(_covariance(training.features))
    rates = np.maximum(rates, LEAST_RATE)
    start = vectors.T @ here.base
    pull = vectors.T @ (training.features.T @ training.noise) / len(training.noise)
    seen = held_out.features @ vectors
    times = np.concatenate([[0.0], np.geomspace(1e-1 / rates[-1], 1e6 / rates[-1], GRID - 1)])
    bins = [_strata(seen, _flow(start, pull, rates, time), held_out.noise) for time in times]
    return Truth(times / FLOW_PER_LR, np.array(bins))


def _flow(start: Array, pull: Array, rates: Array, time: float) -> Array:
    """Readout at a time in the eigenbasis: start e^(-rate t) + pull (1 - e^(-rate t)) / rate."""
    left = np.exp(-rates * time)[:, None]
    return np.asarray(start * left + pull * (-np.expm1(-rates * time) / rates)[:, None])


def _strata(features: Array, readout: Array, noise: Array) -> Array:
    """Mean squared error of each stratum, (STRATA,)."""
    error = np.mean((features @ readout - noise) ** 2, axis=1)
    return np.asarray(error.reshape(-1, STRATA).mean(axis=0))


@dataclass(frozen=True)
class Trainer:
    """How a fine-tuning is run and recorded.

    Attributes:
        lr: peak learning rate.
        scatter: of an evaluation at the minimum, in gain; it grows as the root of the intrinsic time, to three times that.
        warmup: steps over which the learning rate rises.
        seed: of the scatter.
    """

    lr: float
    scatter: float
    warmup: int = 0
    seed: int = 0

    def schedule(self, horizon: int) -> Schedule:
        rates = self.lr * np.minimum((np.arange(horizon) + 1) / max(self.warmup, 1), 1.0)
        return Schedule(np.concatenate([[0.0], np.cumsum(rates)]))

    def best_step(self, truth: Truth) -> int:
        """Step of the minimum, to a whole step."""
        return max(round(truth.best / self.lr + 0.5 * max(self.warmup - 1, 0)), 1)

    def record(self, truth: Truth, last_step: int) -> Curve:
        """Step 0, a geometric grid of ratio 2^(1/4) from step 4, and last_step."""
        steps = np.array(evaluation_steps(4, 2**0.25, last_step))
        lr_sum = self.schedule(last_step).lr_sum[steps]
        random = np.random.default_rng([self.seed, last_step])
        growth = np.minimum(np.sqrt(lr_sum / truth.scale), 3.0)
        unit = truth.gain if truth.best > 0 else 0.1 * float(np.ptp(truth.loss))
        noisy = truth.at(lr_sum) + self.scatter * unit * growth * random.standard_normal(len(steps))
        return Curve(steps, lr_sum, noisy)
