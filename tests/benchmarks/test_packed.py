"""Recorded runs in one small file: what is packed comes back, and analysis reads what is laid out."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from analysis.load import load_study
from analysis.recommend import analyse
from benchmarks.own_sets import pack as command
from benchmarks.own_sets.packed import RecordedRun, load, pack, read_run, unpack
from curves.point import Point
from curves.run_folder import RunFolder, find_runs
from tests.analysis.make_runs import Spec, make_run

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
POINTS = st.builds(
    Point,
    step=st.integers(0, 10**6),
    lr_sum=st.none() | NUMBERS,
    val_loss=st.none() | NUMBERS,
    image_loss=st.none() | st.lists(NUMBERS, max_size=4),
    panel=st.none() | st.text(max_size=5),
    extra=st.just({}) | st.just({"diverged": True}),
)
RUNS = st.builds(
    RecordedRun,
    name=st.text(max_size=9),
    facts=st.dictionaries(st.text(max_size=5), NUMBERS | st.text(max_size=5), max_size=3),
    outcome=st.sampled_from(["complete", "diverged"]),
    points=st.lists(POINTS, max_size=4).map(tuple),
)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.lists(RUNS, max_size=3))
def test_what_is_packed_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, runs: list[RecordedRun]
) -> None:
    path = tmp_path_factory.mktemp("packed") / "runs.json.gz"
    pack(runs, path)
    assert load(path) == runs
    first = path.read_bytes()
    pack(load(path), path)
    assert path.read_bytes() == first


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three finished runs of a cell, one of them diverged, and one that still runs."""
    for seed in range(2):
        make_run(tmp_path / "runs" / f"run-{seed}", Spec(seed=seed, study="own"))
    diverged = make_run(tmp_path / "runs" / "run-2", Spec(seed=2, lr=2e-3, last_step=40, outcome="diverged"))
    diverged.append_point(Point(41, val_loss=float("nan")))
    running = make_run(tmp_path / "runs" / "run-3", Spec(seed=3))
    running.status.unlink()
    return tmp_path / "runs"


def packed_with(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", ["pack", *arguments])
    return command.main()


def test_runs_laid_out_again_are_the_runs_that_were_packed(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, again = tmp_path / "runs.json.gz", tmp_path / "again"
    assert packed_with([str(recorded), str(file)], monkeypatch) == 0
    assert packed_with(["--unpack", str(file), str(again)], monkeypatch) == 0
    assert [folder.path.name for folder in find_runs(again)] == ["run-0", "run-1", "run-2"]
    for folder in find_runs(again):
        before = RunFolder(recorded / folder.path.name)
        assert read_run(folder) == read_run(before)
        assert folder.read_facts() == before.read_facts()
        assert folder.outcome() == before.outcome()
        for now, then in zip(folder.points(), before.points(), strict=True):
            assert (now.step, now.panel, now.extra) == (then.step, then.panel, then.extra)
            assert (now.val_loss is None) == (then.val_loss is None) == bool(now.extra)
            assert np.allclose(now.val_loss or 0, then.val_loss or 0, rtol=1e-6)
            assert np.allclose(now.image_loss or [], then.image_loss or [], rtol=1e-4)


def test_analysis_says_the_same_of_packed_runs(recorded: Path, tmp_path: Path) -> None:
    file = tmp_path / "runs.json.gz"
    pack([read_run(RunFolder(recorded / f"run-{number}")) for number in range(3)], file)
    unpack(file, tmp_path / "again")
    (before,), (after,) = (
        analyse(load_study(root)).recommendation.cells for root in (recorded, tmp_path / "again")
    )
    assert before.status == after.status == "ok"
    assert after.recommended_steps == pytest.approx(before.recommended_steps, abs=2)


def test_nothing_is_laid_out_over_something_else(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "runs.json.gz"
    pack([read_run(RunFolder(recorded / "run-0"))], file)
    assert packed_with(["--unpack", str(file), str(recorded)], monkeypatch) == 2
    assert f"{recorded}: is not empty" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has not ended"):
        read_run(RunFolder(recorded / "run-3"))
