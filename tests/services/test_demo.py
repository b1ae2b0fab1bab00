"""What `make demo` does, whole, and the promise behind it: answers, a report, and a run that follows the answer."""

import os
from pathlib import Path
import shlex
import subprocess
import sys

import pytest

from curves.recommendation import read_recommendation
from curves.run_folder import RunFolder
from tests.sweep.harness import ROOT

pytestmark = pytest.mark.services

LIMIT_S = 1500


def run(*arguments: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, check=True, timeout=LIMIT_S)


def demo_commands() -> list[list[str]]:
    """The arguments of the two commands after the installation."""
    printed = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [shlex.split(line) for line in printed.stdout.splitlines() if line.startswith(".venv/bin/python")]
    commands = [line[1:] for line in lines if line[2] in ("sweep", "analysis")]
    assert len(commands) == 2
    return commands


def test_the_demo_answers_and_a_run_follows_its_answer(tmp_path: Path) -> None:
    study = tmp_path / "demo"
    sweep, report = demo_commands()
    run(*sweep, f"runs_dir={tmp_path}")
    assert report[-1] == "runs/demo"
    run(*report[:-1], str(study))
    cells = read_recommendation(study).cells
    assert len(cells) == 4
    assert sum(cell.status == "ok" for cell in cells) >= 3
    assert (study / "analysis" / "report.html").stat().st_size > 100_000
    answered = next(cell for cell in cells if cell.status == "ok")

    recommended = [f"budget.study={study}", "budget=recommended", f"dataset_size={answered.dataset_size}"]
    quiet = ["samples.count=0", "tracker=none", "seed=77", f"run_dir={tmp_path / 'final'}"]
    run("train.py", *recommended, f"method={answered.method}", *quiet)
    final = RunFolder(tmp_path / "final")
    assert final.outcome() == "complete"
    assert final.points()[-1].step == answered.recommended_steps
    losses = [point.val_loss for point in final.points() if point.val_loss is not None]
    assert losses[-1] < 0.9 * losses[0]
