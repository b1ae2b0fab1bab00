"""Finding a base model, and refusing what is none."""

import json
import os
from pathlib import Path
import shutil

import pytest
import torch

from conf.errors import RequestError
from finetune.backbone import Backbone
from finetune.base_files import check_pixels, find_base
from tests.finetune.tiny_pipeline import make_pipeline
from tests.finetune.tiny_sdxl import make_sdxl


@pytest.fixture
def copy(pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline, tmp_path / "copy"))


def test_what_the_configuration_says(pipeline: Path, cache: Path) -> None:
    base = find_base(str(pipeline), cache)
    assert (base.multiple, base.native_pixels, len(base.base_id)) == (2, 32, 16)


def test_the_id_is_of_content(pipeline: Path, copy: Path, cache: Path) -> None:
    assert find_base(str(copy), cache).base_id == find_base(str(pipeline), cache).base_id
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert find_base(str(copy), cache).base_id != find_base(str(pipeline), cache).base_id


def test_the_prediction_type_is_part_of_the_id(pipeline: Path, cache: Path, tmp_path: Path) -> None:
    other = make_pipeline(tmp_path / "v", prediction="v_prediction")
    assert find_base(str(other), cache).base_id != find_base(str(pipeline), cache).base_id


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("assets/no-such-base", "no such folder"),
        ("/nowhere/at/all", "no such folder"),
        ("train.py", "is a file of another kind"),
        ("conf", "holds no model_index.json"),
        ("nobody-here/no-such-model-9f3a", "not available from the model hub"),
    ],
)
def test_missing_bases(name: str, complaint: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RequestError, match=complaint) as caught:
        find_base(name, cache)
    assert "\n" not in str(caught.value)


def test_other_families_are_refused(copy: Path, cache: Path) -> None:
    for family in ("KandinskyPipeline", "FluxPipeline"):
        (copy / "model_index.json").write_text(json.dumps({"_class_name": family}))
        with pytest.raises(
            RequestError, match=f"holds a {family}; Stable Diffusion 1 or 2, .* 3, .* XL can be"
        ):
            find_base(str(copy), cache)


def test_sdxl_means_zeros_by_no_caption_unless_its_index_says_otherwise(
    pipeline: Path, cache: Path, tmp_path: Path
) -> None:
    """As the pipeline's own default has it; older files leave the key out."""
    index = make_sdxl(tmp_path / "sdxl") / "model_index.json"
    record = json.loads(index.read_text())
    assert record.pop("force_zeros_for_empty_prompt") is True
    for value, more in ((True, {}), (False, {"force_zeros_for_empty_prompt": False})):
        index.write_text(json.dumps({**record, **more}))
        assert find_base(str(tmp_path / "sdxl"), cache).empty_is_zero is value
    assert not find_base(str(pipeline), cache).empty_is_zero


def test_models_that_take_more_than_a_latent_are_refused(copy: Path, cache: Path) -> None:
    config = copy / "unet" / "config.json"
    record = json.loads(config.read_text())
    config.write_text(json.dumps({**record, "in_channels": 9}))
    with pytest.raises(RequestError, match=r"takes 9 channels where the latent has 4 \(an inpainting"):
        find_base(str(copy), cache)


def test_a_file_replaced_by_one_of_equal_size_and_time_is_read_again(copy: Path, cache: Path) -> None:
    before = find_base(str(copy), cache).base_id
    weights = copy / "vae" / "diffusion_pytorch_model.safetensors"
    old = weights.stat()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    (copy / "new").write_bytes(data)
    os.utime(copy / "new", ns=(old.st_atime_ns, old.st_mtime_ns))
    (copy / "new").replace(weights)
    assert weights.stat().st_mtime_ns == old.st_mtime_ns
    assert find_base(str(copy), cache).base_id != before


@pytest.mark.parametrize(
    ("file", "content", "complaint"),
    [
        ("unet/config.json", "{", "unet/config.json cannot be read"),
        ("unet/config.json", "{}", "lacks 'sample_size'"),
        ("model_index.json", "[]", "no JSON object"),
        (
            "vae/diffusion_pytorch_model.safetensors",
            None,
            "vae holds no full-precision .safetensors weights; convert",
        ),
        ("scheduler/scheduler_config.json", None, "scheduler_config.json cannot be read"),
        ("tokenizer", None, "tokenizer is missing"),
    ],
)
def test_damage_seen_without_torch(
    copy: Path, cache: Path, file: str, content: str | None, complaint: str
) -> None:
    path = copy / file
    if content is not None:
        path.write_text(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(RequestError, match=complaint):
        find_base(str(copy), cache)


def test_damaged_weights_are_refused_when_loaded(copy: Path, cache: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    backbone = Backbone(find_base(str(copy), cache), torch.device("cpu"))
    with pytest.raises(RequestError, match="unet cannot be loaded"):
        backbone.load_denoiser()


def test_missing_weights_are_refused_not_made_up(copy: Path, cache: Path) -> None:
    config = json.loads((copy / "unet" / "config.json").read_text())
    (copy / "unet" / "config.json").write_text(json.dumps({**config, "layers_per_block": 2}))
    backbone = Backbone(find_base(str(copy), cache), torch.device("cpu"))
    with pytest.raises(RequestError, match=r"unet cannot be loaded|weights are missing"):
        backbone.load_denoiser()


def test_sizes_that_the_vae_cannot_encode(pipeline: Path, cache: Path) -> None:
    base = find_base(str(pipeline), cache)
    check_pixels(base, 34)
    with pytest.raises(RequestError, match=r"resolution\.pixels=33: .* multiple of 2, for example 32"):
        check_pixels(base, 33)


@pytest.mark.parametrize("pixels", [8, 24, 40, 56])
def test_the_unet_takes_sizes_that_its_downsampling_does_not_divide(
    pipeline: Path, cache: Path, pixels: int
) -> None:
    unet = Backbone(find_base(str(pipeline), cache), torch.device("cpu")).load_denoiser()
    side = pixels // 2 + 1
    latents = torch.zeros(1, 4, side, side)
    assert unet(latents, 1, torch.zeros(1, 8, 16)).sample.shape == latents.shape
