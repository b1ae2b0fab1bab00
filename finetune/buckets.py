"""Aspect buckets: the few image sizes that pictures of any shape are brought to, so that they batch."""

from collections.abc import Sequence
import math


def bucket_sizes(area_side: int, step: int = 64, max_ratio: float = 2.0) -> list[tuple[int, int]]:
    """The sizes of about `area_side`^2 pixels, and never more, that images may take.

    Args:
        area_side: side of the square with the same area, pixels; at least `step`.
        step: every side is a multiple of it, pixels.
        max_ratio: of the longer to the shorter side, at least 1.

    Returns:
        (width, height) pairs by rising width; the square is always one, and with (w, h) there is (h, w).

    Raises:
        ValueError: no size fits.
    """
    if step < 1 or area_side < step or max_ratio < 1:
        raise ValueError(
            f"no bucket of {area_side}^2 pixels has sides that are multiples of {step} and a ratio up to {max_ratio}"
        )
    side = area_side // step * step
    sizes = {(side, side)}
    for long in range(side, int(area_side * math.sqrt(max_ratio)) + step + 1, step):
        short = area_side * area_side // long // step * step
        if short and short <= long <= short * max_ratio:
            sizes |= {(long, short), (short, long)}
    return sorted(sizes)


def nearest_bucket(width: int, height: int, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket whose shape is nearest to an image's; of equal shapes the larger one.

    Shapes are compared by the logarithm of width over height, so that 2:1 and 1:2 are equally far from a square.
    """
    shape = math.log(width / height)
    return min(buckets, key=lambda size: (abs(math.log(size[0] / size[1]) - shape), -size[0] * size[1], size))
