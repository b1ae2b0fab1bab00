"""What is exported draws, in diffusers and as a web UI reads it, what the trained model draws."""

from collections.abc import Mapping
import os
from pathlib import Path
import shutil

from diffusers import DiffusionPipeline, UNet2DConditionModel
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch

from finetune.export.__main__ import main
from tests.finetune.tiny_adapters import make_adapter, make_networks
from tests.finetune.tiny_bases import MAKERS, draw, load

ROOT = Path(__file__).resolve().parents[2]

# Of numpy 2, for lines of diffusers' Euler scheduler.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: MAKERS[name](folder / name) for name in ("sd", "sd3", "sd1 real", "sdxl real")}


@pytest.fixture(scope="module")
def adapter(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(bases["sd"], tmp_path_factory.mktemp("adapter") / "style.safetensors")


def export(source: Path, to: Path, *words: object) -> Path:
    line = [source, "--to", to, "--cache-dir", to.parent / "cache", *words]
    assert main([str(word) for word in line]) == 0
    assert not [path for path in to.parent.iterdir() if path.name.startswith(".")]
    return to


def adapted(base: Path, file: Path, weight: float = 1.0) -> torch.Tensor:
    pipeline = load(base)
    pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="one")
    pipeline.set_adapters(["one"], [weight])
    return draw(pipeline)


def facts(file: Path) -> Mapping[str, str]:
    with safe_open(file, framework="np") as opened:
        known: Mapping[str, str] = opened.metadata()
    return known


@pytest.mark.long
@pytest.mark.parametrize("base", ["sd", "sdxl real"])
def test_an_adapter_goes_into_the_other_keys_and_back(
    bases: dict[str, Path], tmp_path: Path, base: str
) -> None:
    file = make_adapter(bases[base], tmp_path / "style.safetensors")
    kohya = export(file, tmp_path / "out" / "kohya.safetensors", "--format", "kohya")
    back = export(kohya, tmp_path / "out" / "back.safetensors")
    assert all(name.startswith("lora_") for name in load_file(kohya))
    first, second = load_file(file), load_file(back)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    if base == "sd":  # that of XL draws the same too, says test_lora_files.py
        assert torch.allclose(adapted(bases[base], kohya), adapted(bases[base], file), atol=1e-5)
    assert facts(kohya)["steps"] == facts(back)["steps"] == "7"
    assert facts(kohya)["modelspec.title"] == "kohya"


def test_layers_of_their_own_scale_keep_it_in_the_other_keys(bases: dict[str, Path], tmp_path: Path) -> None:
    """As other trainers write them: kohya's keys have an alpha for every layer."""
    base = bases["sd"]
    even = make_adapter(base, tmp_path / "even.safetensors", form="kohya")
    tensors = load_file(even)
    for index, name in enumerate([name for name in tensors if name.endswith(".alpha")]):
        tensors[name] = tensors[name] * 2.0 ** (index % 3)
        tensors[name.replace("alpha", "lora_up.weight")] *= 0.5 ** (index % 3)
    save_file(tensors, tmp_path / "uneven.safetensors", metadata={"base_model": str(base)})
    expected = adapted(base, even)
    plain = export(tmp_path / "uneven.safetensors", tmp_path / "plain.safetensors", "--format", "diffusers")
    assert torch.allclose(adapted(base, plain), expected, atol=1e-5)


