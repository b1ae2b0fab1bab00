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
        variant: index of the crop or mirror image of it.
        timestep: in [0, training timesteps).
        noise: (channels, h, w) standard normal but for an offset of its channels, added to the latent.
        latent_noise: (channels, h, w) standard normal, which sample of the VAE's posterior is taken.
        drop_caption: whether the caption is replaced by the empty one.
    """

    image: int
    variant: int
    timestep: int
    noise: NDArray[np.float32]
    latent_noise: NDArray[np.float32]
    drop_caption: bool


@dataclass(frozen=True)
class Images:
    """What the draws have to know of a set of images.

    Attributes:
        shapes: (channels, h, w) of each image's latent.
        variants: how many each image has.
        repeats: how often a pass over the set takes each image.
    """

    shapes: Sequence[tuple[int, ...]]
    variants: Sequence[int]
    repeats: Sequence[int]

    def groups(self) -> list[list[int]]:
        """Image indexes by shape, in order of first occurrence, each as often as a pass takes it."""
        found: dict[tuple[int, ...], list[int]] = {}
        for index, (shape, repeats) in enumerate(zip(self.shapes, self.repeats, strict=True)):
            found.setdefault(shape, []).extend([index] * repeats)
        return list(found.values())


class Draws:
    """All random choices of a run for one of its sets of images."""

    def __init__(
        self,
        seed: int,
        images: Images,
        batch_size: int,
        micro_batches: int,
        timesteps: int,
        logit_normal: bool = False,
        caption_dropout: float = 0.0,
        noise_offset: float = 0.0,
        purpose: str = "example",
    ) -> None:
        """Prepare.

        Args:
            seed: of the run.
            images: that are drawn from.
            batch_size: images of a micro-batch, which are all of one shape.
            micro_batches: in an update, over all micro-steps and processes.
            timesteps: of the forward process.
            logit_normal: middle timesteps more often (Esser et al. 2024, section 3.1), instead of all alike.
            caption_dropout: share of examples without caption.
            noise_offset: standard deviation of what is added to all pixels of a channel of the noise.
            purpose: tells sets apart that are drawn from in one run.
        """
        self.seed = seed
        self.images = images
        self.batch_size = batch_size
        self.global_batch = batch_size * micro_batches
        self.timesteps = timesteps
        self.logit_normal = logit_normal
        self.caption_dropout = caption_dropout
        self.noise_offset = noise_offset
        self.purpose = purpose
        self._groups = images.groups()

    def at(self, step: int, position: int) -> Draw:
        """The choices for one position of the global batch of a step (the number of updates before it)."""
        image = self._image(step, position)
        shape = self.images.shapes[image]
        random = generator(self.purpose, self.seed, step, position)
        timestep = self._timestep(random)
        drop = bool(random.random() < self.caption_dropout)
        noise = random.standard_normal(shape, dtype=np.float32)
        latent_noise = random.standard_normal(shape, dtype=np.float32)
        variant = int(random.integers(self.images.variants[image]))
        if self.noise_offset:
            noise += np.float32(self.noise_offset) * random.standard_normal(
                (shape[0], 1, 1), dtype=np.float32
            )
        return Draw(image, variant, timestep, noise, latent_noise, drop)

    def _timestep(self, random: np.random.Generator) -> int:
        if not self.logit_normal:
            return int(random.integers(self.timesteps))
        share = 1 / (1 + np.exp(-random.standard_normal()))
        return min(int(share * self.timesteps), self.timesteps - 1)

    def _image(self, step: int, position: int) -> int:
        """Passes over each shape's images follow each other without a gap, each in an order of its own."""
        micro_batch, place = divmod(step * self.global_batch + position, self.batch_size)
        group, count = self._group(micro_batch)
        members = self._groups[group]
        epoch, index = divmod(count * self.batch_size + place, len(members))
        purpose = "order" if self.purpose == "example" and not group else f"order of {self.purpose} {group}"
        return members[int(_order(purpose, self.seed, len(members), epoch)[index])]

    def _group(self, micro_batch: int) -> tuple[int, int]:
        """Whose turn a micro-batch is, and how many that group had before: as many of a round as it has images."""
        if len(self._groups) == 1:
            return 0, micro_batch
        sizes = [len(members) for members in self._groups]
        period, index = divmod(micro_batch, sum(sizes))
        order = _order(f"turns of {self.purpose}", self.seed, sum(sizes), period)
        turns = np.repeat(np.arange(len(sizes)), sizes)[order]
        group = int(turns[index])
        return group, period * sizes[group] + int(np.count_nonzero(turns[:index] == group))


@lru_cache(maxsize=64)
def _order(purpose: str, seed: int, images: int, epoch: int) -> NDArray[np.int64]:
    return generator(purpose, seed, epoch).permutation(images)


def panel_shift(content: str, noise_seed: int) -> float:
    """u_i in [0, 1): the fixed shift of an image's timesteps within their strata."""
    return float(generator("panel shift", noise_seed, content).random())


def panel_noise(content: str, stratum: int, noise_seed: int, shape: Sequence[int]) -> NDArray[np.float32]:
    """The noise of one panel entry, (channels, h, w): a function of image content and stratum alone."""
    random = generator("panel noise", noise_seed, content, stratum)
    return random.standard_normal(tuple(shape), dtype=np.float32)
