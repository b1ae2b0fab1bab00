"""StepBudget in somebody's own script: real processes of own_trainer.py on a random pipeline, alone and in a sweep."""

from argparse import Namespace
from collections.abc import Callable, Iterator
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers import UNet2DConditionModel
from peft import LoraConfig
import pytest
from safetensors import safe_open
import torch

from curves.run_folder import RunFolder
from finetune.callback import StepBudget
from tests.finetune.conftest import Train
from tests.finetune.tiny_pipeline import read_curve
from tests.sweep.harness import ROOT

pytestmark = pytest.mark.long

TINY = ROOT / "assets" / "tiny-sd"
SCRIPT = Path(__file__).with_name("own_trainer.py")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Script = Callable[..., tuple[StepBudget, torch.optim.Optimizer]]


@pytest.fixture(scope="module")
def settings(cache: Path) -> dict[str, Any]:
    """What the script's arguments do not say: 8 of 16 images held out."""
    return {"dataset.held_out": 8, "evaluation.strata": 2, "cache_dir": str(cache)}


@pytest.fixture
def run_script(images: Path, settings: dict[str, Any]) -> Run:
    """Call with a run folder, settings and flags: runs the script."""

    def run(folder: Path, own: dict[str, Any], *flags: str) -> "subprocess.CompletedProcess[str]":
        given = [
            f"--pretrained_model_name_or_path={TINY}",
            f"--train_data_dir={images}",
            f"--output_dir={folder}",
            "--max_train_steps=1000",
            "--resolution=64",
            "--train_batch_size=2",
            "--seed=0",
            f"--settings={json.dumps(settings | own)}",
        ]
        command = [sys.executable, str(SCRIPT), *given, *flags]
        return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    return run


