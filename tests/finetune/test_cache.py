"""The cache: what it holds, that it survives damage and that several may write it at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline
import pytest
import torch

from conf.schema import Captions, Dataset
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.cache import ContentCache, Encoded, remembered
from finetune.crops import Variant, pixels
from finetune.images import Example, read_folder, read_image


@pytest.fixture
def example(images: Path, tmp_path: Path) -> Example:
    return read_folder(Dataset(name="boxes", path=str(images)), Captions(name="file"), tmp_path)[0][0]


@pytest.fixture
def backbone(pipeline: Path, tmp_path: Path) -> Backbone:
    return Backbone(find_base(str(pipeline), tmp_path), torch.device("cpu"))


def assert_equal(first: Encoded, second: Encoded) -> None:
    [[one]], [[other]] = first.latents, second.latents
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.std, other.std)
    assert torch.equal(first.texts[0]["text_encoder"], second.texts[0]["text_encoder"])
    assert torch.equal(first.empty["text_encoder"], second.empty["text_encoder"])


def test_it_holds_what_the_pipeline_computes(
    example: Example, backbone: Backbone, pipeline: Path, tmp_path: Path
) -> None:
    encoded = ContentCache(tmp_path, backbone, 32).encode([example])
    reference = StableDiffusionPipeline.from_pretrained(pipeline)
    image = torch.from_numpy(pixels(read_image(example.path), Variant((32, 32))))[None]
    with torch.no_grad():
        posterior = reference.vae.encode(image).latent_dist
        text, empty = reference.encode_prompt(example.caption, torch.device("cpu"), 1, True)
    [[latent]] = encoded.latents
    torch.testing.assert_close(latent.mean[None], posterior.mean * 0.5)
    torch.testing.assert_close(latent.std[None], posterior.std * 0.5)
    torch.testing.assert_close(encoded.texts[0]["text_encoder"][None], text)
    torch.testing.assert_close(encoded.empty["text_encoder"][None], empty)


def test_a_second_run_needs_neither_vae_nor_text_encoder(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    first = ContentCache(tmp_path, backbone, 32).encode([example])
    fresh = Backbone(backbone.files, torch.device("cpu"))
    second = ContentCache(tmp_path, fresh, 32).encode([example])
    assert "vae" not in vars(fresh)
    assert not fresh._text
    assert_equal(first, second)


def test_sizes_and_contents_have_files_of_their_own(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    for side in (24, 32):
        ContentCache(tmp_path, backbone, side).encode([example])
    found = sorted(path.parent.name for path in (tmp_path / backbone.files.base_id).rglob("*.safetensors"))
    assert found == ["centre", "centre", "text_encoder", "text_encoder"]
    folders = sorted(path.name for path in (tmp_path / backbone.files.base_id).iterdir())
    assert folders == ["latents-24x24", "latents-32x32", "text_encoder"]


def test_a_damaged_file_is_computed_again(example: Example, backbone: Backbone, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, backbone, 32)
    first = cache.encode([example])
    for path in (tmp_path / backbone.files.base_id).rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    assert_equal(cache.encode([example]), first)


def test_writers_at_once_leave_whole_files_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "shared" / "entry.safetensors"
    tensor = torch.arange(50_000.0)

    def use(_: Any) -> bool:
        return torch.equal(remembered(path, lambda: {"value": tensor})["value"], tensor)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            assert all(pool.map(use, range(16)))
            path.unlink()
    assert list(path.parent.iterdir()) == []
