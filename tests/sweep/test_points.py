"""Stated points, grids and numbers: which trial takes which values, whatever happened in between."""

from pathlib import Path
from typing import Any

import optuna
import pytest

from conf.errors import RequestError
from conf.schema import Sampler, SpaceParameter, Sweep
from sweep.points import adopt
from sweep.space import CellSpace
from sweep.storage import open_journal
from sweep.study import Asked, CellStudy
from tests.sweep.spaces import space_of

METHOD = SpaceParameter("method", choices=["lora", "text_to_image"])
RANK = SpaceParameter("method.rank", choices=[2, 4, 8], when={"method": "lora"}, first=8)
SIZE = SpaceParameter("optimizer.batch_size", low=1, high=5, step=2, integer=True)
RATE = SpaceParameter("optimizer.lr", low=1e-4, high=1e-2, log=True, first=1e-3)


def study(
    path: Path, sampler: str, space: CellSpace, trials: int = 9, folds: int = 1, **parameters: Any
) -> CellStudy:
    return CellStudy(
        storage=open_journal(path / "journal.log"),
        label="cell",
        space=space,
        sweep=Sweep(sampler=Sampler(sampler, 5, parameters)),
        trials=trials,
        grid=[0, 4, 8],
        runs=folds,
    )


def ask(cell: CellStudy, count: int) -> list[dict[str, Any]]:
    answers = []
    for _ in range(count):
        asked = cell.ask()
        cell.tell(asked.number, "complete", [1.0])
        answers.append(asked.values)
    return answers


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes", "gp"])
def test_points_come_first_and_in_order(tmp_path: Path, sampler: str) -> None:
    points = [
        {"method": "lora", "method.rank": 4},
        {"method": "text_to_image", "optimizer.lr": 2e-3},
        {"optimizer.batch_size": 5},
    ]
    cell = study(tmp_path, sampler, space_of(METHOD, RANK, SIZE, RATE, points=points))
    answers = ask(cell, 5)
    assert [answers[0][name] for name in ("method", "method.rank", "optimizer.lr")] == ["lora", 4, 1e-3]
    assert answers[1]["method"] == "text_to_image" and "method.rank" not in answers[1]
    assert answers[1]["optimizer.lr"] == 2e-3
    assert answers[2]["optimizer.batch_size"] == 5
    assert answers[2]["optimizer.lr"] != 1e-3  # `first` is the first trial's only


def test_first_holds_wherever_the_first_trial_has_the_parameter(tmp_path: Path) -> None:
    """The group is drawn: its cell trains LoRA, but the trial may not."""
    for seed in range(6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        space = space_of(METHOD, RANK, SIZE)
        cell = CellStudy(
            open_journal(folder / "journal.log"),
            "cell",
            space,
            Sweep(sampler=Sampler("random", seed)),
            9,
            [0, 4],
        )
        (values,) = ask(cell, 1)
        assert values.get("method.rank") == (8 if values["method"] == "lora" else None)


def test_a_point_of_a_parameter_that_the_trial_may_lack_is_refused() -> None:
    with pytest.raises(
        RequestError, match=r"points\[0\]\.method\.rank=4: is searched only where method=lora"
    ):
        space_of(METHOD, RANK, points=[{"method.rank": 4}])


def test_values_from_elsewhere_are_moved_into_the_bounds() -> None:
    space = space_of(METHOD, RANK, SIZE, RATE)
    there = {"method": "lora", "method.rank": 16, "optimizer.batch_size": 6, "optimizer.lr": 1.0, "seed": 3}
    assert adopt(space, there) == {"method": "lora", "optimizer.batch_size": 5, "optimizer.lr": 1e-2}
    assert adopt(space, {"method": "dreambooth", "method.rank": 4}) == {}
    assert adopt(space_of(SIZE, constraints=["optimizer.batch_size > 3"]), {"optimizer.batch_size": 1}) == {}


def test_a_grid_has_every_point_once_in_order(tmp_path: Path) -> None:
    space = space_of(METHOD, RANK, SIZE, constraints=["method.rank * optimizer.batch_size <= 24"])
    expected = [
        *(("lora", size, rank) for size in (1, 3, 5) for rank in (2, 4, 8) if rank * size <= 24),
        *(("text_to_image", size, None) for size in (1, 3, 5)),
    ]
    assert len(space.grid()) == len(expected) == 11
    answers = ask(study(tmp_path, "grid", space, trials=11), 12)
    found = [(item["method"], item["optimizer.batch_size"], item.get("method.rank")) for item in answers]
    assert found[:11] == expected
    assert found[11] == expected[0]  # a study that is extended beyond them all begins again


@pytest.mark.parametrize(
    ("sampler", "parameters"),
    [
        ("random", {}),
        ("qmc", {}),
        ("qmc", {"qmc_type": "halton"}),
        ("qmc", {"scramble": False}),
        ("grid", {}),
    ],
)
def test_an_answer_depends_on_the_number_alone(
    tmp_path: Path, sampler: str, parameters: dict[str, Any]
) -> None:
    """Every third time the supervisor is killed between asking and sampling, and what came of the others differs."""
    lr = SpaceParameter("optimizer.lr", choices=[1e-3, 2e-3]) if sampler == "grid" else RATE
    space = space_of(METHOD, RANK, SIZE, lr)
    answers: list[list[dict[str, Any]]] = []
    for name in ("whole", "killed"):
        folder = tmp_path / name
        folder.mkdir()
        cell = study(folder, sampler, space, **parameters)
        answers.append([])
        for number in range(10):
            if name == "killed":
                cell = study(folder, sampler, space, **parameters)
            if name == "killed" and number % 3 == 0:
                storage = open_journal(folder / "journal.log")
                optuna.load_study(study_name="cell", storage=storage).ask()
                cell = study(folder, sampler, space, **parameters)
                asked = cell.complete(Asked(number, {}))
            else:
                asked = cell.ask()
            assert asked.number == number
            cell.tell(number, "complete" if name == "whole" else "failed", [float(number)])
            answers[-1].append(asked.values)
    assert answers[0] == answers[1]
    assert len({str(values) for values in answers[0]}) > 5


def test_a_sequence_fills_the_space_more_evenly_than_chance(tmp_path: Path) -> None:
    """Of 16 points of a Sobol sequence each sixteenth of the range has one."""
    rate = SpaceParameter("optimizer.weight_decay", low=0.0, high=1.0)
    values = [item["optimizer.weight_decay"] for item in ask(study(tmp_path, "qmc", space_of(rate), 16), 16)]
    assert sorted(int(16 * value) for value in values) == list(range(16))
