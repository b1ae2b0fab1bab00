"""The weights a run leaves: they load in diffusers and predict what the trained networks predicted."""

from collections.abc import Sequence
import copy
from dataclasses import replace
from functools import cache as cached
import json
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
import pytest
from safetensors import safe_open
import torch
from transformers import CLIPTextModel

from conf.compose import load_config
from conf.schema import Config
from conf.validate import validate
from curves.run_folder import RunFolder
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.families.stable_diffusion import UNET_TARGETS
from finetune.methods import make_trained_model
from finetune.plan import Plan, make_plan
from finetune.results import describe, save_result
from finetune.trained import TrainedModel, copy_weights, load_weights, trainable_parameters
from tests.finetune.tiny_sdxl import make_sdxl

LORA = {"rank": 2, "alpha": 3.0, "targets": "attention_ff_resnet"}


@pytest.fixture
def backbone(pipeline: Path, cache: Path) -> Backbone:
    return Backbone(find_base(str(pipeline), cache), torch.device("cpu"))


@cached
def composed(method: str) -> Config:
    return load_config([f"method={method}"])


def configuration(method: str = "lora", seed: int = 0, **options: Any) -> Config:
    """A method's yaml with options of its own."""
    config = copy.deepcopy(composed(method))
    adapter = LORA if method == "lora" else {}
    config.method, config.seed = replace(config.method, **{**adapter, **options}), seed
    validate(config)
    return config


def trained_model(backbone: Backbone, **options: Any) -> TrainedModel:
    return make_trained_model(backbone, configuration(**options))


@torch.no_grad()
def predict(unet: torch.nn.Module) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    latents = torch.randn(2, 4, 16, 16, generator=random)
    text = torch.randn(2, 8, 16, generator=random)
    prediction: torch.Tensor = unet.eval()(latents, torch.tensor([10, 700]), text, return_dict=False)[0]
    return prediction


@torch.no_grad()
def read(encoder: torch.nn.Module) -> torch.Tensor:
    hidden: torch.Tensor = encoder.eval()(torch.tensor([[62, 3, 4, 5, 63, 63, 63, 63]]))[0]
    return hidden


@torch.no_grad()
def disturb(model: torch.nn.Module) -> None:
    random = torch.Generator().manual_seed(1)
    for parameter in trainable_parameters(model).values():
        parameter += 0.05 * torch.randn(parameter.shape, generator=random)


@pytest.fixture
def plan(base_overrides: list[str]) -> Plan:
    return make_plan(load_config(base_overrides), base_overrides)


def save(model: TrainedModel, folder: Path, plan: Plan, kind: str = "best", **options: Any) -> Path:
    """As a run of this method writes it."""
    config = replace(plan.config, method=configuration(**options).method)
    plan = replace(plan, config=config)
    return save_result(model, RunFolder(folder), kind, plan, describe(plan, 7, 0.5))


@pytest.mark.parametrize("targets", list(UNET_TARGETS))
def test_an_adapter_file_gives_back_the_trained_prediction(
    pipeline: Path, backbone: Backbone, plan: Plan, tmp_path: Path, targets: str
) -> None:
    base = predict(backbone.load_denoiser())
    model = trained_model(backbone, targets=targets)
    torch.testing.assert_close(predict(model.denoiser), base)
    disturb(model)
    trained = predict(model.denoiser)
    assert (trained - base).abs().max() > 1e-3
    path = save(model, tmp_path, plan)
    assert path == tmp_path / "best.safetensors"
    fresh = StableDiffusionPipeline.from_pretrained(pipeline)
    fresh.load_lora_weights(tmp_path, weight_name="best.safetensors")
    torch.testing.assert_close(predict(fresh.unet), trained, atol=1e-6, rtol=1e-5)


