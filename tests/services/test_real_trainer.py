"""Kills with the real trainer under `accelerate launch`, which tests/sweep does with the stand-in."""

import os
from pathlib import Path
import signal

import pytest

from curves.run_folder import RunFolder
from tests.sweep.harness import Sweep, wait_until

pytestmark = pytest.mark.services

REAL = (
    "launch.command=null",
    "launch.retries=0",
    "launch.poll_s=0.2",
    "dataset_size=n4",
    "budget.max_steps=120",
    "sweep.trials=3",
    "stopping=none",
    "samples.count=0",
    "evaluation.training_images=0",
    "tracker=none",
)


def at_step(folder: RunFolder, step: int) -> bool:
    return any(point.step >= step for point in folder.points())


@pytest.fixture
def real_sweep(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return sweep


def test_killed_trainer_then_killed_sweep(real_sweep: Sweep) -> None:
    sweep = real_sweep
    process = sweep.start("run", *sweep.arguments(*REAL))

    def first_two_evaluate() -> list[RunFolder] | None:
        folders = sweep.folders()[:2]
        return folders if len(folders) == 2 and all(at_step(item, 4) for item in folders) else None

    killed, other = wait_until(first_two_evaluate, "two trials at step 4", seconds=240)
    status = killed.read_status()
    assert status is not None and status.pid is not None
    before = [point.step for point in killed.points()]
    os.kill(status.pid, signal.SIGKILL)
    wait_until(lambda: killed.outcome() == "crashed", "the verdict on the killed trainer")
    assert [point.step for point in killed.points()][: len(before)] == before
    assert process.poll() is None and other.outcome() is None  # the sweep goes on

    wait_until(lambda: at_step(other, 16), "the other trial at step 16", seconds=240)
    process.kill()
    process.communicate()
    wait_until(lambda: not sweep.trainers(), "no trainer and no launcher", seconds=5)

    output, _ = sweep.start("resume", str(sweep.study)).communicate(timeout=400)
    assert "Traceback" not in output, output
    assert sweep.states() == {"COMPLETE": 2, "FAIL": 1}
    assert sweep.outcomes() == ["crashed", "complete", "complete"]
    for folder in sweep.folders()[1:]:
        steps = [point.step for point in folder.points()]
        assert steps == sorted(set(steps)) and steps[-1] == 120
