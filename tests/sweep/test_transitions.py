"""A supervisor may be killed at every transition of a trial, whatever the trial's outcome: nothing is lost or done twice."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

from sweep.attempts import read_attempts
from tests.sweep.dying_supervisor import TRANSITIONS
from tests.sweep.harness import ROOT, Sweep

pytestmark = pytest.mark.long

DRIVER = Path(__file__).with_name("dying_supervisor.py")
ENDS = {
    "crash": [1],
    "crash_once": [2],
    "diverge": [3],
    "out_of_memory": [4],
    "preempt_once": [5],
    "stop_rule": [6],
}
OUTCOMES = ["complete", "crashed", "complete", "diverged", "complete", "complete", "stopped", "complete"]
STATES = {"COMPLETE": 6, "FAIL": 2}
# A trial is taken over only where another supervisor has died before.
REACHED = [
    *sorted(set(TRANSITIONS) - {"asked to stop", "killed", "taken over"}),
    "trainer started;taken over",
]
FINISHED = ("complete", "stopped", "diverged")


def die_repeatedly(
    sweep: Sweep, folder: Path, transition: str, *overrides: str, **stand_in: object
) -> dict[str, int]:
    """Run a study to its end under supervisors that die; the last one's exit status, and the deaths."""
    done = subprocess.run(
        [
            sys.executable,
            str(DRIVER),
            transition,
            str(sweep.study),
            str(folder),
            *sweep.arguments(*overrides),
        ],
        cwd=ROOT,
        env={**sweep.environment({"checkpoint_every": 8, **stand_in}), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    said = (folder / "supervisors.txt").read_text(encoding="utf-8")
    assert done.returncode == 0, done.stderr + said
    assert "Traceback" not in said, said
    result: dict[str, int] = json.loads(done.stdout)
    assert result["status"] == 0, said
    return result


def check_nothing_done_twice(sweep: Sweep) -> None:
    """Trials that were trained to an end were not started again, and no point of a curve stands there twice."""
    assert sweep.trainers() == []
    for folder in sweep.folders():
        ends = [session.get("ended") for session in sweep.sessions(folder)]
        ended = [index for index, end in enumerate(ends) if end in FINISHED]
        assert ended in ([], [len(ends) - 1]), folder.path.name
        steps = [point.step for point in folder.points() if point.val_loss == point.val_loss]
        assert steps == sorted(set(steps))


@pytest.mark.parametrize("transition", REACHED)
def test_supervisor_that_dies_at_a_transition(sweep: Sweep, tmp_path: Path, transition: str) -> None:
    result = die_repeatedly(sweep, tmp_path, transition, "sweep.trials=8", **ENDS)
    assert result["deaths"] >= (1 if transition == "study recorded" else 3)
    assert sweep.outcomes() == OUTCOMES
    assert sweep.states() == STATES
    check_nothing_done_twice(sweep)
    (smaller,) = [folder for folder in sweep.folders() if folder.path.name.startswith("0004")]
    assert read_attempts(smaller)[-1].changes["optimizer.batch_size"] == 1
    assert [folder.read_facts().seed for folder in sweep.folders()] == list(range(8))


@pytest.mark.parametrize("transition", ["asked to stop", "killed", "verdict written", "not told"])
def test_supervisor_that_dies_while_it_ends_a_trial(sweep: Sweep, tmp_path: Path, transition: str) -> None:
    limits = ("launch.timeout_s=4", "launch.grace_s=1", "launch.retries=0", "sweep.trials=2")
    result = die_repeatedly(sweep, tmp_path, transition, *limits, hang=[0], slow=[1])
    assert result["deaths"] >= 1
    assert sweep.outcomes() == ["timeout", "timeout"]
    assert sweep.states() == {"COMPLETE": 2}
    check_nothing_done_twice(sweep)
