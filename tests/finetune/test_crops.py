"""Crops, mirror images and what the cache holds of them."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import numpy as np
from numpy.typing import NDArray
from PIL import Image
import pytest
import torch

from conf.schema import Augmentation
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.batches import Source
from finetune.cache import ContentCache
from finetune.crops import Variant, box, crop_corner, pixels, training_size, upright_size, variants
from finetune.images import Example, pixel_hash, read_image
from finetune.randomness import Draws, Images
from tests.finetune.tiny_sdxl import make_sdxl

SIDES = st.integers(16, 3000)
SIZES = st.tuples(st.integers(1, 32), st.integers(1, 32)).map(lambda size: (8 * size[0], 8 * size[1]))
SHARES = st.just(0.5) | st.floats(0, 1)
BOTH = Augmentation(flip=True, crops=2)


def noisy_image(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def centre_square(image: Image.Image, side: int) -> NDArray[np.float32]:
    """What a square of the centre has always been; cached latents and curves of earlier versions rest on it."""
    length = min(image.size)
    left, top = (image.width - length) // 2, (image.height - length) // 2
    square = image.crop((left, top, left + length, top + length))
    resized = square.resize((side, side), Image.Resampling.LANCZOS)
    array = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(array / np.float32(127.5) - np.float32(1.0))


@given(original=st.tuples(SIDES, SIDES), size=SIZES, across=SHARES, down=SHARES)
def test_the_rectangle_lies_in_the_image_and_is_the_largest_of_its_shape(
    original: tuple[int, int], size: tuple[int, int], across: float, down: float
) -> None:
    left, top, right, bottom = box(original, Variant(size, across, down))
    assert 0 <= left < right <= original[0]
    assert 0 <= top < bottom <= original[1]
    assert right - left == original[0] or bottom - top == original[1]
    scale = min(original[0] / size[0], original[1] / size[1])
    assert abs((right - left) - size[0] * scale) <= 0.5 + 1e-6
    assert abs((bottom - top) - size[1] * scale) <= 0.5 + 1e-6


@given(original=st.tuples(SIDES, SIDES), size=SIZES)
def test_the_ends_of_the_spare_room_are_the_edges(original: tuple[int, int], size: tuple[int, int]) -> None:
    assert box(original, Variant(size, 0.0, 0.0))[:2] == (0, 0)
    assert box(original, Variant(size, 1.0, 1.0))[2:] == original


@given(width=st.integers(16, 60), height=st.integers(16, 60), side=st.sampled_from([8, 24, 40]))
def test_the_centre_is_the_old_square(width: int, height: int, side: int) -> None:
    image = noisy_image(width, height)
    assert np.array_equal(pixels(image, Variant((side, side))), centre_square(image, side))


def test_the_centre_square_is_taken() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    array = pixels(Image.fromarray(wide), Variant((8, 8)))
    assert array.shape == (3, 8, 8)
    assert np.all(array == 1.0)


def test_a_mirror_image_is_the_same_rectangle_left_to_right() -> None:
    image = noisy_image(50, 30)
    plain, mirrored = (pixels(image, Variant((24, 16), 0.2, 0.9, side)) for side in (False, True))
    assert plain.shape == (3, 16, 24)
    assert np.array_equal(mirrored, plain[:, :, ::-1])


@given(content=st.text(max_size=9), crops=st.integers(1, 5), flip=st.booleans())
def test_variants_are_the_same_for_the_same_content(content: str, crops: int, flip: bool) -> None:
    augmentation = Augmentation(flip=flip, crops=crops)
    found = variants(content, (24, 16), augmentation)
    assert found == variants(content, (24, 16), augmentation)
    assert len(found) == crops * (1 + flip)
    assert len({variant.name for variant in found}) == len(found)
    if crops == 1:
        assert found[0].name == "centre"
    else:
        assert found != variants(content + "x", (24, 16), augmentation)
    if flip:
        assert [variant.mirrored for variant in found] == [False, True] * crops


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_photo_has_its_upright_size(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    noisy_image(48, 32).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        assert upright_size(image) == read_image(tmp_path / "turned.png").size
        assert upright_size(image) == ((48, 32) if orientation < 5 else (32, 48))


def test_an_image_takes_the_bucket_of_its_shape() -> None:
    buckets = [(24, 40), (32, 32), (40, 24)]
    assert training_size((500, 300), 32, buckets) == (40, 24)
    assert training_size((300, 500), 32, buckets) == (24, 40)
    assert training_size((300, 290), 32, buckets) == (32, 32)
    assert training_size((500, 300), 32, []) == (32, 32)


@pytest.mark.parametrize(
    ("original", "variant", "corner"),
    [
        ((64, 32), Variant((32, 32)), (0, 16)),
        ((32, 64), Variant((32, 32)), (16, 0)),
        ((128, 64), Variant((32, 32)), (0, 16)),  # 32 pixels of the file are 16 of the image as resized
        ((128, 64), Variant((32, 32), 1.0, 1.0), (0, 32)),
        ((40, 40), Variant((32, 32)), (0, 0)),
        ((64, 32), Variant((32, 32), 0.0, 0.0), (0, 0)),
        ((64, 32), Variant((32, 32), 0.0, 0.0, mirrored=True), (0, 32)),  # the cut side is now the left one
    ],
)
def test_sdxl_is_told_the_corner_in_the_image_as_resized_and_mirrored(
    original: tuple[int, int], variant: Variant, corner: tuple[int, int]
) -> None:
    assert crop_corner(original, variant) == corner


@pytest.fixture
def example(tmp_path: Path) -> Example:
    noisy_image(60, 40).save(tmp_path / "photo.png")
    return Example(tmp_path / "photo.png", "a box", pixel_hash(tmp_path / "photo.png"))


@pytest.fixture
def backbone(pipeline: Path, tmp_path: Path) -> Backbone:
    return Backbone(find_base(str(pipeline), tmp_path), torch.device("cpu"))


def test_a_cached_variant_is_the_encoded_variant(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    """A latent that is mirrored is not the latent of the mirror image."""
    cache, image = ContentCache(tmp_path, backbone, 32), read_image(example.path)
    for _ in range(2):  # encoded, and from the cache
        latents = cache.latents(example, BOTH)
        assert len(latents) == 4
        for latent, variant in zip(latents, variants(example.content, (32, 32), BOTH), strict=True):
            mean, std = backbone.scale(*backbone.encode_image(torch.from_numpy(pixels(image, variant))))
            assert torch.equal(latent.mean, mean)
            assert torch.equal(latent.std, std)
    assert not torch.allclose(latents[1].mean, latents[0].mean.flip(-1), atol=1e-3)
    assert not torch.allclose(latents[2].mean, latents[0].mean, atol=1e-3)


def test_every_step_draws_its_latent_and_its_variant(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    encoded = ContentCache(tmp_path, backbone, 32).encode([example], BOTH)
    draws = Draws(0, Images([encoded.shape(0)], [4], [1]), batch_size=1, micro_batches=1, timesteps=1000)
    source, used = Source(encoded, draws), set()
    for step in range(20):
        draw, batch = draws.at(step, 0), source.batch(step, 0, torch.device("cpu"))
        latent = encoded.latents[0][draw.variant]
        drawn = latent.mean + latent.std * torch.from_numpy(draw.latent_noise)
        assert torch.equal(batch.latents[0], drawn)
        assert latent.std.min() > 0
        used.add(draw.variant)
    assert used == {0, 1, 2, 3}


def test_sdxl_learns_with_each_variant_its_own_sizes(example: Example, tmp_path: Path) -> None:
    sdxl = Backbone(find_base(str(make_sdxl(tmp_path / "sdxl")), tmp_path), torch.device("cpu"))
    latents = ContentCache(tmp_path, sdxl, 32).latents(example, BOTH)
    for latent, variant in zip(latents, variants(example.content, (32, 32), BOTH), strict=True):
        top, left = crop_corner((60, 40), variant)
        assert latent.sizes["sizes"].tolist() == [40, 60, top, left, 32, 32]
    assert latents[0].sizes["sizes"].tolist() != latents[2].sizes["sizes"].tolist()
