"""The weights a run leaves: they load in diffusers and predict what the trained UNet predicted."""

import json
from pathlib import Path

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
import pytest
from safetensors import safe_open
import torch

from conf.schema import Method
from curves.run_folder import RunFolder
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.methods import (
    TARGETS,
    copy_weights,
    load_weights,
    make_trainable,
    save_result,
    trainable_parameters,
)


@pytest.fixture
def unet(pipeline: Path, cache: Path) -> UNet2DConditionModel:
    return Backbone(find_base(str(pipeline), cache), torch.device("cpu")).load_unet()


def lora(targets: str = "attention_ff_resnet", rank: int = 2) -> Method:
    return Method(name="lora", adapter="lora", rank=rank, alpha=3.0, targets=targets)


@torch.no_grad()
def predict(unet: torch.nn.Module) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=random)
    text = torch.randn(2, 8, 16, generator=random)
    prediction: torch.Tensor = unet.eval()(latents, torch.tensor([10, 700]), text, return_dict=False)[0]
    return prediction


@torch.no_grad()
def disturb(unet: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(1)
    for parameter in trainable_parameters(unet).values():
        parameter += 0.05 * torch.randn(parameter.shape, generator=random)


@pytest.mark.parametrize("targets", list(TARGETS))
def test_an_adapter_file_gives_back_the_trained_prediction(
    pipeline: Path, unet: UNet2DConditionModel, tmp_path: Path, targets: str
) -> None:
    base = predict(unet)
    make_trainable(unet, lora(targets), seed=0)
    torch.testing.assert_close(predict(unet), base)
    disturb(unet)
    trained = predict(unet)
    assert (trained - base).abs().max() > 1e-3
    path = save_result(unet, lora(targets), RunFolder(tmp_path), {"steps": 7, "rank": 2})
    assert path == tmp_path / "adapter.safetensors"
    fresh = StableDiffusionPipeline.from_pretrained(pipeline)
    fresh.load_lora_weights(tmp_path, weight_name="adapter.safetensors")
    torch.testing.assert_close(predict(fresh.unet), trained, atol=1e-6, rtol=1e-5)


def test_an_adapter_file_says_what_it_is(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    make_trainable(unet, lora(), seed=0)
    path = save_result(unet, lora(), RunFolder(tmp_path), {"base_model": "tiny", "steps": 7, "alpha": 3.0})
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
    assert all(name.startswith("unet.") for name in names)
    assert (metadata["base_model"], metadata["steps"], metadata["alpha"]) == ("tiny", "7", "3.0")
    config = json.loads(metadata["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"]) == (2, 3.0)


def test_presets_grow(unet: UNet2DConditionModel, pipeline: Path, cache: Path) -> None:
    counts = []
    for targets in TARGETS:
        fresh = Backbone(find_base(str(pipeline), cache), torch.device("cpu")).load_unet()
        make_trainable(fresh, lora(targets), seed=0)
        counts.append(len(trainable_parameters(fresh)))
    assert counts[0] < counts[1] < counts[2]


def test_only_the_adapter_trains_and_its_start_is_seeded(pipeline: Path, cache: Path) -> None:
    starts = []
    for seed in (0, 0, 1):
        unet = Backbone(find_base(str(pipeline), cache), torch.device("cpu")).load_unet()
        state = torch.get_rng_state()
        make_trainable(unet, lora(), seed)
        assert torch.equal(state, torch.get_rng_state())
        assert all("lora" in name for name in trainable_parameters(unet))
        starts.append(copy_weights(unet))
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    assert any(not torch.equal(starts[0][name], starts[2][name]) for name in starts[0])


def test_a_whole_unet_is_a_diffusers_folder(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    method = Method(name="text_to_image")
    make_trainable(unet, method, seed=0)
    assert len(trainable_parameters(unet)) == len(list(unet.parameters()))
    disturb(unet)
    trained = predict(unet)
    for _ in range(2):  # a second time replaces the first
        assert save_result(unet, method, RunFolder(tmp_path), {"steps": 7}) == tmp_path / "model"
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert torch.equal(predict(loaded), trained)
    assert json.loads((tmp_path / "model" / "stepbudget.json").read_text())["steps"] == "7"


def test_copied_weights_are_put_back(unet: UNet2DConditionModel) -> None:
    make_trainable(unet, lora(), seed=0)
    kept, before = copy_weights(unet), predict(unet)
    disturb(unet)
    assert not torch.equal(predict(unet), before)
    load_weights(unet, kept)
    assert torch.equal(predict(unet), before)
