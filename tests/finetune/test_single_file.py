"""Checkpoints in one file: what comes out goes in again bit for bit, and what cannot be read says why."""

import json
from pathlib import Path
import pickle
import shutil
from typing import Any

from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.architecture import Architecture
from finetune.original_keys import unet_name
from finetune.single_file import to_folder
from finetune.single_file_export import check_export, export_single_file
from tests.finetune.tiny_bases import MAKERS, draw, load
from tests.finetune.tiny_sdxl import make_sdxl

# Of numpy 2, for lines of diffusers' Euler scheduler.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def files(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    files = {name: tmp_path_factory.mktemp("files") / f"{name}.safetensors" for name in folders}
    for name, file in files.items():
        export_single_file(folders[name], file, {"steps": "7"})
    return files


@pytest.fixture
def sd(files: dict[str, Path]) -> dict[str, Tensor]:
    """The weights of a file of Stable Diffusion 1, to be changed."""
    return load_file(files["sd"])


def metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="pt") as opened:
        return dict(opened.metadata())


def schedule(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    return record


def assert_equal_weights(ours: Any, theirs: Any) -> None:
    models = {name: model for name, model in ours.components.items() if isinstance(model, torch.nn.Module)}
    assert {"vae", "text_encoder"} < set(models)
    for part, model in models.items():
        other = getattr(theirs, part).state_dict()
        assert set(model.state_dict()) == set(other)
        assert all(torch.equal(value, other[name]) for name, value in model.state_dict().items()), part


@pytest.mark.parametrize("base", list(MAKERS))
def test_out_and_in_again_is_bit_equal(
    folders: dict[str, Path], files: dict[str, Path], tmp_path: Path, base: str
) -> None:
    back = load(to_folder(files[base], str(folders[base]), tmp_path, allow_pickle=False))
    original = load(folders[base])
    assert_equal_weights(original, back)
    assert torch.equal(draw(original), draw(back))


def test_diffusers_reads_what_is_exported(folders: dict[str, Path], files: dict[str, Path]) -> None:
    direct = StableDiffusionPipeline.from_single_file(str(files["sd1 real"]), config=str(folders["sd1 real"]))
    assert_equal_weights(load(folders["sd1 real"]), direct)


def test_names_are_those_of_the_original(files: dict[str, Path]) -> None:
    with safe_open(files["sd1 real"], framework="pt") as opened:
        names = set(opened.keys())
    assert names >= {
        "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
        "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
        "model.diffusion_model.output_blocks.2.1.conv.weight",
        "model.diffusion_model.output_blocks.5.2.conv.bias",
        "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
        "first_stage_model.encoder.mid.attn_1.proj_out.weight",
        "first_stage_model.decoder.up.1.upsample.conv.weight",
    }
    with safe_open(files["sdxl real"], framework="pt") as opened:
        names = set(opened.keys())
    assert names >= {
        "model.diffusion_model.label_emb.0.2.weight",
        "model.diffusion_model.input_blocks.6.0.op.weight",
        "conditioner.embedders.0.transformer.text_model.encoder.layers.1.mlp.fc1.bias",
        "conditioner.embedders.1.model.transformer.resblocks.1.attn.in_proj_weight",
        "conditioner.embedders.1.model.text_projection",
    }


def test_files_say_what_they_are(files: dict[str, Path]) -> None:
    said = {name: metadata(file) for name, file in files.items()}
    assert {name: data["modelspec.architecture"] for name, data in said.items()} == {
        "sd": "stable-diffusion-v1",
        "sd1 real": "stable-diffusion-v1",
        "sd2 real": "stable-diffusion-v2-32-v",
        "sdxl": "stable-diffusion-xl-v1-base",
        "sdxl real": "stable-diffusion-xl-v1-base",
        "sd3": "stable-diffusion-3",
        "sd35": "stable-diffusion-3",
    }
    assert {data["steps"] for data in said.values()} == {"7"}


@settings(max_examples=12, deadline=None)
@given(
    layers=st.integers(1, 3),
    attention=st.lists(st.booleans(), min_size=1, max_size=4),
)
def test_names_of_any_structure_are_those_diffusers_reads(layers: int, attention: list[bool]) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(8,) * len(attention),
            down_block_types=["CrossAttnDownBlock2D" if has else "DownBlock2D" for has in attention],
            up_block_types=["CrossAttnUpBlock2D" if has else "UpBlock2D" for has in attention[::-1]],
            layers_per_block=layers,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=4,
        )
    base = Architecture("sd", False, "epsilon", False, 32, layers, tuple(attention[::-1]), 2)
    weights = unet.state_dict()
    original = {f"model.diffusion_model.{unet_name(name, base)}": name for name in weights}
    assert len(original) == len(weights)
    back = convert_ldm_unet_checkpoint(original, unet.config)
    assert back == {name: name for name in weights}


