"""Trunk and branches of the real trainer, under `accelerate launch`, with a KILL in a branch."""

import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

from curves.run_folder import RunFolder
from sweep.reproduce import first_difference
from tests.sweep.harness import ROOT, Sweep, wait_until

pytestmark = pytest.mark.services

COMMON = (
    "dataset_size=n4",
    "samples.count=0",
    "evaluation.training_images=0",
    "tracker=none",
    "stopping=none",
)
COOLDOWN = (
    "launch.command=null",
    "launch.poll_s=0.1",
    "budget.max_steps=48",
    "space.parameters=[]",
    "sweep.trials=1",
    "sweep.sampler.name=qmc",
    "sweep.cooldown={branches: 2, decay_share: 0.5}",
)


def test_a_branch_that_was_killed_is_the_run_from_scratch(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    process = sweep.start("run", *sweep.arguments(*COMMON, *COOLDOWN))

    def begins() -> Any:
        folder = next(iter(sweep.study.glob("trials/0001-*")), None)
        status = RunFolder(folder).read_status() if folder else None
        return status is not None and status.state == "running" and status.pid

    os.kill(wait_until(begins, "the first branch at work", seconds=240), signal.SIGKILL)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "another attempt follows" in output, output
    assert sweep.outcomes() == ["complete"] * 3
    scratch = tmp_path / "scratch"
    options = ("optimizer.schedule=warmup_stable_decay", "optimizer.decay_share=0.5", "budget.max_steps=34")
    words = ["train.py", *COMMON, *options, f"run_dir={scratch}", "device=cpu"]
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, timeout=240)
    alone = RunFolder(scratch).points()
    assert alone[-1].step == 34
    assert first_difference(alone, sweep.folders()[1].points()) is None
