"""The exam of predictions: it passes where fresh runs are like the calibration, and fails where they are not."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.own_sets import exam, predict
from benchmarks.own_sets.packed import pack, read_run
from curves.recommendation import read_recommendation
from tests.analysis.make_runs import Spec, make_run

CELLS = [Spec(images=images, best_time=0.04 * images**0.6, noise=0.01) for images in (4, 8, 16)]


def packed(path: Path, specs: list[Spec]) -> Path:
    """A packed file of simulated runs."""
    folders = [make_run(path / f"run-{number}", spec) for number, spec in enumerate(specs)]
    file = path.with_suffix(".json.gz")
    pack([read_run(folder) for folder in folders], file)
    return file


def told(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr("sys.argv", ["command", *map(str, words)])


@pytest.fixture
def predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What two runs of each cell predict."""
    specs = [replace(cell, seed=seed) for cell in CELLS for seed in (0, 1)]
    told(monkeypatch, packed(tmp_path / "calibration", specs), tmp_path / "predictions.json")
    assert predict.main() == 0
    return tmp_path / "predictions.json"


def test_runs_like_the_calibration_have_little_regret(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held_out = packed(tmp_path / "held-out", [replace(cell, seed=2) for cell in CELLS])
    found, _ = exam.examine(read_recommendation(predictions), held_out)
    assert (found.cells, found.checks, found.answered) == (3, 3, 1.0)
    assert found.regret <= exam.MOST_REGRET
    assert found.coverage == 1.0
    told(monkeypatch, predictions, held_out)
    exam.main()
    said = capsys.readouterr().out
    assert "answered 100 % of cells" in said
    assert all(f"run-{number}" in said for number in range(3))


def test_runs_whose_minimum_lies_elsewhere_fail_it(
    predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [replace(cell, seed=2, best_time=3 * cell.best_time) for cell in CELLS]
    held_out = packed(tmp_path / "held-out", late)
    found, _ = exam.examine(read_recommendation(predictions), held_out)
    assert found.coverage == 0.0
    assert found.regret > exam.MOST_REGRET
    told(monkeypatch, predictions, held_out)
    assert exam.main() == 1


def test_a_run_that_ends_before_the_recommended_steps_counts_as_all_of_the_gain(
    predictions: Path, tmp_path: Path
) -> None:
    """Its minimum seems to lie where it was cut."""
    short = [replace(cell, seed=2, last_step=16) for cell in CELLS]
    found, _ = exam.examine(read_recommendation(predictions), packed(tmp_path / "held-out", short))
    assert found.regret == 1.0


def test_cells_without_an_answer_count_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = [CELLS[0], replace(CELLS[0], seed=1), replace(CELLS[2], last_step=45)]
    told(monkeypatch, packed(tmp_path / "calibration", specs), tmp_path / "predictions.json")
    assert predict.main() == 0
    held_out = packed(tmp_path / "held-out", [replace(cell, seed=2) for cell in (CELLS[0], CELLS[2])])
    found, _ = exam.examine(read_recommendation(tmp_path / "predictions.json"), held_out)
    assert (found.cells, found.checks, found.answered) == (2, 1, 0.5)
    assert not found.passed
