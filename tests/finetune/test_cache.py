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
from finetune.cache import ContentCache, remembered
from finetune.images import Example, read_folder, read_image, square_pixels


@pytest.fixture
def example(images: Path, tmp_path: Path) -> Example:
    return read_folder(Dataset(name="boxes", path=str(images)), Captions(name="file"), tmp_path)[0][0]


@pytest.fixture
def backbone(pipeline: Path, tmp_path: Path) -> Backbone:
    return Backbone(find_base(str(pipeline), tmp_path), torch.device("cpu"))


def test_it_holds_what_the_pipeline_computes(
    example: Example, backbone: Backbone, pipeline: Path, tmp_path: Path
) -> None:
    encoded = ContentCache(tmp_path, backbone, 32).encode([example])
    reference = StableDiffusionPipeline.from_pretrained(pipeline)
    pixels = torch.from_numpy(square_pixels(read_image(example.path), 32))[None]
    with torch.no_grad():
        posterior = reference.vae.encode(pixels).latent_dist
        text, empty = reference.encode_prompt(example.caption, torch.device("cpu"), 1, True)
    torch.testing.assert_close(encoded.mean, posterior.mean * 0.5)
    torch.testing.assert_close(encoded.std, posterior.std * 0.5)
    torch.testing.assert_close(encoded.text, text)
    torch.testing.assert_close(encoded.empty_text[None], empty)


def test_a_second_run_needs_neither_vae_nor_text_encoder(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    first = ContentCache(tmp_path, backbone, 32).encode([example])
    fresh = Backbone(backbone.files, torch.device("cpu"))
    second = ContentCache(tmp_path, fresh, 32).encode([example])
    assert "vae" not in vars(fresh)
    assert "_text" not in vars(fresh)
    for name in ("mean", "std", "text", "empty_text"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_sizes_and_contents_have_files_of_their_own(
    example: Example, backbone: Backbone, tmp_path: Path
) -> None:
    for pixels in (24, 32):
        ContentCache(tmp_path, backbone, pixels).encode([example])
    found = sorted(path.parent.name for path in (tmp_path / backbone.files.base_id).rglob("*.safetensors"))
    assert found == ["latents-24", "latents-32", "text", "text"]


def test_a_damaged_file_is_computed_again(example: Example, backbone: Backbone, tmp_path: Path) -> None:
    cache = ContentCache(tmp_path, backbone, 32)
    first = cache.encode([example])
    for path in (tmp_path / backbone.files.base_id).rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(cache.encode([example]).mean, first.mean)
    assert torch.equal(cache.encode([example]).text, first.text)


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
