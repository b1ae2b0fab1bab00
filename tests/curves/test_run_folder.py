"""The run folder: whose word counts, and that nothing half-written is ever read."""

import errno
import os
from pathlib import Path

import pytest

from curves.run_folder import RunFacts, RunFolder, Status, Verdict, find_runs, write_atomically

FACTS = RunFacts(
    cell={"method": "lora", "images": 8},
    hyperparameters={"lr": 1e-3},
    seed=3,
    horizon=400,
    horizon_lr_sum=0.4,
    panel="abc",
    images=8,
    extra={"newer_key": [1, 2]},
)


def test_facts_are_read_as_they_were_written_with_unknown_keys(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_facts(FACTS)
    assert folder.read_facts() == FACTS


def test_the_verdict_wins_over_the_trainers_word(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.outcome() is None
    folder.write_status(Status(state="running", step=8))
    assert folder.outcome() is None
    folder.write_status(Status(state="ended", step=9, outcome="complete"))
    assert folder.outcome() == "complete"
    folder.write_verdict(Verdict(outcome="crashed", reason="killed", exit_status=-9))
    assert folder.outcome() == "crashed"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"unknown": 1}'])
def test_a_damaged_status_is_no_status(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.status.write_text(text)
    assert folder.read_status() is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_damaged_facts_are_named(tmp_path: Path, text: str) -> None:
    folder = RunFolder(tmp_path)
    folder.run.write_text(text)
    with pytest.raises(ValueError, match=r"run\.json"):
        folder.read_facts()


def test_runs_are_found_in_a_study_in_a_folder_of_runs_and_alone(tmp_path: Path) -> None:
    for name in ("0001-b", "0000-a"):
        RunFolder(tmp_path / "study" / "trials" / name).write_facts(FACTS)
    (tmp_path / "study" / "trials" / "not-a-run").mkdir()
    expected = ["0000-a", "0001-b"]
    assert [run.path.name for run in find_runs(tmp_path / "study")] == expected
    assert [run.path.name for run in find_runs(tmp_path / "study" / "trials")] == expected
    assert [run.path.name for run in find_runs(tmp_path / "study" / "trials" / "0000-a")] == ["0000-a"]
    assert find_runs(tmp_path / "nothing") == []


def test_a_failed_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "file.json"
    write_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]
