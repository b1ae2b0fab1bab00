"""Aspect buckets: sizes that batch, of nearly the same area, and the one that a picture belongs to."""

from hypothesis import given
from hypothesis import strategies as st
import pytest

from finetune.buckets import bucket_sizes, nearest_bucket


def test_the_buckets_of_512() -> None:
    assert bucket_sizes(512) == [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]


@given(st.integers(64, 2048), st.sampled_from([8, 16, 32, 64]), st.floats(1, 4))
def test_buckets_are_multiples_within_area_and_ratio_both_ways(side: int, step: int, ratio: float) -> None:
    sizes = bucket_sizes(side, step, ratio)
    assert (side // step * step,) * 2 in sizes
    assert sizes == sorted(set(sizes))
    for width, height in sizes:
        assert width % step == height % step == 0
        assert width * height <= side * side
        assert max(width, height) <= ratio * min(width, height)
        assert (height, width) in sizes
        # No larger one would fit.
        assert max(width, height) * (min(width, height) + step) > side * side or width == height


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_nearest_bucket_is_mirrored_with_the_picture(width: int, height: int) -> None:
    sizes = bucket_sizes(512)
    across, down = nearest_bucket(width, height, sizes)
    if width != height:
        assert nearest_bucket(height, width, sizes) == (down, across)
    assert (across, down) in sizes


def test_pictures_go_where_least_is_cut() -> None:
    sizes = bucket_sizes(512)
    shapes = {
        (100, 100): (512, 512),
        (3000, 2000): (640, 384),
        (2000, 3000): (384, 640),
        (1024, 800): (576, 448),
    }
    assert {shape: nearest_bucket(*shape, sizes) for shape in shapes} == shapes


@pytest.mark.parametrize("arguments", [(63,), (512, 0), (512, 64, 0.5)])
def test_sizes_without_a_bucket_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="no bucket"):
        bucket_sizes(*arguments)
