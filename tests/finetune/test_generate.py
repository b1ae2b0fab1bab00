"""Grids: every image is what diffusers draws by hand, and a wrong request is refused before anything is drawn."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from typing import Any

from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from hypothesis import given, strategies
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFont
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch

from finetune.generate.__main__ import main
from finetune.generate.options import parse_weighted
from finetune.generate.sheet import LEAST, _wrap, make_sheet
from tests.finetune.tiny_adapters import make_adapter, make_networks
from tests.finetune.tiny_bases import MAKERS
from tests.finetune.tiny_pipeline import make_pipeline
import train

ROOT = Path(__file__).resolve().parents[2]
PROMPT, STEPS, GUIDANCE = "a box 1", 2, 3.0
Pixels = NDArray[np.uint8]

# Of numpy 2, for lines of diffusers' Euler scheduler.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    return {name: MAKERS[name](folder / name) for name in ("sd", "sdxl", "sd3")}


@pytest.fixture(scope="module")
def adapters(bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    made = {name: make_adapter(base, folder / f"{name}.safetensors") for name, base in bases.items()}
    sd = bases["sd"]
    return made | {
        "second": make_adapter(sd, folder / "second.safetensors", seed=2, text=False, rank=3),
        "dora": make_adapter(sd, folder / "dora.safetensors", dora=True),
        "dropout": make_adapter(sd, folder / "dropout.safetensors", dropout=0.5),
    }


@pytest.fixture(scope="module")
def run(base_overrides: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A real run of two steps at 16 px."""
    folder = tmp_path_factory.mktemp("runs") / "boxes"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    overrides = [*base_overrides, f"run_dir={folder}", "budget.max_steps=2", "resolution.pixels=16"]
    assert train.run(overrides) == 0
    yield folder
    for number, handler in handlers.items():
        signal.signal(number, handler)


def generate(to: Path, *words: object) -> list[list[Pixels]]:
    """Draw a grid; the single images by row and column."""
    given = [PROMPT] if "--prompts" not in words else []
    fixed = ["--steps", STEPS, "--guidance", GUIDANCE, "--device", "cpu", "--cache-dir", to.parent / "cache"]
    line = [*words, *(["--prompts", *given] if given else []), *fixed, "--to", to]
    assert main([str(word) for word in line]) == 0
    rows: dict[str, list[Pixels]] = {}
    for file in sorted(to.with_suffix("").iterdir()):
        rows.setdefault(file.name[:6], []).append(np.asarray(Image.open(file)))
    return list(rows.values())


