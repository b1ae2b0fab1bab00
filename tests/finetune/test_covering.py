"""Every pair of family, method, memory preset, precision, optimizer and text encoder occurs in one row at least.

A row trains, moves what it should and nothing else, saves what diffusers loads to equal output, and resumes bit for bit.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from diffusers import StableDiffusion3Pipeline, StableDiffusionPipeline, StableDiffusionXLPipeline
import pytest
import torch
from torch import Tensor, nn

from conf.compose import load_config, options
from conf.errors import RequestError
from conf.validate import OPTIMIZER_OPTIONS
from curves.run_folder import RunFolder
from finetune import loop
from finetune.families.registry import make_family
from finetune.setup import Run
from finetune.trained import TrainedModel
from tests.finetune.tiny_pipeline import make_pipeline, read_curve
from tests.finetune.tiny_sd3 import make_sd3
from tests.finetune.tiny_sdxl import make_sdxl
import train

pytestmark = pytest.mark.long

Train = Callable[..., int]

FACTORS = {
    "family": ("sd", "sdxl", "sd3"),
    "method": ("lora", "dreambooth_lora", "text_to_image", "dreambooth"),
    "memory": ("minimal", "low", "normal", "fast"),
    "precision": ("no", "bf16"),
    "optimizer": ("adamw", "adamw8bit", "adafactor", "prodigy", "schedulefree"),
    "text": ("frozen", "trained"),
}
REFUSED = {("memory=minimal", "optimizer=schedulefree"): r"memory\.offload_optimizer=true: .*schedulefree"}
PIPELINES = {
    "sd": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
}
TEXT_ENCODERS = {  # that fine-tuning trains
    "sd": ["text_encoder"],
    "sdxl": ["text_encoder", "text_encoder_2"],
    "sd3": ["text_encoder", "text_encoder_2"],
}
# SDXL reads the last but one hidden state of its first text encoder. SD3's last block attends from images only: nothing
# depends on its query of the text, which an optimizer leaves alone but for weight decay.
UNREAD = {
    "sdxl": ("text_encoders.text_encoder.encoder.layers.1.", "text_encoders.text_encoder.final_layer_norm.")
}
IDLE = "denoiser.transformer_blocks.1.attn.add_q_proj."
RATES = {"prodigy": 100.0}  # of its first estimate, 1e-6
# Tracing one graph takes a CPU five seconds: the rows train in one, and measure nothing, which would take another.
COMPILED = ["memory.compile_backend=counting", "evaluation.enabled=false"]
STEPS, PAUSE = 4, 2
# Relative to the largest number predicted. In half precision, layouts that add in another order differ by a rounding.
TOLERANCE = {"no": 1e-5, "bf16": 2e-2}

Row = tuple[str, ...]
Pair = frozenset[tuple[str, str]]


def levels(row: Row) -> list[tuple[str, str]]:
    """The levels of a row with their factors."""
    return list(zip(FACTORS, row, strict=True))


def pairs(row: Row) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(levels(row), 2)}


def refused(row: Row) -> bool:
    named = {f"{factor}={level}" for factor, level in levels(row)}
    return any(named.issuperset(pair) for pair in REFUSED)


ALLOWED = [row for row in product(*FACTORS.values()) if not refused(row)]


def covering_rows() -> list[Row]:
    """Rows that hold every pair which may occur: each time one with most of what is missing, of rare levels if it can be."""
    held = {row: pairs(row) for row in ALLOWED}
    missing = set().union(*held.values())
    rows: list[Row] = []
    while missing:
        used = Counter(level for row in rows for level in levels(row))
        best = max(
            ALLOWED, key=lambda row: (len(held[row] & missing), -sum(used[level] for level in levels(row)))
        )
        rows.append(best)
        missing -= held[best]
    return rows


ROWS = covering_rows()


@dataclass(frozen=True)
class Case:
    """A row, and what it is asked for with."""

    family: str
    method: str
    memory: str
    precision: str
    optimizer: str
    text: str

    @property
    def adapted(self) -> bool:
        return self.method in ("lora", "dreambooth_lora")

    @property
    def overrides(self) -> list[str]:
        trained = "lora" if self.adapted else "full"
        subject = ["captions.class_word=box", "method.prior_images=3"] if "dreambooth" in self.method else []
        return [
            f"method={self.method}",
            f"method.text_encoder={trained if self.text == 'trained' else 'frozen'}",
            f"memory={self.memory}",
            f"memory.precision={self.precision}",
            *(COMPILED if self.memory == "fast" else ["evaluation.first_step=2"]),
            *(["method.targets=attention"] if self.memory == "fast" and self.adapted else []),
            f"optimizer={self.optimizer}",
            f"optimizer.lr={RATES.get(self.optimizer, 0.01)}",
            f"budget.max_steps={STEPS}",
            "evaluation.training_images=0",
            "checkpoints.final=last",
            *subject,
        ]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    return {
        "sd": make_pipeline(root / "sd"),
        "sdxl": make_sdxl(root / "sdxl"),
        "sd3": make_sd3(root / "sd3"),
    }


@pytest.fixture(scope="module")
def compiled_calls() -> Iterator[list[int]]:
    """A backend of torch.compile, `counting`, that runs graphs as they are and notes each time one is run.

    One for all rows, so that networks of one structure are traced once.
    """
    calls: list[int] = []

    def counting(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            calls.append(1)
            return graph(*arguments)

        return run

    torch._dynamo.register_backend(counting, name="counting")
    yield calls
    del torch._dynamo.backends.registry._COMPILER_FNS["counting"]
    torch._dynamo.reset()


@dataclass
class Watched:
    """A run as seen from inside: its parameters when it was set up, and itself."""

    start: dict[str, Tensor]
    run: Run


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.named_parameters()}


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """The runs of a test, in order."""
    seen: list[Watched] = []
    original = loop.set_up

    def watching(*arguments: Any) -> Run:
        run = original(*arguments)
        seen.append(Watched(values(run.trained), run))
        return run

    monkeypatch.setattr(loop, "set_up", watching)
    return seen


def pause_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Ask a run to end after a step so that it can be resumed."""
    original = loop.training_step

    def stepping(run: Run) -> float:
        loss = original(run)
        if run.counters.step + 1 == step:
            run.folder.request_stop("preempted", "a test")
        return loss

    patch.setattr(loop, "training_step", stepping)


