"""train.py as a user and a supervisor meet it: exit statuses, complaints, signals."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from PIL import Image
import pytest

from curves.run_folder import RunFolder
from tests.finetune.tiny_pipeline import make_images, make_pipeline, read_curve

ROOT = Path(__file__).resolve().parents[1]
TRAIN = [sys.executable, str(ROOT / "train.py")]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
PATIENCE_S = 120.0  # of waiting for a process; the machine may be busy

# Makes several requests in one process, since each start of Python costs a second: prints their exit statuses, what
# each said, and whether torch was imported.
SEVERAL = """
import contextlib, io, json, sys
import train
from conf.errors import exit_status
answers = []
for overrides in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        status = exit_status(lambda: train.run(overrides))
    answers.append([status, said.getvalue()])
json.dump([answers, "torch" in sys.modules], sys.stdout)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pipeline, images, and damaged variants of both."""
    root = tmp_path_factory.mktemp("cli")
    make_pipeline(root / "base")
    make_images(root / "images", 16)
    make_images(root / "few", 4)
    (root / "empty").mkdir()
    (make_images(root / "broken", 12) / "image-003.png").write_bytes(b"no image")
    (make_images(root / "uncaptioned", 12) / "image-004.txt").unlink()
    moving = make_images(root / "moving", 12)
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 200)]
    frames[0].save(moving / "image-000.png", save_all=True, append_images=frames[1:])
    return root


def common(folder: Path, run: str, *overrides: str) -> list[str]:
    """Overrides of a quick run on the random pipeline; a later one replaces an earlier one."""
    chosen = [
        f"dataset.path={folder / 'images'}",
        "dataset_size=n4",
        "dataset.held_out=8",
        "base_model=custom",
        f"base_model.path={folder / 'base'}",
        f"cache_dir={folder / 'cache'}",
        f"run_dir={folder / run}",
        "evaluation.strata=2",
        "evaluation.training_images=0",
        "samples.count=0",
        "tracker=none",
        "stopping=none",
        "device=cpu",
    ]
    replaced = {item.split("=")[0] for item in overrides}
    return [*(item for item in chosen if item.split("=")[0] not in replaced), *overrides]


def run_several(requests: Sequence[list[str]]) -> tuple[list[tuple[int, str]], bool]:
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL],
        input=json.dumps(requests),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers, torch_imported = json.loads(done.stdout)
    return [(status, said) for status, said in answers], torch_imported


@contextmanager
def started(overrides: list[str], **options: object) -> Iterator[subprocess.Popen[str]]:
    """A train.py process, ended for certain when the test is over."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        [*TRAIN, *overrides], cwd=ROOT, stderr=subprocess.PIPE, text=True, **{"env": ENVIRONMENT, **options}
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def await_step(folder: RunFolder, step: int, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + PATIENCE_S
    while time.monotonic() < limit and process.poll() is None:
        points, status = folder.points(), folder.read_status()
        if (points and points[-1].step >= step) or (status is not None and status.step >= step):
            return
        time.sleep(0.05)
    pytest.fail(f"step {step} was not reached; status {folder.read_status()}, exit {process.poll()}")


def test_wrong_requests_end_with_one_line_and_status_2_before_torch_is_imported(folder: Path) -> None:
    cases: list[tuple[list[str], list[str]]] = [
        (["optimizer.lrr=1"], ["unknown key", "optimizer.lr"]),
        (["dataset_size=n7"], ["dataset_size=n7", "n8"]),
        (["optimizer.lr=-1"], ["optimizer.lr=-1"]),
        (["optimizer.lr=fast"], ["optimizer.lr"]),
        (["resolution.pixels=50"], ["resolution.pixels=50", "multiple of 8"]),
        ([f"dataset.path={folder / 'nowhere'}"], ["dataset.path", "nowhere", "no such folder"]),
        ([f"dataset.path={folder / 'empty'}"], ["dataset.path", "no images in this folder"]),
        ([f"dataset.path={folder / 'broken'}"], ["image-003.png", "dataset.skip_unreadable=true"]),
        ([f"dataset.path={folder / 'uncaptioned'}"], ["image-004.png has no caption", "captions=instance"]),
        ([f"dataset.path={folder / 'moving'}"], ["image-000.png has 2 frames"]),
        ([f"dataset.path={folder / 'few'}"], ["dataset.held_out=8", "4 usable images"]),
        (["dataset_size=n64"], ["dataset_size.images=64", "16 usable images", "use 8 or fewer"]),
        (["dataset.held_out=3"], ["dataset.held_out=3", "too small"]),
        (["base_model.path=assets/nowhere"], ["base_model.path=assets/nowhere", "no such folder"]),
        (["base_model.path=nobody-here/nothing-9f3a"], ["not available from the model hub"]),
        ([f"base_model.path={folder / 'empty'}"], ["holds no model_index.json"]),
        (["stopping=patience", "stopping.parameters.patience=0"], ["stopping=patience", "patience"]),
        (["stopping=patience", "+stopping.parameters.patiense=3"], ["patiense"]),
        (["budget=recommended"], ["budget.study"]),
        (
            ["budget=recommended", f"budget.study={folder / 'empty'}"],
            ["budget.study", "python -m analysis recommend"],
        ),
        (
            ["budget=recommended", "budget.study=x", "optimizer.lr=1"],
            ["optimizer.lr is set by budget=recommended"],
        ),
    ]
    answers, torch_imported = run_several(
        [common(folder, f"wrong-{index}", *overrides) for index, (overrides, _) in enumerate(cases)]
    )
    for index, ((overrides, expected), (status, said)) in enumerate(zip(cases, answers, strict=True)):
        assert status == 2, (overrides, said)
        assert said.startswith("error: "), (overrides, said)
        assert said.count("\n") == 1, (overrides, said)
        assert all(word in said for word in expected), (overrides, said)
        record = RunFolder(folder / f"wrong-{index}").read_status()
        assert record is not None, overrides
        assert (record.state, record.outcome) == ("ended", "config_error")
        assert f"error: {record.reason}\n" == said
    assert not torch_imported


@pytest.mark.long
def test_unreadable_images_are_left_out_on_request_and_damaged_weights_refused(folder: Path) -> None:
    weights = make_pipeline(folder / "torn") / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:4000])
    skip = ["dataset.skip_unreadable=true", "dataset_size=n2", "budget.max_steps=1"]
    (skipped, said), (torn, complaint) = run_several(
        [
            common(folder, "skip", f"dataset.path={folder / 'broken'}", *skip),
            common(folder, "torn-run", f"base_model.path={folder / 'torn'}"),
        ]
    )[0]
    assert skipped == 0, said
    assert "note: image-003.png cannot be read" in said
    assert (torn, complaint.count("\n")) == (2, 1)
    assert "unet cannot be loaded" in complaint


