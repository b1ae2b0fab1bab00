"""The Optuna side: totals, first values, pruners, and answers that depend on the history alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

from conf.errors import RequestError
from conf.schema import Pruner, Sampler, SpaceParameter, Sweep
from sweep.pruners import make_pruner
from sweep.space import CellSpace
from sweep.storage import open_journal
from sweep.study import Asked, CellStudy
from tests.sweep.spaces import space_of

SPACE = [
    SpaceParameter("optimizer.lr", low=1e-4, high=1e-2, log=True),
    SpaceParameter("optimizer.batch_size", low=1, high=8, integer=True),
    SpaceParameter("optimizer.schedule", choices=["constant", "cosine"]),
]
GRID = [SpaceParameter("optimizer.lr", choices=[1e-3, 2e-3, 3e-3]), *SPACE[1:]]
SAMPLERS = ["tpe", "random", "qmc", "grid", "gp", "cmaes", "nsga2"]


def study(
    path: Path,
    sampler: str | Sampler = "tpe",
    pruner: Pruner | None = None,
    first: Mapping[str, Any] | None = None,
    folds: int = 1,
    space: CellSpace | None = None,
    trials: int = 9,
) -> CellStudy:
    named = Sampler(sampler, seed=3) if isinstance(sampler, str) else sampler
    objectives = ["held_out_loss", "steps"] if named.name == "nsga2" else ["held_out_loss"]
    return CellStudy(
        storage=open_journal(path / "journal.log"),
        label="n4-lora",
        space=space
        or space_of(*(GRID if named.name == "grid" else SPACE), points=[dict(first)] if first else []),
        sweep=Sweep(sampler=named, pruner=pruner or Pruner(), objectives=objectives),
        trials=trials,
        grid=[0, 4, 8, 16, 32, 64],
        runs=folds,
    )


def told(sampler: str, loss: float) -> list[float]:
    return [loss, 1 - loss] if sampler == "nsga2" else [loss]


def loss(values: Mapping[str, Any]) -> float:
    return float((values["optimizer.lr"] - 2e-3) ** 2 + 0.01 * values["optimizer.batch_size"])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_interrupted_study_goes_on_as_the_uninterrupted_one(tmp_path: Path, sampler: str) -> None:
    answers: list[list[dict[str, Any]]] = []
    for name, reopened in (("whole", False), ("interrupted", True)):
        folder = tmp_path / name
        folder.mkdir()
        cell = study(folder, sampler)
        answers.append([])
        for _ in range(9):
            if reopened:
                cell = study(folder, sampler)
            asked = cell.ask()
            answers[-1].append(asked.values)
            cell.tell(asked.number, "complete", told(sampler, loss(asked.values)))
        assert cell.states() == {"COMPLETE": 9}
    assert answers[0] == answers[1]
    # No configuration is repeated, except by NSGA-II, whose children may be as their parents.
    assert sampler == "nsga2" or len({str(values) for values in answers[0]}) == 9


def test_first_values_come_first_and_do_not_count_before_they_run(tmp_path: Path) -> None:
    cell = study(tmp_path, first={"optimizer.lr": 5e-3})
    assert cell.asked() == 0
    assert study(tmp_path, first={"optimizer.lr": 5e-3}).asked() == 0  # opened twice, lined up once
    values = [cell.ask().values for _ in range(2)]
    assert values[0]["optimizer.lr"] == 5e-3
    assert values[1]["optimizer.lr"] != 5e-3
    assert cell.asked() == 2


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_the_folds_of_a_parameter_set_share_its_values(tmp_path: Path, sampler: str) -> None:
    """Also where the study is opened anew for each, and where it was killed between asking and sampling."""
    answers = []
    for number in range(9):
        cell = study(tmp_path, sampler, first={"optimizer.lr": 5e-3}, folds=3)
        if number == 4:
            trial = optuna.load_study(
                study_name="n4-lora", storage=open_journal(tmp_path / "journal.log")
            ).ask()
            asked = study(tmp_path, sampler, folds=3).complete(Asked(trial.number, {}))
        else:
            asked = cell.ask()
        assert asked.number == number
        answers.append(asked.values)
    sets = [answers[first : first + 3] for first in (0, 3, 6)]
    assert [values[0] == values[1] == values[2] for values in sets] == [True] * 3
    assert len({str(values[0]) for values in sets}) == 3
    assert sets[0][0]["optimizer.lr"] == 5e-3


def test_running_trials_are_found_again_with_folder_and_values(tmp_path: Path) -> None:
    cell = study(tmp_path)
    asked = cell.ask()
    cell.assign(asked.number, "0007-n4-lora")
    cell.tell(cell.ask().number, "failed")
    (found,) = study(tmp_path).running()
    assert (found.number, found.values, found.folder) == (asked.number, asked.values, "0007-n4-lora")
    assert study(tmp_path).folders() == ["0007-n4-lora"]
    assert study(tmp_path).states() == {"FAIL": 1, "RUNNING": 1}


PRUNERS = [
    Pruner("median", {"n_startup_trials": 2}),
    Pruner("asha", {"reduction_factor": 2}),
    Pruner("hyperband", {"reduction_factor": 2}),
]


@pytest.mark.parametrize("pruner", PRUNERS, ids=lambda pruner: pruner.name)
def test_pruner_ends_the_worst(tmp_path: Path, pruner: Pruner) -> None:
    cell = study(tmp_path, "random", pruner)
    pruned: list[float] = []
    kept: list[float] = []
    for level in (0.1, 0.2, 0.3, 0.9, 0.15, 0.95, 0.05, 0.99):
        asked = cell.ask()
        if cell.report(asked.number, dict.fromkeys((0, 4, 8, 16, 32), level)) is not None:
            cell.tell(asked.number, "pruned")
            pruned.append(level)
        else:
            cell.tell(asked.number, "complete", [level])
            kept.append(level)
    assert pruned
    assert 0.05 in kept
    assert min(kept) < min(pruned)
    assert cell.states() == {"COMPLETE": len(kept), "PRUNED": len(pruned)}


def test_no_pruner_never_prunes_and_reports_are_repeatable(tmp_path: Path) -> None:
    cell = study(tmp_path)
    asked = cell.ask()
    size = (tmp_path / "journal.log").stat().st_size
    assert cell.report(asked.number, {0: 1.0, 4: 0.5}) is None
    written = (tmp_path / "journal.log").stat().st_size
    assert written > size
    assert (
        cell.report(asked.number, {0: 1.0, 4: 0.5}) is None
    )  # a continued run reads its curve from the start
    assert (tmp_path / "journal.log").stat().st_size == written


def test_wrong_pruner_parameter_is_named() -> None:
    with pytest.raises(
        RequestError, match=r"sweep\.pruner\.parameters\.patience=3: median .*n_startup_trials"
    ):
        make_pruner(Pruner("median", {"patience": 3}), 4, 64)
