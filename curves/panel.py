"""The validation panel as data: what was measured on, its name, and the paired statistics of two measurements.

Facts only; the losses themselves are computed by the trainer (finetune/validation.py). Source: docs/method.md, section 1.
"""

from dataclasses import asdict, dataclass
import hashlib
import json

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Panel:
    """Everything that decides the step-0 loss: two panels of the same name are comparable, others are not.

    Attributes:
        images: content hashes of the held-out images.
        captions: hashes of the captions used, one an image.
        timesteps: (images, strata), each in [0, training timesteps).
        base: identity of the base model's weights.
        resolution: pixels.
        dtype: of the forward pass.
        noise_seed: of the counter-based generator, together with image content and stratum.
        shape: of the images: None for squares, buckets for rectangles of about the same area.
    """

    images: list[str]
    captions: list[str]
    timesteps: list[list[int]]
    base: str
    resolution: int
    dtype: str
    noise_seed: int = 0
    shape: str | None = None

    @property
    def name(self) -> str:
        """Hash of the content: the panel's name in every point."""
        content = {key: value for key, value in asdict(self).items() if value is not None}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def standard_error(image_loss: NDArray[np.float64]) -> float:
    """Standard error of a mean over images, the image being the cluster: sd_i / sqrt(n).

    Args:
        image_loss: (images,) one mean an image, or one paired difference an image.

    Returns:
        The standard error; NaN for fewer than two images.
    """
    count = len(image_loss)
    if count < 2:
        return float("nan")
    return float(np.std(image_loss, ddof=1) / np.sqrt(count))


def paired_difference(now: NDArray[np.float64], before: NDArray[np.float64]) -> tuple[float, float]:
    """Mean difference of two measurements of one panel and its paired standard error, clustered by image.

    docs/method.md, sections 1 and 6.

    Args:
        now: (images,) losses.
        before: (images,) losses of the same images in the same order.

    Raises:
        ValueError: the shapes differ, so they are not of one panel.
    """
    if now.shape != before.shape:
        raise ValueError(f"losses of {now.shape} and {before.shape} images are not of one panel")
    difference = now - before
    return float(np.mean(difference)), standard_error(difference)
