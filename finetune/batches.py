"""Training examples as batches: which ones a step takes is drawn by count, what they hold comes from the cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from finetune.cache import Encoded
from finetune.families.base import Conditioning, stack
from finetune.randomness import Draws


@dataclass(frozen=True)
class Batch:
    """Examples on the training device.

    Attributes:
        latents, noise: (batch, channels, h, w).
        timesteps: (batch,) whole numbers.
        given: conditioning.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    given: Conditioning

    def joined(self, other: Self) -> Self:
        """The examples of both, these first."""
        return type(self)(
            torch.cat([self.latents, other.latents]),
            torch.cat([self.noise, other.noise]),
            torch.cat([self.timesteps, other.timesteps]),
            {name: torch.cat([value, other.given[name]]) for name, value in self.given.items()},
        )


@dataclass(frozen=True)
class Source:
    """A set of encoded images and the draws from it."""

    encoded: Encoded
    draws: Draws

    def batch(self, step: int, first: int, device: torch.device) -> Batch:
        """A micro-batch; every step draws its latents anew from mean and deviation.

        Args:
            step: updates before it.
            first: its first position in the global batch of the step.
            device: to put it on.
        """
        draws = [self.draws.at(step, first + index) for index in range(self.draws.batch_size)]
        encoded = self.encoded
        chosen = [encoded.latents[draw.image][draw.variant] for draw in draws]
        noise = torch.from_numpy(np.stack([draw.noise for draw in draws]))
        latent_noise = torch.from_numpy(np.stack([draw.latent_noise for draw in draws]))
        mean, std = _stacked([latent.mean for latent in chosen]), _stacked([latent.std for latent in chosen])
        latents = mean + std * latent_noise
        given = [
            (encoded.empty if draw.drop_caption else encoded.texts[draw.image]) | latent.sizes
            for draw, latent in zip(draws, chosen, strict=True)
        ]
        timesteps = torch.tensor([draw.timestep for draw in draws])
        return Batch(latents.to(device), noise.to(device), timesteps.to(device), stack(given, device))


def _stacked(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(tensors))
