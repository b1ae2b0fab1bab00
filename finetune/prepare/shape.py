"""Squared and resized: crop, pad, bucket, or the shape that a picture has."""

from PIL import Image

from finetune.buckets import bucket_sizes, nearest_bucket
from finetune.images import MINIMUM_SIDE

MOST_ENLARGED = 4.0  # a picture stretched further is blur, which a model would learn
MOST_PIXELS = 64_000_000  # of a result
WHITE = (255, 255, 255)


def reshape(image: Image.Image, square: str, size: int | None) -> Image.Image:
    """An RGB image in its final shape.

    Args:
        image: upright RGB.
        square: crop (the centre square), pad (on white), bucket (the nearest aspect bucket, the rest cropped),
            none (aspect kept).
        size: pixels; of the shorter side where the aspect is kept. None keeps the scale.

    Raises:
        ValueError: it would be enlarged too much, or become too large or too thin.
    """
    if square == "pad":
        return _pad(image, size or max(image.size))
    if square == "bucket":
        assert size is not None  # Options.check holds this
        return _cover(image, *nearest_bucket(*image.size, bucket_sizes(size)))
    if square == "crop":
        return _cover(image, size or min(image.size), size or min(image.size))
    scale = 1.0 if size is None else size / min(image.size)
    return _scaled(image, scale)


def _cover(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled until it covers width x height, and its middle cut out."""
    scale = max(width / image.width, height / image.height)
    _check_scale(image, scale)
    # Cut first, so that a panorama is not enlarged whole.
    across, down = width / scale, height / scale
    left, top = (image.width - across) / 2, (image.height - down) / 2
    box = (max(0.0, left), max(0.0, top), min(left + across, image.width), min(top + down, image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box)


def _pad(image: Image.Image, side: int) -> Image.Image:
    """Scaled until it fits into a square, in the middle of white."""
    if side * side > MOST_PIXELS:
        raise ValueError(f"would become {side} x {side} pixels with its padding: give a --size")
    inner = _scaled(image, side / max(image.size))
    canvas = Image.new("RGB", (side, side), WHITE)
    canvas.paste(inner, ((side - inner.width) // 2, (side - inner.height) // 2))
    return canvas


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    _check_scale(image, scale)
    width, height = (max(1, round(side * scale)) for side in image.size)
    if min(width, height) < MINIMUM_SIDE:
        raise ValueError(
            f"is {image.width} x {image.height} pixels and would become {width} x {height}: too thin; cut it"
        )
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"is {image.width} x {image.height} pixels and would become {width} x {height}: cut it"
        )
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.LANCZOS)


def _check_scale(image: Image.Image, scale: float) -> None:
    if scale > MOST_ENLARGED:
        raise ValueError(
            f"is {image.width} x {image.height} pixels and would be enlarged {scale:.1f} times, more than "
            f"{MOST_ENLARGED:g}: use a larger image or a smaller --size"
        )
