"""A journal that a kill or a power cut has left behind: torn, short, damaged, locked, or gone."""

import json
from pathlib import Path
import shutil

import pytest

from curves.run_folder import RunFolder
from tests.sweep.harness import Sweep

pytestmark = pytest.mark.journal


def journal_lines(sweep: Sweep) -> tuple[Path, list[bytes]]:
    journal = sweep.study / "journal.log"
    return journal, journal.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("cut", [1, 7, 19])
def test_a_torn_last_line_and_a_stale_lock_are_cleared_away(sweep: Sweep, cut: int) -> None:
    """Power was lost while the last line was written; what it would have said stands in the run folder."""
    sweep.run()
    journal, lines = journal_lines(sweep)
    journal.write_bytes(b"".join(lines)[:-cut])
    lock = journal.with_name("journal.log.lock")
    lock.symlink_to(journal)
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [1, 1, 1]
    assert not lock.is_symlink()
    assert all(isinstance(json.loads(line), dict) for line in journal_lines(sweep)[1])


def test_lost_tells_are_told_from_the_folders(sweep: Sweep) -> None:
    sweep.run("sweep.pruner.name=median")
    journal, lines = journal_lines(sweep)
    told = [
        index for index, line in enumerate(lines) if json.loads(line)["op_code"] == 6
    ]  # the state of a trial
    journal.write_bytes(b"".join(lines[: told[-1]]))
    assert sweep.states() == {"COMPLETE": 2, "RUNNING": 1}
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [1, 1, 1]


def test_runs_without_their_journal_are_refused(sweep: Sweep) -> None:
    sweep.run("sweep.trials=1")
    (sweep.study / "journal.log").unlink()
    output = sweep.resume(status=2)
    assert "0000-n8-lora-native-tiny" in output
    assert "journal.log' does not know this run: restore it" in output
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [1]


def sampled(sweep: Sweep, folder: RunFolder) -> list[str]:
    return [item for item in sweep.sessions(folder)[0]["overrides"] if item.startswith("optimizer.")]


def test_kill_between_asking_and_sampling(sweep: Sweep) -> None:
    sizes = "{name: optimizer.batch_size, choices: [1, 2, 3, 5, 7]}"
    rates = "{name: optimizer.lr, low: 0.001, high: 0.01, log: true}"
    sweep.run(f"space.parameters=[{rates}, {sizes}]", "sweep.trials=2", "launch.slots=1")
    last = sweep.folders()[1]
    before = sampled(sweep, last)
    journal, lines = journal_lines(sweep)
    created = [index for index, line in enumerate(lines) if json.loads(line)["op_code"] == 4]
    journal.write_bytes(b"".join(lines[: created[-1] + 1]))
    shutil.rmtree(last.path)  # which is made after sampling
    assert sweep.states() == {"COMPLETE": 1, "RUNNING": 1}
    sweep.resume()
    assert sampled(sweep, sweep.folders()[1]) == before
    assert len(before) == 2
    assert sweep.states() == {"COMPLETE": 2}


def test_damaged_line_of_a_curve_is_passed_over(sweep: Sweep) -> None:
    sweep.run("launch.slots=1")
    journal, lines = journal_lines(sweep)
    told = [index for index, line in enumerate(lines) if json.loads(line)["op_code"] == 6]
    journal.write_bytes(b"".join(lines[: told[-1]]))
    curve = sweep.folders()[2].curve
    points = curve.read_bytes().splitlines(keepends=True)
    curve.write_bytes(b"".join([*points[:2], b"\0\0damaged\n", *points[3:]]))
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}


def test_damaged_journal_is_named_with_its_line(sweep: Sweep) -> None:
    sweep.run("sweep.trials=1")
    journal, lines = journal_lines(sweep)
    journal.write_bytes(b"".join([*lines[:2], b"{damaged\n", *lines[3:]]))
    output = sweep.resume(status=1)
    assert f"{journal}: line 3 is damaged: restore the file" in output