def by_hand(pipeline: Any, seed: int = 0) -> Pixels:
    """What a person draws with diffusers."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(seed)
    image = pipeline(PROMPT, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generator).images[
        0
    ]
    return np.asarray(image)


@pytest.mark.parametrize("family", ["sd", "sdxl", "sd3"])
def test_images_equal_those_that_diffusers_draws_by_hand(
    bases: dict[str, Path], adapters: dict[str, Path], tmp_path: Path, family: str
) -> None:
    drawn = generate(tmp_path / "grid.png", f"{adapters[family]}:0.7", "base", "--seeds", 0, 3)
    pipeline = DiffusionPipeline.from_pretrained(bases[family])
    expected = [by_hand(pipeline, seed) for seed in (0, 3)]
    pipeline.load_lora_weights(adapters[family].parent, weight_name=adapters[family].name, adapter_name="one")
    pipeline.set_adapters(["one"], [0.7])
    for row, seed, untouched in zip(drawn, (0, 3), expected, strict=True):
        assert np.array_equal(row[0], by_hand(pipeline, seed))
        assert np.array_equal(row[1], untouched)
        assert not np.array_equal(row[0], row[1])
    assert not np.array_equal(drawn[0][1], drawn[1][1])


@pytest.mark.parametrize("adapter", ["sd", "dora"])
def test_weight_zero_is_the_base_and_adapters_leave_it_as_it_was(
    adapters: dict[str, Path], tmp_path: Path, adapter: str
) -> None:
    ((off, on, second, base),) = generate(
        tmp_path / "grid.png", f"{adapters[adapter]}:0,1", adapters["second"], "base"
    )
    assert np.array_equal(off, base)
    assert not np.array_equal(on, base)
    assert not np.array_equal(second, on)


def test_stacked_adapters_equal_the_sum_of_their_matrices(
    bases: dict[str, Path], adapters: dict[str, Path], tmp_path: Path
) -> None:
    first = make_adapter(bases["sd"], tmp_path / "first.safetensors", seed=3, text=False)
    pipeline = DiffusionPipeline.from_pretrained(bases["sd"])
    with torch.no_grad():
        for file, weight, rank in ((first, 0.5, 2), (adapters["second"], -0.8, 3)):
            tensors = load_file(file)
            for name in [name for name in tensors if name.endswith("lora_A.weight")]:
                layer = pipeline.unet.get_submodule(name.removeprefix("unet.").removesuffix(".lora_A.weight"))
                up = tensors[name.replace("lora_A", "lora_B")]
                layer.weight += weight * (3.0 / rank) * up @ tensors[name]
    ((stacked, alone),) = generate(
        tmp_path / "grid.png", f"{first}:0.5", "base", "--lora", f"{adapters['second']}:-0.8"
    )
    assert np.abs(stacked.astype(int) - by_hand(pipeline)).max() <= 1
    assert not np.array_equal(stacked, alone)


def test_every_weight_makes_a_column_and_every_prompt_and_seed_a_row(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    loras = ["--lora", f"{adapters['sd']}:0,1", "--lora", f"{adapters['second']}:0,1,2"]
    words = ["base", "--base", base_of(adapters["sd"]), "--prompts", "a", "b", "--seeds", 0, 1]
    drawn = generate(tmp_path / "grid.png", *words, *loras)
    assert [len(row) for row in drawn] == [6] * 4
    assert len({image.tobytes() for row in drawn for image in row}) == 24


def base_of(adapter: Path) -> str:
    with safe_open(adapter, framework="np") as opened:
        base: str = opened.metadata()["base_model"]
    return base


def test_dropout_of_an_adapter_is_for_training_only(adapters: dict[str, Path], tmp_path: Path) -> None:
    ((without, dropout),) = generate(tmp_path / "grid.png", adapters["sd"], adapters["dropout"])
    assert np.array_equal(without, dropout)


def test_trained_networks_take_the_place_of_the_bases(bases: dict[str, Path], tmp_path: Path) -> None:
    networks = make_networks(bases["sd"], tmp_path / "best")
    ((drawn,),) = generate(tmp_path / "grid.png", networks)
    unet = UNet2DConditionModel.from_pretrained(networks / "unet")
    assert np.array_equal(drawn, by_hand(DiffusionPipeline.from_pretrained(bases["sd"], unet=unet)))


def test_a_run_is_drawn_with_its_weights_its_base_and_its_size(run: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(run, tmp_path / "boxes")
    random = make_adapter(Path(base_of(run / "best.safetensors")), tmp_path / "random.safetensors")
    ((best,),) = generate(tmp_path / "best.png", mine)
    shutil.copy(random, mine / "last.safetensors")
    ((still,),) = generate(tmp_path / "still.png", mine)
    shutil.move(mine / "last.safetensors", mine / "recommended.safetensors")
    ((recommended,),) = generate(tmp_path / "recommended.png", mine)
    assert best.shape == (16, 16, 3)
    assert np.array_equal(best, still)
    assert not np.array_equal(best, recommended)


def test_weights_trained_on_pure_noise_are_drawn_from_pure_noise(run: Path, tmp_path: Path) -> None:
    base = make_pipeline(tmp_path / "base", prediction="v_prediction")
    scheduler = base / "scheduler" / "scheduler_config.json"
    record = json.loads(scheduler.read_text())
    scheduler.write_text(
        json.dumps(record | {"rescale_betas_zero_snr": False, "timestep_spacing": "leading"})
    )
    mine = shutil.copytree(run, tmp_path / "boxes")
    make_adapter(base, mine / "best.safetensors")
    config = (mine / "config.yaml").read_text().replace("zero_terminal_snr: false", "zero_terminal_snr: true")
    (mine / "config.yaml").write_text(config)
    ((drawn,),) = generate(tmp_path / "grid.png", mine, "--base", base, "--size", 32)
    pipeline = DiffusionPipeline.from_pretrained(base)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing", clip_sample=False
    )
    pipeline.load_lora_weights(mine, weight_name="best.safetensors")
    assert np.array_equal(drawn, by_hand(pipeline))


def test_images_and_grid_carry_their_parameters(adapters: dict[str, Path], tmp_path: Path) -> None:
    generate(
        tmp_path / "grid.png", f"{adapters['sd']}:0.5", "--prompts", "ein Würfel 立方", "--negative", "no"
    )
    with Image.open(tmp_path / "grid" / "row-01-column-01.png") as image:
        record, line = json.loads(image.text["stepbudget"]), image.text["parameters"]
    assert (record["prompt"], record["negative"], record["seed"]) == ("ein Würfel 立方", "no", 0)
    assert record["adapters"] == [{"file": str(adapters["sd"]), "weight": 0.5}]
    assert line.splitlines()[:2] == ["ein Würfel 立方", "Negative prompt: no"]
    assert "Steps: 2, CFG scale: 3, Seed: 0, Size: 32x32" in line
    with Image.open(tmp_path / "grid.png") as grid:
        assert json.loads(grid.text["stepbudget"])["rows"] == [["ein Würfel 立方", 0]]


def refused(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: object) -> str:
    """The one line that a wrong request gets; nothing is written."""
    to = tmp_path / "out" / "grid.png"
    line = [*words, "--prompts", "a", "--cache-dir", tmp_path / "cache"]
    line += [] if "--to" in words else ["--to", to]
    assert main([str(word) for word in line]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out/**/*.png"))
    return error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], ["RUN_OR_FILE=nowhere", "no such file or folder"]),
        (["{sd}:much"], ["much is no weight", "0.8"]),
        (["{sd}:nan"], ["nan is no weight"]),
        (["base"], ["RUN_OR_FILE=base", "--base"]),
        (["base:0.5", "--base", "tiny"], ["RUN_OR_FILE=base", "takes no weight"]),
        (["base", "--base", "sd99"], ["--base=sd99", "tiny", "sdxl"]),
        (["{sdxl}", "--base", "{sd base}"], ["adapter of Stable Diffusion XL", "Stable Diffusion 1 or 2"]),
        (["{sd}", "--base", "{other sd}"], ["does not fit", "size mismatch", "--base"]),
        (["{extra}", "--base", "{sd base}"], ["1 of its", "tensors have no place", "--base"]),
        (["{sd}", "--size", "33"], ["--size=33", "multiple of 2", "32"]),
        (["{sd}", "--lora", "{sd base}"], ["--lora=", "is no adapter"]),
        (["{sd}", "--steps", "0"], ["--steps=0"]),
        (["{sd}", "--guidance", "nan"], ["--guidance=nan"]),
        (["{sd}", "--seeds", "-1"], ["--seeds=-1"]),
        (["{sd}", "--to", "grid.jpg"], ["--to=grid.jpg", "grid.png"]),
        (["{damaged}"], ["cannot be read", "download it again"]),
        (["{text}"], ["is no .safetensors file"]),
        (["{empty run}"], ["has no weights", "it ended as diverged"]),
        (["{folder}"], ["holds no run", "model_index.json"]),
        (["{moved}"], ["its base model /gone/away", "--base"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_a_wrong_request_gets_one_clear_line(
    bases: dict[str, Path],
    adapters: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    says: list[str],
) -> None:
    places = {**{name: str(file) for name, file in adapters.items()}, "sd base": str(bases["sd"])}
    for word in words:
        for name in ("other sd", "extra", "damaged", "text", "empty run", "folder", "moved"):
            if f"{{{name}}}" in word:
                places[name] = str(make_wrong(name, bases["sd"], adapters["sd"], tmp_path))
    error = refused(capsys, tmp_path, *(word.format_map(places) for word in words))
    for text in says:
        assert text in error


def make_wrong(name: str, base: Path, adapter: Path, tmp_path: Path) -> Path:
    """Something that cannot be drawn with."""
    target = tmp_path / name.replace(" ", "-")
    if name == "other sd":
        return MAKERS["sd2 real"](target)
    if name in ("extra", "moved"):
        file, tensors = tmp_path / f"{name}.safetensors", load_file(adapter)
        if name == "extra":
            up = next(key for key in tensors if key.startswith("unet") and "lora_B" in key)
            tensors["unet.nowhere.to_q.lora_B.weight"] = tensors[up].clone()
        save_file(tensors, file, metadata={"base_model": "/gone/away"})
        return file
    if name in ("empty run", "folder"):
        target.mkdir()
        if name == "empty run":
            (target / "config.yaml").write_text("seed: 0\n")
            (target / "status.json").write_text('{"state": "ended", "outcome": "diverged"}')
        return target
    content = adapter.read_bytes()[:-40] if name == "damaged" else b"words"
    file = target.with_suffix(".safetensors" if name == "damaged" else ".txt")
    file.write_bytes(content)
    return file


@pytest.mark.long
def test_the_command_is_quiet_on_the_embedded_base(tmp_path: Path) -> None:
    """A process of its own: what libraries print when they are imported is seen only there."""
    adapter = make_adapter(ROOT / "assets" / "tiny-sd", tmp_path / "style.safetensors", text=False)
    words = ["base", adapter, "--prompts", "a red fox", "--steps", "2", "--to", tmp_path / "grid.png"]
    done = subprocess.run(
        [sys.executable, "-m", "finetune.generate", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{tmp_path / 'grid.png'}\n", "")
    with Image.open(tmp_path / "grid" / "row-01-column-02.png") as image:
        assert image.size == (64, 64)


@given(
    strategies.text(strategies.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1),
    strategies.lists(strategies.floats(allow_nan=False, allow_infinity=False), min_size=1),
)
def test_weights_are_read_as_written(name: str, weights: list[float]) -> None:
    text = f"{name}:{','.join(map(repr, weights))}"
    parsed = parse_weighted("--lora", text)
    assert (parsed.name, parsed.weights) == (name, tuple(weights))


def test_a_colon_in_the_name_of_a_file_stays_in_it(tmp_path: Path) -> None:
    file = tmp_path / "style:2"
    file.touch()
    assert parse_weighted("--lora", str(file)).name == str(file)
    assert parse_weighted("--lora", f"{file}:0.5").weights == (0.5,)


@given(strategies.text("ab /é", max_size=60))
def test_wrapping_keeps_every_letter_and_the_width(text: str) -> None:
    font = ImageFont.load_default(12)
    wrapped = _wrap(text, font, 60)
    assert wrapped.replace("\n", "") == text
    assert all(font.getlength(line.rstrip()) <= 60 for line in wrapped.split("\n"))


def test_the_grid_shows_every_image_whole_and_in_its_place() -> None:
    colours = [["red", "lime"], ["blue", "yellow"]]
    images = [[Image.new("RGB", (32, 32), colour) for colour in row] for row in colours]
    sheet = np.asarray(
        make_sheet(images, [("a long prompt " * 9, "seed 0"), ("b", "seed 1")], ["x" * 99, "y"])
    )
    places = {}
    for colour, value in {
        "red": (255, 0, 0),
        "lime": (0, 255, 0),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
    }.items():
        rows, columns = np.nonzero((sheet == value).all(axis=-1))
        assert len(rows) == LEAST**2
        places[colour] = (rows.min(), columns.min())
    assert places["red"][0] == places["lime"][0] < places["blue"][0] == places["yellow"][0]
    assert places["red"][1] == places["blue"][1] < places["lime"][1] == places["yellow"][1]
