"""How an image becomes the pixels that are trained on: which rectangle, at which size, mirrored or not. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from conf.schema import Augmentation
from finetune.buckets import nearest_bucket
from finetune.randomness import generator

Size = tuple[int, int]  # (width, height) in pixels


@dataclass(frozen=True)
class Variant:
    """One way of cutting an image; each is encoded once and cached, since a latent cannot be cropped or mirrored.

    Attributes:
        size: of the result.
        across, down: where the rectangle lies in what the image has to spare, 0 for left or top, 1 for right or bottom.
        mirrored: left to right.
    """

    size: Size
    across: float = 0.5
    down: float = 0.5
    mirrored: bool = False

    @property
    def name(self) -> str:
        """Of its file in the cache."""
        if (self.across, self.down, self.mirrored) == (0.5, 0.5, False):
            return "centre"
        return f"{self.across:.4f}-{self.down:.4f}-{'mirrored' if self.mirrored else 'plain'}"


def variants(content: str, size: Size, augmentation: Augmentation) -> list[Variant]:
    """The variants of an image that training draws from: the same ones in every run.

    Args:
        content: hash of the image.
        size: of the result.
        augmentation: of the configuration.
    """
    random = generator("crops", content)
    places = [(0.5, 0.5)]
    if augmentation.crops > 1:
        places = [(float(random.random()), float(random.random())) for _ in range(augmentation.crops)]
    mirrored = (False, True) if augmentation.flip else (False,)
    return [Variant(size, across, down, side) for across, down in places for side in mirrored]


def box(original: Size, variant: Variant) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the largest rectangle of the variant's shape, in pixels of the original."""
    width, height = variant.size
    scale = min(original[0] / width, original[1] / height)
    wide, high = min(original[0], round(width * scale)), min(original[1], round(height * scale))
    left = _place(original[0] - wide, variant.across)
    top = _place(original[1] - high, variant.down)
    return left, top, left + wide, top + high


def _place(spare: int, share: float) -> int:
    return spare // 2 if share == 0.5 else round(spare * share)


def crop_corner(original: Size, variant: Variant) -> tuple[int, int]:
    """(top, left) of the rectangle in pixels of the image as it is resized and mirrored, which SDXL is told."""
    left, top, right, _ = box(original, variant)
    scale = variant.size[0] / (right - left)
    cut = original[0] - right if variant.mirrored else left
    return round(top * scale), round(cut * scale)


def pixels(image: Image.Image, variant: Variant) -> NDArray[np.float32]:
    """The variant of an RGB image as (3, height, width) in [-1, 1]."""
    cut = image.crop(box(image.size, variant))
    resized = cut.resize(variant.size, Image.Resampling.LANCZOS)
    turned = ImageOps.mirror(resized) if variant.mirrored else resized
    array = np.asarray(turned, dtype=np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(array / np.float32(127.5) - np.float32(1.0))


def upright_size(image: Image.Image) -> Size:
    """Size of an image file once it is turned as its EXIF orientation says; reads the header alone."""
    turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    return (image.height, image.width) if turned else image.size


def training_size(original: Size, side: int, buckets: Sequence[Size]) -> Size:
    """The size that an image is trained at: the bucket nearest in shape, or a square where there are none."""
    return nearest_bucket(*original, buckets) if buckets else (side, side)
