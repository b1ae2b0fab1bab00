"""Adapters as files: what diffusers makes of them equals the trained model, in both kinds of keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
import pytest
from safetensors import safe_open
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.architecture import Architecture
from finetune.lora_files import check_lora, save_lora
from tests.finetune.tiny_bases import MAKERS, draw, load

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
RESNET = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
UNET = ATTENTION + FEED_FORWARD + RESNET
TRANSFORMER = [
    *ATTENTION,
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
    "ff.net.0.proj",
    "ff.net.2",
]
FEW = ["to_q", "conv1", "add_q_proj", "q_proj", "fc1"]  # some of each component, which is faster
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]

# Of numpy 2, for lines of diffusers' Euler scheduler.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PLAIN: dict[str, Any] = {"r": 3, "lora_alpha": 5.0}
RSLORA: dict[str, Any] = {"r": 4, "lora_alpha": 3.0, "use_rslora": True}
DORA: dict[str, Any] = {"r": 2, "lora_alpha": 2.0, "use_dora": True}
KOHYA = {"sd1 real": PLAIN, "sd2 real": PLAIN, "sdxl real": RSLORA}


@dataclass(frozen=True)
class Written:
    """An adapter file, and what the model that it was written from draws."""

    file: Path
    trained: Tensor


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def kohya(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Written]:
    folder = tmp_path_factory.mktemp("kohya")
    return {
        base: write(folders[base], folder / f"{base}.safetensors", "kohya", **options)
        for base, options in KOHYA.items()
    }


@torch.no_grad()
def adapt(pipeline: Any, seed: int = 1, **options: Any) -> tuple[dict[str, Tensor], dict[str, LoraConfig]]:
    """Put a random adapter on everything of a pipeline that one can be on."""
    generator = torch.Generator().manual_seed(seed)
    tensors, configs = {}, {}
    for component in ("unet", "transformer", "text_encoder", "text_encoder_2"):
        model = getattr(pipeline, component, None)
        if model is None:
            continue
        targets = {"unet": UNET, "transformer": TRANSFORMER}.get(component, TEXT)
        config = LoraConfig(**{"target_modules": targets, **options})
        model.add_adapter(config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        configs[component] = model.peft_config["default"]
        tensors |= {f"{component}.{name}": value for name, value in get_peft_model_state_dict(model).items()}
    return tensors, configs


def write(folder: Path, target: Path, form: str, seed: int = 1, **options: Any) -> Written:
    """Write an adapter of random weights and draw with the model that has it."""
    pipeline = load(folder)
    before = draw(pipeline)
    tensors, configs = adapt(pipeline, seed, **options)
    save_lora(target, form, tensors, configs, {"steps": "7"}, Architecture.of(folder))
    trained = draw(pipeline)
    assert (trained - before).abs().max() > 1e-2
    return Written(target, trained)


def draw_with(folder: Path, file: Path) -> Tensor:
    """Draw with an adapter file that diffusers loads."""
    pipeline = load(folder)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    return draw(pipeline)


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("sd", PLAIN),
        ("sd", DORA),
        ("sdxl", DORA),
        ("sd3", PLAIN),
        ("sd3", DORA),
        ("sd35", RSLORA),
    ],
)
def test_diffusers_keys_draw_what_was_trained(
    folders: dict[str, Path], tmp_path: Path, base: str, options: dict[str, Any]
) -> None:
    written = write(folders[base], tmp_path / "lora.safetensors", "diffusers", **options)
    torch.testing.assert_close(draw_with(folders[base], written.file), written.trained, atol=1e-4, rtol=0)


@pytest.mark.parametrize("base", list(KOHYA))
def test_kohya_keys_draw_what_was_trained(
    folders: dict[str, Path], kohya: dict[str, Written], base: str
) -> None:
    written = kohya[base]
    torch.testing.assert_close(draw_with(folders[base], written.file), written.trained, atol=1e-4, rtol=0)


@torch.no_grad()
def deltas(folder: Path, file: Path) -> dict[str, dict[str, Tensor]]:
    """What an adapter adds to every weight, by component."""
    plain, fused = load(folder), load(folder)
    fused.load_lora_weights(file.parent, weight_name=file.name)
    components = [
        name for name in ("unet", "transformer", "text_encoder", "text_encoder_2") if hasattr(fused, name)
    ]
    fused.fuse_lora(components=components)
    fused.unload_lora_weights()
    return {
        name: {
            key: value - getattr(plain, name).state_dict()[key]
            for key, value in getattr(fused, name).state_dict().items()
        }
        for name in components
    }


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize(("base", "second"), [("sdxl", "kohya"), ("sd3", "diffusers")])
def test_two_adapters_together_add_their_deltas(
    folders: dict[str, Path], tmp_path: Path, base: str, second: str
) -> None:
    folder = folders[base]
    files = {"a": tmp_path / "a.safetensors", "b": tmp_path / "b.safetensors"}
    alone = write(folder, files["a"], "diffusers", seed=1, r=3, lora_alpha=5.0, target_modules=FEW).trained
    write(folder, files["b"], second, seed=2, r=2, lora_alpha=3.0, target_modules=FEW)
    stacked, summed = load(folder), load(folder)
    for name, file in files.items():
        stacked.load_lora_weights(tmp_path, weight_name=file.name, adapter_name=name)
        for component, changes in deltas(folder, file).items():
            weights = getattr(summed, component).state_dict()
            for key, change in changes.items():
                weights[key] += change
    stacked.set_adapters(list(files))
    both = draw(stacked)
    torch.testing.assert_close(both, draw(summed), atol=1e-4, rtol=0)
    assert (both - alone).abs().max() > 1e-2


def read(file: Path) -> tuple[set[str], dict[str, str]]:
    """Keys and metadata of a file."""
    with safe_open(file, framework="pt") as opened:
        return set(opened.keys()), opened.metadata()


def test_names_are_those_of_sd_scripts(kohya: dict[str, Written]) -> None:
    keys, _ = read(kohya["sd1 real"].file)
    modules = {key.split(".")[0] for key in keys}
    assert modules >= {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
        "lora_unet_up_blocks_1_resnets_2_time_emb_proj",
        "lora_unet_up_blocks_2_upsamplers_0_conv",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj",
    }
    assert keys == {
        f"{name}.{kind}" for name in modules for kind in ("lora_down.weight", "lora_up.weight", "alpha")
    }
    keys, _ = read(kohya["sdxl real"].file)
    assert {key.split(".")[0] for key in keys} >= {
        "lora_unet_input_blocks_1_0_in_layers_2",
        "lora_unet_input_blocks_3_0_op",
        "lora_unet_input_blocks_4_0_emb_layers_1",
        "lora_unet_input_blocks_4_0_skip_connection",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_input_blocks_8_1_transformer_blocks_2_ff_net_0_proj",
        "lora_unet_middle_block_1_proj_in",
        "lora_unet_middle_block_2_out_layers_3",
        "lora_unet_output_blocks_2_2_conv",
        "lora_unet_output_blocks_5_1_proj_out",
        "lora_unet_output_blocks_8_0_in_layers_2",
        "lora_te1_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_1_self_attn_out_proj",
    }


def test_files_say_what_they_are_for(kohya: dict[str, Written]) -> None:
    said = {base: read(written.file)[1] for base, written in kohya.items()}
    named = {
        base: (
            metadata["ss_base_model_version"],
            metadata["ss_v2"],
            metadata["modelspec.architecture"],
            metadata["modelspec.prediction_type"],
        )
        for base, metadata in said.items()
    }
    assert named == {
        "sd1 real": ("sd_v1", "False", "stable-diffusion-v1/lora", "epsilon"),
        "sd2 real": ("sd_v2_v", "True", "stable-diffusion-v2-32-v/lora", "v"),
        "sdxl real": ("sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora", "epsilon"),
    }
    networks = {base: (data["ss_network_dim"], data["ss_network_alpha"]) for base, data in said.items()}
    assert networks == {"sd1 real": ("3", "5.0"), "sd2 real": ("3", "5.0"), "sdxl real": ("4", "6.0")}
    assert {(data["steps"], data["modelspec.resolution"]) for data in said.values()} == {("7", "32x32")}


def test_facts_cannot_displace_what_diffusers_reads(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline, target = load(folders["sd3"]), tmp_path / "lora.safetensors"
    facts = {"lora_adapter_metadata": "x", "panel_loss": "0.1"}
    save_lora(target, "diffusers", *adapt(pipeline, **PLAIN), facts, Architecture.of(folders["sd3"]))
    torch.testing.assert_close(draw_with(folders["sd3"], target), draw(pipeline), atol=1e-4, rtol=0)
    assert read(target)[1]["panel_loss"] == "0.1"


@pytest.mark.parametrize(
    ("form", "family", "components", "dora", "complaint"),
    [
        (
            "lycoris",
            "sd",
            ["unet"],
            False,
            r"checkpoints.formats=\[lycoris\]: no such format; choose one of diffusers, kohya",
        ),
        ("kohya", "sd3", ["transformer"], False, r"take checkpoints.formats=\[diffusers\]"),
        ("kohya", "sdxl", ["unet"], True, r"DoRA's magnitude .*; take checkpoints.formats=\[diffusers\]"),
        (
            "diffusers",
            "sd3",
            ["transformer", "text_encoder_3"],
            False,
            r"an adapter on text_encoder_3 cannot",
        ),
        ("diffusers", "sd", ["transformer"], False, r"of sd choose among unet, text_encoder"),
    ],
)
def test_files_that_nothing_reads_are_refused(
    form: str, family: str, components: list[str], dora: bool, complaint: str
) -> None:
    configs = {component: LoraConfig(r=2, use_dora=dora) for component in components}
    with pytest.raises(RequestError, match=complaint) as caught:
        check_lora(form, family, configs)
    assert "\n" not in str(caught.value)
