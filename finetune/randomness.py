"""Counted randomness: every draw is a pure function of what it is for. Nothing is carried from step to step.

Philox (Salmon et al. 2011) turns a key and a counter into independent random numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
import hashlib

import numpy as np
from numpy.typing import NDArray


def generator(*purpose: str | int) -> np.random.Generator:
    """The random numbers that belong to a purpose, for example ("noise", seed, step, position)."""
    text = "|".join(str(part) for part in purpose)
    key = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def torch_seed(*purpose: str | int) -> int:
    """A seed for torch's own generator, for draws inside of modules (dropout, initial weights)."""
    return int(generator(*purpose).integers(2**62))


@dataclass(frozen=True)
class Draw:
    """The random choices of one training example.

    Attributes:
        image: index of the training image.
        timestep: in [0, training timesteps).
        noise: (channels, h, w) standard normal, added to the latent.
        latent_noise: (channels, h, w) standard normal, which sample of the VAE's posterior is taken.
        drop_caption: whether the caption is replaced by the empty one.
    """

    image: int
    timestep: int
    noise: NDArray[np.float32]
    latent_noise: NDArray[np.float32]
    drop_caption: bool


@dataclass(frozen=True)
class Draws:
    """All random choices of a run.

    Attributes:
        seed: of the run.
        images: number of training images.
        global_batch: images an update, over all micro-steps and processes.
        timesteps: of the forward process.
        shape: (channels, h, w) of a latent.
        caption_dropout: share of examples without caption.
    """

    seed: int
    images: int
    global_batch: int
    timesteps: int
    shape: Sequence[int]
    caption_dropout: float

    def at(self, step: int, position: int) -> Draw:
        """The choices for one position of the global batch of a step (the number of updates before it)."""
        random = generator("example", self.seed, step, position)
        timestep = int(random.integers(self.timesteps))
        drop = bool(random.random() < self.caption_dropout)
        noise = random.standard_normal(tuple(self.shape), dtype=np.float32)
        latent_noise = random.standard_normal(tuple(self.shape), dtype=np.float32)
        return Draw(self._image(step, position), timestep, noise, latent_noise, drop)

    def _image(self, step: int, position: int) -> int:
        """Epochs follow each other without a gap, each in an order of its own."""
        epoch, index = divmod(step * self.global_batch + position, self.images)
        return int(_order(self.seed, self.images, epoch)[index])


@lru_cache(maxsize=4)
def _order(seed: int, images: int, epoch: int) -> NDArray[np.int64]:
    return generator("order", seed, epoch).permutation(images)


def panel_shift(content: str, noise_seed: int) -> float:
    """u_i in [0, 1): the fixed shift of an image's timesteps within their strata."""
    return float(generator("panel shift", noise_seed, content).random())


def panel_noise(content: str, stratum: int, noise_seed: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """The noise of one panel entry, (channels, h, w): a function of image content and stratum alone."""
    random = generator("panel noise", noise_seed, content, stratum)
    return random.standard_normal(tuple(shape), dtype=np.float32)