def test_the_script_itself_says_one_line_and_exits_with_2(folder: Path) -> None:
    done = subprocess.run(
        [*TRAIN, "budget=fixd"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: budget=fixd: there is no such option; valid are auto, fixed, recommended\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        (["--help"], 0, "budget"),
        (["--cfg", "job", "dataset_size=n16"], 0, "images: 16"),
        (["--version"], 0, "Hydra 1.3"),
        (["--cfg", "job", "optimizer.lrr=1"], 2, "lrr"),
        (["--cfg", "job", "resolution=512"], 2, "did you mean px512?"),
    ],
)
def test_hydra_flags_go_to_hydra(folder: Path, arguments: list[str], status: int, expected: str) -> None:
    done = subprocess.run(
        [*TRAIN, *arguments], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    assert expected in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_a_multirun_does_every_run(folder: Path, tmp_path: Path) -> None:
    overrides = [item for item in common(folder, "-") if not item.startswith("run_dir")]
    overrides += ["budget.max_steps=1", "method=lora,text_to_image", f"runs_dir={tmp_path / 'runs'}"]
    done = subprocess.run(
        [*TRAIN, "-m", *overrides], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    methods = {RunFolder(path).read_facts().cell["method"] for path in (tmp_path / "runs").glob("*-n4-*")}
    assert methods == {"lora", "text_to_image"}


@pytest.mark.long
def test_sigterm_checkpoints_and_the_same_command_goes_on_exactly(folder: Path) -> None:
    overrides = ["budget.max_steps=60", "evaluation.first_step=2", "evaluation.ratio=4"]
    interrupted = RunFolder(folder / "interrupted")
    with started(common(folder, "interrupted", *overrides)) as process:
        await_step(interrupted, 2, process)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert process.returncode == 1, said
    status = interrupted.read_status()
    assert status is not None
    assert (status.state, status.outcome) == ("ended", "preempted")
    assert "Go on with: python train.py dataset.path=" in said
    step = status.step
    assert 2 <= step < 60, "the run must have been interrupted on its way"
    interrupted.stop_request.unlink(missing_ok=True)
    (first, _), (second, _) = run_several(
        [common(folder, "interrupted", *overrides), common(folder, "whole", *overrides)]
    )[0]
    assert (first, second) == (0, 0)
    assert read_curve(interrupted.path) == read_curve(folder / "whole")


@pytest.mark.long
def test_a_trainer_does_not_outlive_its_supervisor(folder: Path) -> None:
    run = RunFolder(folder / "orphan")
    environment = {**ENVIRONMENT, "STEPBUDGET_SUPERVISED": "1", "STEPBUDGET_TRIAL": "7"}
    overrides = common(folder, "orphan", "budget.max_steps=100000", "evaluation.enabled=false")
    with started(overrides, env=environment, stdin=subprocess.PIPE) as process:
        await_step(run, 3, process)
        assert run.read_facts().trial == 7
        assert process.stdin is not None
        began = time.monotonic()
        process.stdin.close()
        process.stdin = None
        said = process.communicate(timeout=PATIENCE_S)[1]
        assert time.monotonic() - began < 5
    assert process.returncode in (1, -signal.SIGALRM), said
    assert run.outcome() in ("preempted", None)  # None where the checkpoint took longer than the patience