def test_precision_is_kept(folders: dict[str, Path], tmp_path: Path) -> None:
    pipeline = load(folders["sdxl"])
    pipeline.to(torch.float16).save_pretrained(tmp_path / "half")
    export_single_file(tmp_path / "half", tmp_path / "half.safetensors")
    config = str(folders["sdxl"])
    half = to_folder(tmp_path / "half.safetensors", config, tmp_path, allow_pickle=False)
    stored = [load_file(file) for file in half.glob("*/*.safetensors")]
    assert len(stored) == 4
    assert {value.dtype for weights in stored for value in weights.values()} == {torch.float16}
    # A mixture keeps every value: the autoencoder of XL overflows in half precision, so it often is in single.
    mixed = load_file(tmp_path / "half.safetensors")
    name = "first_stage_model.decoder.conv_out.bias"
    mixed[name] = mixed[name].float() + 1e-6
    save_file(mixed, tmp_path / "mixed.safetensors")
    back = load(to_folder(tmp_path / "mixed.safetensors", config, tmp_path, allow_pickle=False))
    assert torch.equal(back.vae.decoder.conv_out.bias, mixed[name])


def test_an_autoencoder_under_its_older_names(
    folders: dict[str, Path], files: dict[str, Path], tmp_path: Path
) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    folder = Path(shutil.copytree(folders["sd"], tmp_path / "old"))
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    renamed = {}
    for name, value in load_file(weights).items():
        for new, older in old.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{older}.")
        renamed[name] = value
    assert any("proj_attn" in name for name in renamed)
    save_file(renamed, weights)
    export_single_file(folder, tmp_path / "old.safetensors")
    ours, theirs = load_file(tmp_path / "old.safetensors"), load_file(files["sd"])
    assert set(ours) == set(theirs)
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_layer_without_an_original_name_is_refused_beforehand(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    check_export(folders["sd"])
    folder = Path(shutil.copytree(folders["sd"], tmp_path / "other"))
    save_file({**load_file(folder / WEIGHTS), "gate.weight": torch.ones(2)}, folder / WEIGHTS)
    with pytest.raises(
        RequestError, match=r"'gate.weight' has no name in the layout .*; keep .* as a folder"
    ):
        check_export(folder)


def test_a_file_is_converted_once_for_each_content(
    folders: dict[str, Path], sd: dict[str, Tensor], tmp_path: Path
) -> None:
    file, config, cache = tmp_path / "model.safetensors", str(folders["sd"]), tmp_path / "cache"
    save_file(sd, file)
    first = to_folder(file, config, cache, allow_pickle=False)
    (first / "here").touch()
    assert to_folder(file, config, cache, allow_pickle=False) == first
    assert (first / "here").exists()
    assert to_folder(file, config, cache, False, prediction="v_prediction") != first
    sd["model.diffusion_model.out.2.bias"] += 1
    save_file(sd, file)
    assert to_folder(file, config, cache, allow_pickle=False) != first
    assert len(list((cache / "converted").iterdir())) == 3


def test_what_is_predicted(folders: dict[str, Path], sd: dict[str, Tensor], tmp_path: Path) -> None:
    config = str(folders["sd"])

    def converted(name: str, prediction: str | None = None, **more: Any) -> tuple[str, bool]:
        save_file(sd | more.pop("marks", {}), tmp_path / name, **more)
        record = schedule(to_folder(tmp_path / name, config, tmp_path, False, prediction))
        return record["prediction_type"], record["rescale_betas_zero_snr"]

    marks = {"v_pred": torch.empty(0), "ztsnr": torch.empty(0)}
    spec = {"modelspec.prediction_type": "v"}
    assert converted("plain.safetensors") == ("epsilon", False)
    assert converted("marked.safetensors", marks=marks) == ("v_prediction", True)
    assert converted("spec.safetensors", metadata=spec) == ("v_prediction", False)
    assert converted("told.safetensors", prediction="v_prediction") == ("v_prediction", False)
    assert converted("told-other.safetensors", prediction="epsilon", metadata=spec) == ("epsilon", False)


def test_a_velocity_model_is_marked_for_web_uis(tmp_path: Path) -> None:
    folder = make_sdxl(tmp_path / "v", prediction="v_prediction")
    file = tmp_path / "v.safetensors"
    export_single_file(folder, file)
    assert {"v_pred", "ztsnr"} < set(load_file(file))
    plain = make_sdxl(tmp_path / "plain")
    back = schedule(to_folder(file, str(plain), tmp_path, allow_pickle=False))
    assert (back["prediction_type"], back["rescale_betas_zero_snr"]) == ("v_prediction", True)


def test_pickles_are_refused_unless_allowed(
    folders: dict[str, Path], files: dict[str, Path], sd: dict[str, Tensor], tmp_path: Path
) -> None:
    file, config = tmp_path / "model.ckpt", str(folders["sd"])
    torch.save({"state_dict": sd, "global_step": 7}, file)
    with pytest.raises(RequestError, match=r"a \.ckpt file is a pickle.*base_model\.allow_pickle=true"):
        to_folder(file, config, tmp_path, allow_pickle=False)
    back = load(to_folder(file, config, tmp_path, allow_pickle=True))
    assert_equal_weights(load(folders["sd"]), back)


class Program:
    """Runs when a pickle of it is read without care."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def test_programs_in_pickles_never_run(folders: dict[str, Path], tmp_path: Path) -> None:
    file, touched = tmp_path / "model.ckpt", tmp_path / "touched"
    torch.save({"state_dict": {}, "callback": Program(touched)}, file)
    with pytest.raises(RequestError, match=r"cannot be read as weights only.*save it as \.safetensors"):
        to_folder(file, str(folders["sd"]), tmp_path, allow_pickle=True)
    assert not touched.exists()
    with file.open("wb") as opened:
        pickle.dump(Program(touched), opened)
    with pytest.raises(RequestError, match=r"model\.ckpt"):
        to_folder(file, str(folders["sd"]), tmp_path, allow_pickle=True)
    assert not touched.exists()


def without(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith(prefix)}


def test_a_version_3_needs_its_t5(folders: dict[str, Path], files: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(without(load_file(files["sd3"]), "text_encoders.t5xxl."), file)
    with pytest.raises(RequestError, match=r"Stable Diffusion 3 has no text encoder \(text_encoders\.t5xxl"):
        to_folder(file, str(folders["sd3"]), tmp_path, allow_pickle=False)


ONE = torch.ones(2, 2)
INPAINTING = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(8, 9, 3, 3)}
FLUX = {"double_blocks.0.img_attn.norm.key_norm.scale": ONE, "img_in.weight": torch.ones(2)}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda sd: {"lora_unet_mid.lora_down.weight": ONE}, "is a LoRA, which goes on top of a base model"),
        (lambda sd: {"unet.mid_block.to_q.lora_A.weight": ONE}, "is a LoRA"),
        (lambda sd: sd | {"control_model.time_embed.0.weight": ONE}, "is a ControlNet"),
        (
            lambda sd: sd | {"conditioner.embedders.0.model.ln_final.bias": ONE},
            "is a Stable Diffusion XL refiner",
        ),
        (
            lambda sd: {"down_blocks.0.resnets.0.conv1.weight": ONE},
            "is one part of a folder in diffusers' layout",
        ),
        (lambda sd: {"first_stage_model.quant_conv.weight": ONE}, "is an autoencoder alone"),
        (lambda sd: {"emb_params": ONE}, "is a textual inversion embedding"),
        (lambda sd: FLUX, r"is a model of another family \(flux"),
        (lambda sd: {"weight": ONE}, "is no weights of a model that is known"),
        (lambda sd: sd | INPAINTING, r"its UNet takes 9 channels where the latent has 4 \(an inpainting"),
        (
            lambda sd: without(sd, "cond_stage_model."),
            r"Stable Diffusion 1 has no text encoder \(cond_stage_model",
        ),
        (lambda sd: without(sd, "first_stage_model."), "has no autoencoder"),
        (
            lambda sd: without(sd, "model.diffusion_model.out.2."),
            r"does not fit .* \(some weights are missing\)",
        ),
        (
            lambda sd: without(sd, "cond_stage_model.transformer.text_model.final"),
            r"text_encoder lacks 2 weights",
        ),
        (
            lambda sd: sd | {"model.diffusion_model.out.2.bias": torch.ones(5)},
            "does not fit the configuration",
        ),
    ],
)
def test_files_that_are_no_base_model(
    folders: dict[str, Path], sd: dict[str, Tensor], tmp_path: Path, change: Any, complaint: str
) -> None:
    file = tmp_path / "model.safetensors"
    save_file(change(sd), file)
    with pytest.raises(RequestError, match=complaint) as caught:
        to_folder(file, str(folders["sd"]), tmp_path, allow_pickle=False)
    assert str(caught.value).startswith(f"base_model.path={file}: ")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "converted").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "config", "prediction", "complaint"),
    [
        ("sd", "no/such/folder", None, r"base_model\.config=no/such/folder: no such folder"),
        ("sd", "nobody/no-such-model", None, r"base_model\.config=nobody/no-such-model: .*not available"),
        (
            "sd",
            None,
            None,
            r"base_model\.config=null: .*stable-diffusion-v1-5.*set base_model\.config to a local",
        ),
        ("sdxl", None, None, r"base_model\.config=null: .*stable-diffusion-xl-base"),
        ("sd3", None, None, r"base_model\.config=null: .*stable-diffusion-3-medium"),
        ("sd2 real", None, "epsilon", r"base_model\.config=null: .*stable-diffusion-2-1-base"),
        ("sd", "sdxl", None, r"is of a StableDiffusionXLPipeline, where .* is a Stable Diffusion 1"),
        ("sd3", "sd3", "epsilon", r"base_model\.prediction=epsilon: Stable Diffusion 3 predicts a flow"),
        ("sd", "sd", "noise", r"base_model\.prediction=noise: .* epsilon, v_prediction, null"),
    ],
)
def test_configurations_that_do_not_fit(
    folders: dict[str, Path],
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    config: str | None,
    prediction: str | None,
    complaint: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    config = str(folders.get(str(config), config)) if config is not None else None
    with pytest.raises(RequestError, match=complaint) as caught:
        to_folder(files[name], config, tmp_path, False, prediction)
    assert "\n" not in str(caught.value)


def test_a_version_2_has_to_say_what_it_predicts(
    files: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "silent.safetensors"
    save_file(load_file(files["sd2 real"]), file)  # without metadata
    with pytest.raises(RequestError, match=r"set base_model\.prediction=v_prediction \(as those of 768 px\)"):
        to_folder(file, None, tmp_path, allow_pickle=False)
    back = schedule(to_folder(file, str(folders["sd2 real"]), tmp_path, allow_pickle=False))
    assert back["prediction_type"] == "v_prediction"


def test_the_configuration_comes_from_the_hubs_cache(
    folders: dict[str, Path], files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--stable-diffusion-v1-5--stable-diffusion-v1-5"
    shutil.copytree(
        folders["sd"], repository / "snapshots" / ("0" * 40), ignore=shutil.ignore_patterns("*.safetensors")
    )
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    back = load(to_folder(files["sd"], None, tmp_path / "cache", allow_pickle=False))
    assert_equal_weights(load(folders["sd"]), back)


@pytest.mark.parametrize("content", [b"", b"not safetensors", None], ids=["empty", "text", "cut"])
def test_damaged_files(files: dict[str, Path], tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(files["sd"].read_bytes()[:-9] if content is None else content)
    with pytest.raises(RequestError, match=r"the base model is damaged: .*; download or copy it again"):
        to_folder(file, None, tmp_path, allow_pickle=False)


def test_files_of_other_endings(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.touch()
    with pytest.raises(RequestError, match=r"give a \.safetensors file, a folder or a hub id"):
        to_folder(file, None, tmp_path, allow_pickle=True)
