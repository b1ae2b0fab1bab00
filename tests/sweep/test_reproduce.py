"""`sweep reproduce`: the same command again, and whether the same curve comes of it."""

import json
from pathlib import Path
import shlex
import subprocess
import sys

import pytest

from conf.errors import RequestError
from curves.point import Point
from sweep.commands import main
from sweep.reproduce import first_difference
from tests.sweep.checkout import make_checkout
from tests.sweep.harness import ROOT, Sweep

pytestmark = pytest.mark.long

REAL = (
    "launch.command=null",
    "dataset_size=n4",
    "dataset.held_out=8",
    "budget.max_steps=6",
    "optimizer.warmup_steps=0",
    "evaluation.first_step=2",
    "evaluation.strata=2",
    "evaluation.training_images=0",
    "samples.count=0",
    "stopping=none",
    "sweep.trials=1",
)


def reproduce(sweep: Sweep, *arguments: str, status: int = 0) -> str:
    return sweep.end_of(sweep.start("reproduce", *arguments), status)


def copy_of(sweep: Sweep, number: int) -> Path:
    """Where a reproduction lies that no --to names."""
    return sweep.study.with_name(f"s-trial-{number:04d}")


def test_a_trial_is_run_again_and_compared(sweep: Sweep, capsys: pytest.CaptureFixture[str]) -> None:
    sweep.run("sweep.trials=2", crash_once=[1])
    folder = sweep.folders()[1]
    said = reproduce(sweep, str(folder.path))
    assert said.splitlines()[-1] == "equal bit for bit: 8 points up to step 64"
    (session,) = sweep.sessions(type(folder)(copy_of(sweep, 1)))
    place = f"run_dir='{copy_of(sweep, 1)}'"
    recorded = sweep.sessions(folder)[-1]["overrides"]
    assert session["overrides"] == [*(item for item in recorded if not item.startswith("run_dir")), place]

    # The command that was printed does the same, for whoever pastes it into a shell.
    assert main(["reproduce", str(folder.path), "--print", "--to", str(sweep.runs_dir / "pasted")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    subprocess.run(line, shell=True, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)
    pasted = type(folder)(sweep.runs_dir / "pasted")
    assert first_difference(folder.points(), pasted.points()) is None

    with pytest.raises(RequestError, match=r"exists: name another folder with --to FOLDER"):
        main(["reproduce", str(folder.path)])
    lines = folder.curve.read_text(encoding="utf-8")
    folder.curve.write_text(lines.replace('"val_loss":0.', '"val_loss":0.1'), encoding="utf-8")
    assert main(["reproduce", str(sweep.study), "--trial", "1", "--to", str(sweep.runs_dir / "new")]) == 1
    assert "different: val_loss at step" in capsys.readouterr().out


def test_a_trial_that_was_ended_from_outside_is_ended_at_the_same_step(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments("sweep.trials=1"), hold=str(sweep.hold))
    folder = sweep.await_step(0, 32)
    sweep.end_of(sweep.start("stop", str(sweep.study), "--trial", "0"), 0)
    sweep.end_of(process, 0)
    assert folder.outcome() == "stopped" and folder.points()[-1].step == 32
    again = sweep.start(
        "reproduce", str(folder.path), hold=str(sweep.hold)
    )  # which holds there until it is asked
    assert "equal bit for bit: 7 points up to step 32" in sweep.end_of(again, 0)


def test_a_trainer_that_fails_is_told(sweep: Sweep) -> None:
    sweep.run("sweep.trials=1")
    said = sweep.end_of(sweep.start("reproduce", str(sweep.study), "--trial", "0", crash=[0]), 1)
    assert "failed: the trainer ended as crashed: " in said and "told to crash; see " in said


def test_another_checkout_tells_how_to_get_the_code_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = Sweep(tmp_path, make_checkout(tmp_path / "checkout"))
    with (sweep.root / "curves" / "point.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    sweep.run("sweep.trials=1", "+launch.environment.API_KEY=hidden")
    arguments = ["reproduce", str(sweep.study), "--trial", "0", "--print"]
    with pytest.raises(
        RequestError, match=r"API_KEY=\*\*\*: the record keeps no secrets: .* sweep reproduce "
    ):
        main(arguments)
    with pytest.raises(RequestError, match=r"seed=3: a trial is run again with its own settings"):
        main([*arguments, "seed=3"])
    assert main([*arguments, "+launch.environment.API_KEY=anew"]) == 0
    code, checkout, patch, command = capsys.readouterr().out.splitlines()
    assert code.startswith("# the trial ran commit ") and "with changes" in code
    assert checkout.startswith("git checkout ")
    assert shlex.split(patch)[:3] == ["git", "apply", str(sweep.study / "code.patch")]
    assert "seed=0" in shlex.split(command) and "API_KEY=" not in command.split(sys.executable)[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "reproduce takes a trial's folder, or a study and --trial N"),
        (["--trial", "7"], "--trial 7: s has no such trial"),
        (["--trial", "x"], "must be the number of a trial"),
        (["--trial", "0", "--verbose"], "--verbose: there is no such option"),
    ],
)
def test_wrong_requests(tmp_path: Path, arguments: list[str], words: str) -> None:
    study = tmp_path / "runs" / "s"
    study.mkdir(parents=True)
    record = {"overrides": [], "config": {}, "cells": [], "trials": 1, "created": ""}
    (study / "study.yaml").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        main(["reproduce", str(study), *arguments])
    assert words in str(caught.value)


def test_the_first_difference() -> None:
    curve = [Point(step=step, val_loss=1.0, image_loss=[0.5, float("nan")]) for step in (0, 4)]
    longer = [*curve, Point(step=8, val_loss=0.9)]
    assert first_difference(curve, longer) is None
    assert first_difference(longer, curve) == "step 8 is recorded and was not reached again"
    other = [curve[0], Point(step=4, val_loss=1.0, image_loss=[0.5, 0.25])]
    said = first_difference(curve, other)
    assert said == "image_loss at step 4 is recorded as [0.5, nan], and now [0.5, 0.25]"
    assert first_difference([], curve) == "the recorded trial has no points"


def test_the_real_trainer_gives_the_same_curve_bit_for_bit(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef0123456789abcdef01234567"
    monkeypatch.setenv("WANDB_API_KEY", key)
    sweep.run(*REAL, f"cache_dir='{sweep.runs_dir / 'cache'}'", "tracker=wandb")
    (folder,) = sweep.folders()
    assert (folder.path / "wandb").is_dir()
    for path in sweep.study.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path
    said = reproduce(sweep, str(sweep.study), "--trial", "0")
    assert f"equal bit for bit: {len(folder.points())} points up to step 6" in said