def test_patterns_of_scales_are_written_into_the_other_keys(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["sd"]
    file = make_adapter(base, tmp_path / "style.safetensors", alphas={"to_q": 1.0, "to_v": 6.0})
    kohya = export(file, tmp_path / "kohya.safetensors", "--format", "kohya")
    assert torch.allclose(adapted(base, kohya), adapted(base, file), atol=1e-5)


@pytest.mark.parametrize("base", ["sd1 real", "sd3"])
def test_trained_networks_become_a_whole_model(bases: dict[str, Path], tmp_path: Path, base: str) -> None:
    networks = make_networks(bases[base], tmp_path / "best")
    part = "transformer" if base == "sd3" else "unet"
    pipeline = load(bases[base])
    setattr(pipeline, part, type(getattr(pipeline, part)).from_pretrained(networks / part))
    expected = draw(pipeline)
    folder = export(networks, tmp_path / "folder")
    file = export(networks, tmp_path / "model.safetensors")
    shutil.rmtree(networks)
    assert torch.equal(draw(load(folder)), expected)
    again = export(file, tmp_path / "again", "--config", bases[base])
    assert torch.allclose(draw(load(again)), expected, atol=1e-5)
    assert facts(file)["steps"] == "9"


def test_a_fused_adapter_draws_as_it_did_apart(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    whole = export(adapter, tmp_path / "whole", "--fuse", 0.6)
    drawn = draw(load(whole))
    assert torch.allclose(drawn, adapted(bases["sd"], adapter, 0.6), atol=1e-4)
    assert (drawn - draw(load(bases["sd"]))).abs().max() > 1e-2
    assert not any("lora" in name for part in whole.glob("*/*.safetensors") for name in load_file(part))


def test_an_exported_folder_stands_alone(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    """What somebody does to it reaches neither the base model nor the run."""
    folder = export(adapter, tmp_path / "folder", "--fuse", 1)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert all(path.stat().st_nlink == 1 for path in files)
    assert {path.name for path in folder.iterdir()} == {path.name for path in bases["sd"].iterdir()} | {
        "stepbudget.json"
    }


def test_what_is_exported_can_be_read_by_others(adapter: Path, tmp_path: Path) -> None:
    mask = os.umask(0o022)
    try:
        file = export(adapter, tmp_path / "copy.safetensors")
    finally:
        os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o644


def test_the_embedded_base_and_an_adapter_become_one_file(tmp_path: Path) -> None:
    base = ROOT / "assets" / "tiny-sd"
    file = make_adapter(base, tmp_path / "style.safetensors", text=False)
    whole = export(file, tmp_path / "model.safetensors", "--fuse", 1)
    again = export(whole, tmp_path / "again", "--config", base)
    assert torch.allclose(draw(load(again)), adapted(base, file), atol=1e-3)


def test_one_of_several_weights_of_a_run_is_chosen(
    bases: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(f"base_model: {{path: {bases['sd']}}}\n")
    (run / "run.json").write_text('{"cell": {"resolution": 32}}')
    make_networks(bases["sd"], run / "last")
    shutil.copy(adapter, run / "best.safetensors")
    best = export(run, tmp_path / "best.safetensors")
    last = export(run, tmp_path / "last", "--which", "last")
    assert load_file(best).keys() == load_file(adapter).keys()
    trained = UNet2DConditionModel.from_pretrained(run / "last" / "unet").state_dict()
    written = DiffusionPipeline.from_pretrained(last).unet.state_dict()
    assert all(torch.equal(trained[name], written[name]) for name in trained)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "--to", "{new}.safetensors"], ["RUN_OR_WEIGHTS=nowhere", "no such file or folder"]),
        (["{adapter}", "--to", "{adapter}"], ["--to=", "is there already"]),
        (["{adapter}", "--to", "{new}"], ["--format=folder", "--fuse 1", "kohya"]),
        (["{adapter}", "--to", "{new}", "--format", "kohya"], ["--to=", "ends in .safetensors"]),
        (["{adapter}", "--to", "{new}", "--fuse", "0"], ["--fuse=0"]),
        (
            ["{adapter}", "--to", "{new}.safetensors", "--fuse", "1", "--format", "kohya"],
            ["--format=kohya", "whole model", "single_file"],
        ),
        (["{adapter}", "--to", "{new}.safetensors", "--which", "last"], ["--which=last", "no run folder"]),
        (["{networks}", "--to", "{new}", "--fuse", "1"], ["--fuse=1", "is no adapter"]),
        (
            ["{networks}", "--to", "{new}.safetensors", "--format", "kohya"],
            ["--format=kohya", "is no adapter"],
        ),
        (["{networks}", "--to", "{new}.safetensors", "--format", "folder"], ["--format=folder", "a folder"]),
        (["{dora}", "--to", "{new}.safetensors", "--format", "kohya"], ["--format=kohya", "DoRA"]),
        (
            ["{sd3}", "--to", "{new}.safetensors", "--format", "kohya"],
            ["--format=kohya", "Stable Diffusion 3"],
        ),
        (["{sd3}", "--to", "{new}", "--fuse", "1", "--base", "{sd base}"], ["adapter of Stable Diffusion 3"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_request_gets_one_clear_line_and_writes_nothing(
    bases: dict[str, Path],
    adapter: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: list[str],
) -> None:
    places = {"adapter": adapter, "new": tmp_path / "out" / "new", "sd base": bases["sd"]}
    if words[0] == "{networks}":
        places["networks"] = make_networks(bases["sd"], tmp_path / "best")
    if words[0] == "{dora}":
        places["dora"] = make_adapter(bases["sd"], tmp_path / "dora.safetensors", dora=True)
    if words[0] == "{sd3}":
        places["sd3"] = make_adapter(bases["sd3"], tmp_path / "sd3.safetensors")
    capsys.readouterr()
    line = [word.format_map(places) for word in words]
    assert main([*line, "--cache-dir", str(tmp_path / "cache")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    for text in says:
        assert text in error
    assert not list(tmp_path.glob("out/*")) and not list(tmp_path.glob("out/.*"))


def test_a_damaged_base_leaves_nothing_behind(
    bases: dict[str, Path], adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = shutil.copytree(bases["sd"], tmp_path / "base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    to = tmp_path / "out" / "folder"
    words = [adapter, "--to", to, "--fuse", 1, "--base", base, "--cache-dir", tmp_path / "cache"]
    assert main([str(word) for word in words]) == 2
    assert "unet cannot be loaded" in capsys.readouterr().err
    assert not to.exists()