def call(*words: str) -> str:
    """A command of the project; what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_script_is_interrupted_goes_on_and_is_ended_by_its_rule(
    run_script: Run, run_train: Train, images: Path, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "runs" / "mine")
    # A learning rate far too high, so that the held-out loss soon only rises.
    rule, rate = {"stopping": "patience", "stopping.parameters": {"patience": 4}}, "--learning_rate=0.3"
    done = run_script(run.path, rule, rate, "--fail_at=6:term")
    assert done.returncode == 0, done.stderr
    status, before = run.read_status(), read_curve(run.path)
    assert status is not None
    assert (status.outcome, status.step) == ("preempted", 6)
    assert status.reason == "asked to end by SIGTERM"
    assert [path.name for path in run.path.glob("*checkpoint*")] == ["checkpoint-6"]
    assert not run.adapter("best").exists()  # the run is not over

    done = run_script(run.path, rule, rate, "--resume_from_checkpoint=latest")
    assert done.returncode == 0, done.stderr
    status, points = run.read_status(), run.points()
    assert status is not None
    assert (status.outcome, status.max_steps) == ("stopped", 1000), done.stderr
    assert f"stopped at step {status.step}: {status.reason}" in done.stderr
    assert read_curve(run.path)[: len(before)] == before
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert 6 < steps[-1] == status.step < 1000
    best = min(points, key=lambda point: point.val_loss or 0)
    assert best.step <= 6  # so that the rule has to remember it over the interruption
    assert points.index(best) == len(points) - 5
    for point in points:
        assert point.delta == pytest.approx((point.val_loss or 0) - (points[0].val_loss or 0), abs=1e-12)
        assert point.images_seen == 2 * point.step
        assert point.lr_sum == pytest.approx(0.3 * point.step)
    _check_record(run, images)

    # The panel is that of train.py: the two are measured on the same images, timesteps and noise.
    same = [f"base_model.path={TINY}", "dataset_size=all"]
    assert run_train(tmp_path / "ours", "budget.max_steps=1", *same) == 0
    ours = RunFolder(tmp_path / "ours").points()[0]
    assert ours.panel == run.read_facts().panel == points[0].panel
    assert points[0].val_loss == pytest.approx(ours.val_loss, rel=1e-6)

    told = json.loads(call("analysis", "recommend", str(tmp_path / "runs"), "--json"))
    assert (told["cells"][0]["evidence"]["runs"], told["cells"][0]["method"]) == (1, "lora")


def _check_record(run: RunFolder, images: Path) -> None:
    facts = run.read_facts()
    assert (facts.cell["method"], facts.cell["resolution"], facts.images) == ("lora", 64, 8)
    assert (facts.hyperparameters["lr"], facts.hyperparameters["rank"]) == (0.3, 4)
    assert (facts.hyperparameters["batch"], facts.horizon) == (2, 1000)
    assert run.config.is_file()
    assert run.overrides.is_file()
    with safe_open(run.adapter("best"), framework="pt") as weights:
        assert len(list(weights.keys())) > 0
    trained = {path.resolve() for path in (run.path / "training_images").glob("*.png")}
    assert len(trained) == 8  # the others are held out
    assert trained < set(images.iterdir())


def test_a_script_is_swept(pipeline: Path, images: Path, settings: dict[str, Any], tmp_path: Path) -> None:
    study = tmp_path / "my runs" / "s"
    own = [f"{key}={value}" for key, value in settings.items()]
    call(
        *("sweep", "run", "study=s", f"runs_dir='{study.parent}'", "launch=script"),
        f"launch.command=['{sys.executable}','{SCRIPT}','--resume_from_checkpoint=latest']",
        *("dataset=folder", f"dataset.path={images}", "base_model=custom", f"base_model.path={pipeline}"),
        *("resolution.pixels=32", "optimizer.batch_size=2", "budget.max_steps=6", "stopping=none"),
        *("method.targets=attention", "method.rank=4", "method.alpha=4", "tracker=none", "launch.slots=2"),
        *("sweep.trials=2", "sweep.sampler.name=grid"),
        "space.parameters=[{name: optimizer.lr, choices: [0.001, 0.01]}]",
        *own,
    )
    state = json.loads(call("sweep", "status", str(study), "--json"))
    assert (state["planned"], state["done"]) == (2, 2)
    assert [trial["outcome"] for trial in state["trials"]] == ["complete", "complete"]
    runs = [RunFolder(path) for path in sorted((study / "trials").iterdir())]
    assert sorted(run.read_facts().hyperparameters["lr"] for run in runs) == [0.001, 0.01]
    assert [run.read_facts().trial for run in runs] == [0, 1]
    assert [[point.step for point in run.points()] for run in runs] == [[0, 4, 5, 6], [0, 4, 5, 6]]
    assert runs[0].points()[-1].val_loss != runs[1].points()[-1].val_loss


@pytest.fixture(scope="module")
def unet(pipeline: Path) -> UNet2DConditionModel:
    """With the adapter of the script."""
    unet = UNet2DConditionModel.from_pretrained(pipeline, subfolder="unet").requires_grad_(False)
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=["to_k", "to_q", "to_v", "to_out.0"]))
    return unet


@pytest.fixture
def script(
    unet: UNet2DConditionModel, pipeline: Path, images: Path, settings: dict[str, Any], tmp_path: Path
) -> Iterator[Script]:
    """Call with settings and arguments: what a script does before its loop, in this process."""
    hook = sys.excepthook
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def begin(own: dict[str, Any], **arguments: Any) -> tuple[StepBudget, torch.optim.Optimizer]:
        AcceleratorState._reset_state(reset_partial_state=True)
        optimizer = torch.optim.AdamW([item for item in unet.parameters() if item.requires_grad], lr=1e-3)
        given = {
            "pretrained_model_name_or_path": str(pipeline),
            "train_data_dir": str(images),
            "output_dir": str(tmp_path / "run"),
            "max_train_steps": 100,
            "resolution": 32,
            **arguments,
        }
        accelerator = Accelerator(cpu=True)
        return StepBudget(Namespace(**given), accelerator, unet, optimizer, settings | own), optimizer

    yield begin
    sys.excepthook = hook
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("own", "arguments", "told"),
    [
        ({}, {"max_train_steps": None}, "budget.max_steps is not known: give the script --max_train_steps"),
        ({}, {"train_data_dir": "/nowhere"}, "dataset.path=/nowhere"),
        ({}, {"resolution": 33}, "resolution.pixels=33"),
        ({}, {"lr_scheduler": "polynomial"}, "constant, cosine, linear"),
        ({"stoping": "patience"}, {}, "stoping"),
        ({"optimizer.lr": 0.5}, {}, "optimizer.lr=0.5: the script has 0.001"),
        ({"resolution.pixels": 16}, {}, "--resolution=32: the run is measured at 16 pixels"),
        ({"evaluation.enabled": False, "stopping": "none"}, {}, "evaluation.enabled=false: leave it true"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_ends_the_script_with_one_line(
    script: Script,
    own: dict[str, Any],
    arguments: dict[str, Any],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        script(own, **arguments)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2
    assert len(said) == 1
    assert told in said[0]


def test_a_step_told_twice_ends_the_script(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget, optimizer = script({})
    optimizer.step()
    assert not budget.step(1, 0.5)
    with pytest.raises(SystemExit) as ended:
        budget.step(1, 0.5)
    assert ended.value.code == 2
    assert "error: step(1) after 1 updates: call it once after every optimizer" in capsys.readouterr().err
    assert RunFolder(tmp_path / "run").outcome() == "config_error"


def test_a_script_ends_when_asked_to_and_its_folder_is_not_taken_twice(
    script: Script, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder(tmp_path / "run")
    budget, optimizer = script({})
    optimizer.step()
    run.request_stop("pruned", "others are better")
    assert budget.step(1, 0.5)
    assert budget.ended
    budget.end()
    status = run.read_status()
    assert status is not None
    assert (status.outcome, status.reason, status.step) == ("pruned", "others are better", 1)
    with pytest.raises(SystemExit) as ended:
        script({})
    assert ended.value.code == 2
    assert f"run_dir={run.path}: holds a finished run (pruned)" in capsys.readouterr().err


def test_the_weights_of_step_0_are_those_before_the_first_update(
    script: Script, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / "run")
    budget, optimizer = script({})
    trained = [item for item in unet.parameters() if item.requires_grad]
    before = [item.detach().clone() for item in trained]
    optimizer.step()
    with torch.no_grad():
        for item in trained:
            item.add_(1.0)
    run.request_stop("pruned", "measured at step 0 alone")
    assert budget.step(1, 0.5)
    budget.end()
    assert all(map(torch.equal, trained, before))
    with safe_open(run.adapter("best"), framework="pt") as weights:
        names = [name for name in weights.keys() if "lora_B" in name or "lora.up" in name]  # noqa: SIM118
        assert names
        assert not any(weights.get_tensor(name).any() for name in names)


def test_a_crash_of_the_script_is_recorded(script: Script, tmp_path: Path) -> None:
    script({})
    sys.excepthook(MemoryError, MemoryError(), None)  # what Python does with an exception that nobody handles
    assert RunFolder(tmp_path / "run").outcome() == "out_of_memory"
    script({})
    sys.excepthook(KeyError, KeyError("image"), None)
    status = RunFolder(tmp_path / "run").read_status()
    assert status is not None
    assert (status.outcome, status.reason) == ("crashed", "KeyError: 'image'")


@pytest.mark.parametrize("honest", [True, False])
def test_a_record_of_another_schedule_is_refused(
    script: Script, honest: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    budget, optimizer = script({"evaluation.first_step": 50, "stopping": "none"}, lr_scheduler="linear")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 100 if honest else 1.0)
    status = 0
    try:
        for step in range(1, 101):
            optimizer.step()
            scheduler.step()
            budget.step(step, 0.5)
        budget.end()
    except SystemExit as ended:
        status = ended.code
    assert status == (0 if honest else 2)
    assert RunFolder(tmp_path / "run").outcome() == ("complete" if honest else "config_error")
    refused = (
        "optimizer.schedule=linear optimizer.warmup_steps=0: by it the learning rates of the first 50 steps"
    )
    assert (refused in capsys.readouterr().err) == (not honest)