def expected_to_train(case: Case, names: set[str]) -> set[str]:
    """The names of the parameters that a row trains."""
    parts = ("denoiser.", *(["text_encoders."] if case.text == "trained" else []))
    read = {name for name in names if not name.startswith(UNREAD.get(case.family, ()))}
    return {name for name in read if name.startswith(parts) and ("lora_" in name or not case.adapted)}


def base_values(case: Case, base: Path) -> dict[str, Tensor]:
    """The parameters of the base model's files, named as those of a trained model without adapters."""
    return values(networks_of(case, PIPELINES[case.family].from_pretrained(base)))


def networks_of(case: Case, pipeline: Any) -> nn.Module:
    """The networks of a pipeline that a row may train, with its own conditioning."""
    denoiser = pipeline.transformer if case.family == "sd3" else pipeline.unet
    encoders = {
        part: getattr(pipeline, part) for part in TEXT_ENCODERS[case.family] if case.text == "trained"
    }
    return TrainedModel(make_family(case.family), denoiser, encoders).eval()


def reload(case: Case, base: Path, folder: RunFolder) -> nn.Module:
    """The base pipeline of diffusers with what a run has left."""
    pipeline = PIPELINES[case.family].from_pretrained(base)
    if case.adapted:
        file = folder.adapter("last")
        pipeline.load_lora_weights(file.parent, weight_name=file.name)
        return networks_of(case, pipeline)
    left = sorted(path.name for path in folder.model("last").iterdir() if path.is_dir())
    denoiser = "transformer" if case.family == "sd3" else "unet"
    assert left == sorted([denoiser, *(TEXT_ENCODERS[case.family] if case.text == "trained" else [])])
    for part in left:
        kind = type(getattr(pipeline, part))
        setattr(pipeline, part, kind.from_pretrained(folder.model("last") / part))
    return networks_of(case, pipeline)


@torch.no_grad()
def predict(model: nn.Module, run: Run) -> Tensor:
    """What a model makes of the first batch of a run."""
    batch = run.training.batch(0, 0, torch.device("cpu"))
    noisy = run.backbone.objective.add_noise(batch.latents, batch.noise, batch.timesteps)
    with run.accelerator.autocast(), torch.compiler.set_stance("force_eager"):
        predicted: Tensor = model.eval()(noisy, run.backbone.objective.times(batch.timesteps), batch.given)
    return predicted.float()


