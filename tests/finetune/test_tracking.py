"""What reaches Weights and Biases, read back from its own files, and what happens where it cannot be reached."""

import os
from pathlib import Path
import subprocess
import sys
import time

import pytest

from curves.likeness import read_likeness
from curves.run_folder import RunFolder
from tests.finetune.conftest import Train
from tests.finetune.runs import losses, stop_at
from tests.finetune.wandb_file import is_whole, read_history, read_run
from tests.finetune.wandb_server import Server
from tests.sweep.harness import ROOT, wait_until

pytestmark = pytest.mark.long

SAMPLES = ["samples.count=1", "samples.inference_steps=1"]


def offline_files(run: Path) -> list[Path]:
    """One a life of the run, in order."""
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    wait_until(lambda: all(map(is_whole, files)), "the tracker's service to write the end of its files")
    return files


def tells_secret(run: Path) -> bool:
    files = (path for path in run.glob("wandb/*run-*/**/*") if path.is_file())
    return any(b"hush-hush" in path.read_bytes() for path in files)


def test_a_resumed_trial_goes_on_under_its_id_beside_those_of_its_study_and_cell(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "00003-n4-lora"
    monkeypatch.setenv("STEPBUDGET_CELL", "n4-lora")
    overrides = ["budget.max_steps=8", "tracker=wandb", "tracker.mode=offline", "study=s", *SAMPLES]
    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda run: setattr(run.interruption, "reason", "asked to end by a test"))
        assert run_train(run, *overrides) == 1
    began = time.time()
    wait_until(lambda: time.time() > began + 1, "another second, for wandb names its folders by it")
    assert run_train(run, *overrides) == 0
    first, second = offline_files(run)
    identity = (run / "wandb" / "id.txt").read_text(encoding="ascii").strip()
    for file in (first, second):
        told = read_run(file)
        assert (told.run_id, told.run_group, told.job_type) == (identity, "s", "n4-lora")
        assert told.display_name == run.name
    history = [*read_history(first), *read_history(second)]
    assert [record["val_loss"] for record in history if "val_loss" in record] == losses(run)
    assert [record["_step"] for record in history if "val_loss" in record] == [0, 4, 5, 6, 7, 8]
    pictures = sorted(path.name for path in run.glob("wandb/offline-run-*/files/media/images/*.png"))
    drawn = [record["_step"] for record in history if "samples/_type" in record]
    likeness = {record.step: record for record in read_likeness(run / "samples")}
    for record in history:
        if "samples/_type" in record:
            assert [record["sample_distance"]] == likeness[record["_step"]].nearest
            assert record["held_out_distance"] == likeness[record["_step"]].held_out
    assert len(pictures) == len(drawn) == len(list((run / "samples").glob("*.png"))) > 1


def test_a_fresh_run_has_an_id_of_its_own(run_train: Train, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert run_train(tmp_path / name, "budget.max_steps=1", "tracker=wandb", "tracker.mode=offline") == 0
    one, two = (read_run(offline_files(tmp_path / name)[0]) for name in ("one", "two"))
    assert one.run_id != two.run_id
    assert (one.run_group, one.job_type) == ("", "")  # belongs to no study


def test_a_secret_does_not_reach_the_tracker(run_train: Train, tmp_path: Path) -> None:
    secret = "+launch.environment.HF_TOKEN=hush-hush"
    assert run_train(tmp_path, "budget.max_steps=1", "tracker=wandb", "tracker.mode=offline", secret) == 0
    (file,) = offline_files(tmp_path)
    keys = [item.key for item in read_run(file).config.update]
    assert "launch" in keys
    assert not tells_secret(tmp_path)


def test_an_unreachable_server_costs_one_message_and_nothing_else(
    base_overrides: list[str], tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path)
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    environment |= {
        "WANDB_MODE": "online",
        "WANDB_BASE_URL": "http://127.0.0.1:9",
        "WANDB_API_KEY": "0" * 40,
    }
    wanted = [f"run_dir={tmp_path}", "budget.max_steps=6", "tracker=wandb", *SAMPLES]
    wanted += ["+launch.environment.HF_TOKEN=hush-hush"]  # a command line that the tracker must not tell
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *base_overrides, *wanted],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("wandb c")]
    assert len(said) == 1, done.stderr
    assert "connection refused" in said[0]
    assert said[0].endswith("going on offline, `wandb sync` sends it later")
    assert "Traceback" not in done.stderr
    assert folder.outcome() == "complete"
    (file,) = offline_files(tmp_path)
    kept = [record["val_loss"] for record in read_history(file) if "val_loss" in record]
    assert kept == losses(tmp_path)
    assert len(kept) > 2
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/*.png"))
    assert not tells_secret(tmp_path)


def test_a_server_that_goes_away_holds_no_run_up_and_loses_nothing(tmp_path: Path) -> None:
    server = Server()
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    environment |= {"WANDB_BASE_URL": server.address, "WANDB_API_KEY": "0" * 40, "PYTHONPATH": str(ROOT)}
    program = [sys.executable, str(Path(__file__).with_name("wandb_server.py")), str(tmp_path), "3"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(program, env=environment, text=True, **pipes) as process:
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            server.go_away()
            rest, said = process.communicate("go on\n", timeout=60)
        finally:
            process.kill()
    assert (first, rest, process.returncode) == ("logged\n", "over\n", 0), said
    assert "cannot start" not in said
    assert said.count("it will still be written to disk") == 1, said
    (file,) = tmp_path.glob("wandb/run-*/*.wandb")  # of an online run
    assert [record["val_loss"] for record in read_history(file)] == [1.0, 0.96, 0.92]