def test_an_adapter_file_with_text_encoder_gives_back_what_it_reads(
    pipeline: Path, backbone: Backbone, plan: Plan, tmp_path: Path
) -> None:
    model = trained_model(backbone, text_encoder="lora")
    base = read(model.text_encoders["text_encoder"])
    disturb(model)
    trained = predict(model.denoiser), read(model.text_encoders["text_encoder"])
    assert (trained[1] - base).abs().max() > 1e-3
    save(model, tmp_path, plan, text_encoder="lora")
    fresh = StableDiffusionPipeline.from_pretrained(pipeline)
    fresh.load_lora_weights(tmp_path, weight_name="best.safetensors")
    torch.testing.assert_close(predict(fresh.unet), trained[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(read(fresh.text_encoder), trained[1], atol=1e-6, rtol=1e-5)


def test_an_adapter_file_says_what_it_is(backbone: Backbone, plan: Plan, tmp_path: Path) -> None:
    path = save(trained_model(backbone), tmp_path, plan)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        names = list(file.keys())
    assert all(name.startswith("unet.") for name in names)
    assert metadata["base_model"] == str(plan.config.base_model.path)
    assert (metadata["steps"], metadata["rank"], metadata["alpha"]) == ("7", "2", "3.0")
    assert (metadata["panel_loss"], metadata["training_images"]) == ("0.500000", "4")
    config = json.loads(metadata["lora_adapter_metadata"])
    assert (config["unet.r"], config["unet.lora_alpha"]) == (2, 3.0)


def test_presets_grow(backbone: Backbone) -> None:
    counts = [len(trainable_parameters(trained_model(backbone, targets=targets))) for targets in UNET_TARGETS]
    assert counts[0] < counts[1] < counts[2]


@pytest.mark.parametrize("text_encoder", ["frozen", "lora"])
def test_only_the_adapter_trains_and_its_start_is_seeded(backbone: Backbone, text_encoder: str) -> None:
    starts = []
    for seed in (0, 0, 1):
        state = torch.get_rng_state()
        model = trained_model(backbone, text_encoder=text_encoder, seed=seed)
        assert torch.equal(state, torch.get_rng_state())
        assert all("lora" in name for name in trainable_parameters(model))
        starts.append(copy_weights(model))
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    drawn = [name for name in starts[0] if "lora_A" in name]
    assert drawn
    assert all(not torch.equal(starts[0][name], starts[2][name]) for name in drawn)


def test_scaled_by_the_root_of_the_rank_or_split_in_direction_and_magnitude(backbone: Backbone) -> None:
    base = predict(backbone.load_denoiser())
    predictions = []
    for option in ({}, {"rslora": True}, {"dora": True}):
        model = trained_model(backbone, rank=4, **option)
        torch.testing.assert_close(predict(model.denoiser), base)
        magnitudes = [name for name in trainable_parameters(model) if "magnitude" in name]
        assert bool(magnitudes) == ("dora" in option)
        disturb(model)
        predictions.append(predict(model.denoiser))
    assert (predictions[0] - predictions[1]).abs().max() > 1e-4
    assert (predictions[0] - predictions[2]).abs().max() > 1e-4


def test_whole_networks_are_a_diffusers_folder(
    backbone: Backbone, pipeline: Path, plan: Plan, tmp_path: Path
) -> None:
    options = {"method": "text_to_image", "text_encoder": "full"}
    model = trained_model(backbone, **options)
    assert len(trainable_parameters(model)) == len(list(model.parameters()))
    disturb(model)
    trained = predict(model.denoiser), read(model.text_encoders["text_encoder"])
    for _ in range(2):  # a second time replaces the first
        assert save(model, tmp_path, plan, "last", **options) == tmp_path / "last"
    assert torch.equal(predict(UNet2DConditionModel.from_pretrained(tmp_path / "last" / "unet")), trained[0])
    assert torch.equal(read(CLIPTextModel.from_pretrained(tmp_path / "last" / "text_encoder")), trained[1])
    assert json.loads((tmp_path / "last" / "stepbudget.json").read_text())["steps"] == "7"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_copied_weights_are_put_back(backbone: Backbone) -> None:
    model = trained_model(backbone)
    kept, before = copy_weights(model), predict(model.denoiser)
    disturb(model)
    assert not torch.equal(predict(model.denoiser), before)
    load_weights(model, kept)
    assert torch.equal(predict(model.denoiser), before)


@pytest.mark.parametrize(
    ("method", "text_encoder", "prefixes"),
    [
        ("text_to_image", "frozen", ["denoiser."]),
        ("text_to_image", "full", ["denoiser.", "text_encoders.text_encoder."]),
        ("lora", "frozen", ["denoiser."]),
        ("lora", "lora", ["denoiser.", "text_encoders.text_encoder."]),
    ],
)
def test_what_trains(backbone: Backbone, method: str, text_encoder: str, prefixes: Sequence[str]) -> None:
    names = list(trainable_parameters(trained_model(backbone, method=method, text_encoder=text_encoder)))
    for prefix in prefixes:
        assert any(name.startswith(prefix) for name in names)
    assert all(name.startswith(tuple(prefixes)) for name in names)


@pytest.mark.parametrize("how", ["full", "lora"])
def test_of_sdxl_the_layers_that_the_unet_never_sees_stay_frozen(
    tmp_path: Path, cache: Path, how: str
) -> None:
    sdxl = Backbone(find_base(str(make_sdxl(tmp_path / "sdxl")), cache), torch.device("cpu"))
    method = "text_to_image" if how == "full" else "lora"
    names = set(trainable_parameters(trained_model(sdxl, method=method, text_encoder=how)))
    first = {name for name in names if name.startswith("text_encoders.text_encoder.")}
    second = {name for name in names if name.startswith("text_encoders.text_encoder_2.")}
    assert any("layers.0." in name for name in first)
    assert not any("layers.1." in name or "final_layer_norm" in name for name in first)
    assert any("layers.1." in name for name in second)  # the pooled text is of its last layer
