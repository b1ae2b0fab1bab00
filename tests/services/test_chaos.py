"""Chaos: the real trainer under `accelerate launch`, and KILLs at random moments of supervisor, launcher and trainer.

What comes out is, bit for bit, what the undisturbed sweep gives.
"""

from collections import Counter
from dataclasses import asdict
import os
from pathlib import Path
import random
import signal
import subprocess
import time
from typing import Any

import pytest

from curves.run_folder import RunFolder
from tests.sweep.harness import Sweep, wait_until

pytestmark = pytest.mark.services

TRIALS, KILLS = 24, 60
MEAN_S = 3.5  # between two kills; a trainer needs about ten seconds from its start to its end
LIMIT_S = 1500.0
REAL = (
    "launch.command=null",
    "launch.poll_s=0.2",
    "launch.retries=1000",
    "dataset_size=n4",
    "budget.max_steps=12",
    f"sweep.trials={TRIALS}",
    "sweep.sampler.name=qmc",
    "stopping=none",
    "checkpoints.every=2",
    "checkpoints.resumable=false",
    "samples.count=0",
    "evaluation.training_images=0",
    "evaluation.strata=2",
    "tracker=none",
)
KINDS = ("supervisor", "launcher", "trainer")


def targets(sweep: Sweep, supervisor: "subprocess.Popen[str]") -> dict[str, list[int]]:
    """What can be killed now, by kind."""
    found = {"supervisor": [supervisor.pid], "launcher": list[int](), "trainer": list[int]()}
    for number in sweep.trainers():
        try:
            command = Path(f"/proc/{number}/cmdline").read_bytes()
        except OSError:
            continue
        found["launcher" if b"accelerate.commands.launch" in command else "trainer"].append(number)
    return found


def kill_one(numbers: list[int], chance: random.Random) -> bool:
    """Whether there was one to kill."""
    try:
        os.kill(chance.choice(numbers), signal.SIGKILL)
    except (IndexError, ProcessLookupError):
        return False
    return True


def disturb(sweep: Sweep) -> Counter[str]:
    """Run a study to its end and kill meanwhile; the kills by kind."""
    chance, kills, deadline = random.Random(11), Counter[str](), time.monotonic() + LIMIT_S
    supervisor = sweep.start("run", *sweep.arguments(*REAL))
    kind, following = chance.choice(KINDS), time.monotonic() + chance.expovariate(1 / MEAN_S)
    while supervisor.poll() != 0:
        assert time.monotonic() < deadline, kills
        if supervisor.poll() is not None:
            output, _ = supervisor.communicate()
            assert supervisor.returncode == -signal.SIGKILL, output
            known = (sweep.study / "study.yaml").exists()
            again = ("resume", str(sweep.study)) if known else ("run", *sweep.arguments(*REAL))
            supervisor = sweep.start(*again)
        if kills.total() < KILLS and time.monotonic() >= following:
            if kill_one(targets(sweep, supervisor)[kind], chance):
                kills[kind] += 1
                kind = chance.choice(KINDS)
            following = time.monotonic() + chance.expovariate(1 / MEAN_S)
        time.sleep(0.02)
    return kills


def curves(sweep: Sweep) -> dict[int, list[dict[str, Any]]]:
    """Every trial's points by its seed, which is its number in the cell, without the time that they took."""
    return {folder.read_facts().seed: points_of(folder) for folder in sweep.folders()}


def points_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [{**asdict(point), "wall_s": None} for point in folder.points()]


def best(sweep: Sweep) -> tuple[float, float]:
    """The lowest held-out loss, and the learning rate that it came with."""
    found = [
        (min(point.val_loss for point in folder.points() if point.val_loss is not None), folder)
        for folder in sweep.folders()
    ]
    loss, folder = min(found, key=lambda item: item[0])
    return loss, folder.read_facts().hyperparameters["lr"]


def test_kills_at_random_moments_change_nothing(
    sweep: Sweep, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    kills = disturb(sweep)
    wait_until(lambda: not sweep.trainers(), "no process left", seconds=10)
    assert kills.total() >= KILLS and min(kills[kind] for kind in KINDS) >= 10
    assert len(sweep.folders()) == len(list((sweep.study / "trials").iterdir())) == TRIALS
    assert sweep.outcomes() == ["complete"] * TRIALS
    assert sweep.states() == {"COMPLETE": TRIALS}
    for folder in sweep.folders():
        steps = [point.step for point in folder.points()]
        assert steps == sorted(set(steps)) and steps[-1] == 12

    undisturbed = Sweep(tmp_path_factory.mktemp("undisturbed"))
    try:
        output, _ = undisturbed.start("run", *undisturbed.arguments(*REAL)).communicate(timeout=LIMIT_S)
        assert undisturbed.outcomes() == ["complete"] * TRIALS, output
        assert curves(sweep) == curves(undisturbed)
        assert best(sweep) == best(undisturbed)
    finally:
        undisturbed.close()