def test_every_pair_occurs() -> None:
    wanted = {
        frozenset({(first, one), (second, other)})
        for first, second in combinations(FACTORS, 2)
        for one in FACTORS[first]
        for other in FACTORS[second]
        if (f"{first}={one}", f"{second}={other}") not in REFUSED
    }
    assert set().union(*map(pairs, ROWS)) == wanted
    assert len(ROWS) <= 24


def test_the_factors_have_all_levels() -> None:
    assert sorted(FACTORS["memory"]) == sorted(options("memory"))
    assert sorted(FACTORS["method"]) == sorted(options("method"))
    assert sorted(FACTORS["optimizer"]) == sorted(OPTIMIZER_OPTIONS)
    assert sorted(FACTORS["family"]) == sorted(PIPELINES)


@pytest.mark.parametrize("pair", REFUSED, ids=" ".join)
def test_pairs_that_cannot_be_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(RequestError, match=REFUSED[pair]):
        load_config(list(pair))


# torch warns of what its own tracing does.
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to:UserWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize("row", ROWS, ids="-".join)
def test_a_row(
    run_train: Train,
    base_overrides: list[str],
    bases: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    watch: list[Watched],
    compiled_calls: list[int],
    row: Row,
) -> None:
    case = Case(*row)
    base = bases[case.family]
    overrides = [*base_overrides, f"base_model.path={base}", *case.overrides]
    compiled_calls.clear()
    config = load_config(overrides)  # once, since composing takes longer than a step

    def run(name: str) -> int:
        return train.run(overrides, replace(config, run_dir=str(tmp_path / name)))

    assert run("whole") == 0
    assert len(compiled_calls) == (STEPS if case.memory == "fast" else 0)
    check_what_moved(case, base, watch[0])
    check_what_is_left(case, base, watch[0].run)
    with monkeypatch.context() as patch:
        pause_at(patch, PAUSE)
        assert run("parts") == 1
    assert run("parts") == 0
    assert watch[2].run.counters.step == STEPS
    whole, parts = values(watch[0].run.trained), values(watch[2].run.trained)
    assert [name for name in whole if not torch.equal(whole[name], parts[name])] == []
    curve = read_curve(tmp_path / "whole")
    assert read_curve(tmp_path / "parts") == curve
    assert curve[-1]["step"] == STEPS
    for name in ("train_loss",) if case.memory == "fast" else ("train_loss", "val_loss"):
        assert 0 < float(str(curve[-1][name])) < 10


def check_what_moved(case: Case, base: Path, watched: Watched) -> None:
    """Every parameter that should train, and no other, which all are as in the base model's files."""
    end = values(watched.run.trained)
    moved = {name for name, value in end.items() if not torch.equal(value, watched.start[name])}
    expected = expected_to_train(case, set(end))
    assert expected
    assert {name for name in moved ^ expected if not name.startswith(IDLE)} == set()
    files = base_values(case, base)
    frozen = {name: value for name, value in end.items() if name not in expected and "lora_" not in name}
    plain = {name.replace(".base_layer", ""): value for name, value in frozen.items()}
    assert (plain.keys() | (set() if case.adapted else expected)) == files.keys()
    shrunk = case.adapted and case.memory != "normal" and case.precision == "bf16"
    for name, value in plain.items():
        rounded = files[name].to(torch.bfloat16) if shrunk and value.dtype == torch.bfloat16 else files[name]
        assert torch.equal(value, rounded), name
    assert shrunk == any(value.dtype == torch.bfloat16 for value in plain.values())


def check_what_is_left(case: Case, base: Path, run: Run) -> None:
    """diffusers loads it, and predicts as the run did at its end, which is not what the base predicts."""
    with run.averaging.applied():
        trained = predict(run.trained, run)
    untrained = predict(networks_of(case, PIPELINES[case.family].from_pretrained(base)), run)
    again = predict(reload(case, base, run.folder), run)
    largest = float(trained.abs().max())
    assert float((again - trained).abs().max()) < TOLERANCE[case.precision] * largest
    assert float((untrained - trained).abs().max()) > 5 * TOLERANCE[case.precision] * largest
