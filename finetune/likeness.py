"""How near samples come to the training images: in the latents that the model works in, and as an encoder sees them.

Source: docs/method.md, section 7.
"""

from collections.abc import Iterable, Sequence
import math
from pathlib import Path

from PIL import Image
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, interpolate

from curves.likeness import Likeness
from finetune.cache import Encoded
from finetune.encoder import ImageEncoder
from finetune.images import Example, read_image

MOST_ENCODED = 64  # training images that an encoder looks at, the first of them


class LikenessMeter:
    """Measures samples against the training images of a run; costs no pass of the model."""

    def __init__(
        self, training: Encoded, held_out: Encoded, examples: Sequence[Example], encoder: Path | None
    ) -> None:
        """Prepare.

        Args:
            training: images with their variants.
            held_out: images that are not trained on; may be empty.
            examples: the training images again, as files for the encoder.
            encoder: folder of an image encoder; None for none.

        Raises:
            RequestError: the encoder's files are damaged.
        """
        self._training = [variant.mean for variants in training.latents for variant in variants]
        new = [variants[0].mean[None] for variants in held_out.latents]
        distances = [float(nearest_distance(latent, self._training)) for latent in new]
        self._held_out = round(math.fsum(distances) / len(distances), 6) if distances else None
        self._encoder = ImageEncoder(encoder) if encoder is not None else None
        self._encoded: Tensor | None = None
        if self._encoder is not None:
            pictures = [read_image(example.path) for example in examples[:MOST_ENCODED]]
            self._encoded = self._encoder.encode(pictures)

    def measure(self, step: int, latents: Tensor, images: Sequence[Image.Image]) -> Likeness:
        """The record of a step's samples.

        Args:
            step: optimizer updates.
            latents: (prompts, channels, h, w) of the samples.
            images: the samples.
        """
        distances = nearest_distance(latents.cpu().float(), self._training)
        similarity = None
        if self._encoder is not None and self._encoded is not None:
            similarity = _finite(mean_similarity(self._encoder.encode(images), self._encoded))
        name = self._encoder.name if self._encoder is not None else None
        return Likeness(step, _finite(distances), self._held_out, name, similarity)


def nearest_distance(samples: Tensor, images: Iterable[Tensor]) -> Tensor:
    """(samples,) root mean square difference to the nearest image: docs/method.md, section 7.

    Args:
        samples: (samples, channels, h, w) latents.
        images: (channels, h, w) each; one of another shape is stretched to that of the samples.
    """
    nearest = torch.full((len(samples),), math.inf)
    for image in images:
        same = image.shape == samples.shape[1:]
        fitted = image if same else interpolate(image[None], samples.shape[2:], mode="area")[0]
        distance = (samples - fitted).square().flatten(1).mean(dim=1).sqrt()
        nearest = torch.minimum(nearest, distance)
    return nearest


def mean_similarity(samples: Tensor, images: Tensor) -> Tensor:
    """(samples,) cosine similarity to the images, their mean: docs/method.md, section 7.

    Args:
        samples, images: (n, features) as an encoder sees them.
    """
    return cosine_similarity(samples[:, None], images[None], dim=-1).mean(dim=1)


def _finite(values: Tensor) -> list[float | None]:
    """Rounded to what a float32 knows; None for what a diverged model has drawn."""
    return [round(value, 6) if math.isfinite(value) else None for value in values.tolist()]
