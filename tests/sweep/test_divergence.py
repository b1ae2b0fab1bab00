"""A learning rate that diverged is remembered: later trials with the same choices stay below it."""

from pathlib import Path
from typing import Any

import pytest

from conf.schema import Sampler, SpaceParameter, Sweep
from sweep.divergence import LR, Divergence
from sweep.space import CellSpace
from sweep.storage import open_journal
from sweep.study import CellStudy
from tests.sweep.harness import Sweep as RealSweep
from tests.sweep.spaces import space_of

RATE = SpaceParameter(LR, low=1e-4, high=1e-2, log=True)
CHOICE = SpaceParameter("optimizer.schedule", choices=["constant", "cosine"])
SIZE = SpaceParameter("optimizer.batch_size", low=1, high=8, integer=True)


def study(path: Path, space: CellSpace, sampler: str = "random", trials: int = 12) -> CellStudy:
    return CellStudy(
        storage=open_journal(path / "journal.log"),
        label="cell",
        space=space,
        sweep=Sweep(sampler=Sampler(sampler, seed=1)),
        trials=trials,
        grid=[0, 4, 8],
    )


ALLOWED: list[tuple[dict[str, Any], bool]] = [
    ({LR: 4e-3, "optimizer.schedule": "cosine", "optimizer.batch_size": 2}, False),
    (
        {LR: 5e-3, "optimizer.schedule": "cosine", "optimizer.batch_size": 1},
        False,
    ),  # batch sizes are no choices
    ({LR: 3.9e-3, "optimizer.schedule": "cosine", "optimizer.batch_size": 2}, True),
    ({LR: 5e-3, "optimizer.schedule": "constant", "optimizer.batch_size": 2}, True),
    ({"optimizer.schedule": "cosine", "optimizer.batch_size": 2}, True),  # searches no rate
]


@pytest.mark.parametrize(("values", "allowed"), ALLOWED)
def test_what_is_as_high_with_the_same_choices_is_not_allowed(values: dict[str, Any], allowed: bool) -> None:
    divergence = Divergence(space_of(RATE, CHOICE, SIZE))
    assert divergence.words() == ""
    for rate in (6e-3, 4e-3, 5e-3):
        divergence.note({LR: rate, "optimizer.schedule": "cosine", "optimizer.batch_size": 2})
    divergence.note({"optimizer.schedule": "cosine"})
    assert divergence.allows(values) is allowed
    assert divergence.words() == f"diverged from {LR}=0.004 up (optimizer.schedule=cosine)"


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "cmaes"])
def test_later_trials_stay_below(tmp_path: Path, sampler: str) -> None:
    """Also where the study is opened anew for each, as after a kill: the answers are the same."""
    answers = []
    for name, reopened in (("whole", False), ("interrupted", True)):
        folder = tmp_path / name
        folder.mkdir()
        space = space_of(RATE, SIZE)
        cell = study(folder, space, sampler)
        rates: list[float] = []
        lowest = 1.0
        for number in range(12):
            if reopened:
                cell = study(folder, space, sampler)
            asked = cell.ask()
            rates.append(asked.values[LR])
            assert rates[-1] < lowest
            if number in (1, 4):
                lowest = rates[-1]
                cell.tell(asked.number, "diverged")
            else:
                cell.tell(asked.number, "complete", [rates[-1]])
        assert cell.states() == {"COMPLETE": 10, "FAIL": 2}
        assert cell.diverged() == f"diverged from {LR}={lowest:.4g} up"
        answers.append(rates)
    assert answers[0] == answers[1]


def test_stated_points_and_grids_are_left_alone(tmp_path: Path) -> None:
    points = [{LR: 1e-3}, {LR: 5e-3}, {"optimizer.batch_size": 3}]
    cell = study(tmp_path, space_of(RATE, SIZE, points=points))
    rates = []
    for _ in points:
        asked = cell.ask()
        rates.append(asked.values[LR])
        cell.tell(asked.number, "diverged")
    assert rates[:2] == [1e-3, 5e-3]
    assert rates[2] < 1e-3  # which the third point leaves open
    grid = tmp_path / "grid"
    grid.mkdir()
    space = space_of(SpaceParameter(LR, choices=[3e-3, 1e-3, 2e-3]))
    cell = study(grid, space, "grid", trials=3)
    seen = []
    for _ in range(3):
        asked = cell.ask()
        seen.append(asked.values[LR])
        cell.tell(asked.number, "diverged")
    assert seen == [3e-3, 1e-3, 2e-3]


def test_where_nothing_lower_is_left_a_trial_still_has_values(tmp_path: Path) -> None:
    cell = study(tmp_path, space_of(SpaceParameter(LR, choices=[1e-3, 2e-3])))
    for _ in range(4):
        asked = cell.ask()
        assert asked.values[LR] in (1e-3, 2e-3)
        cell.tell(asked.number, "diverged")


@pytest.mark.long
def test_a_sweep_stays_below_what_diverged(sweep: RealSweep) -> None:
    """Trial 0 takes the stated point, diverges, and all others draw below it, also after a resume."""
    parameters = "[{name: optimizer.lr, low: 1e-4, high: 1e-2, log: true, first: 1e-3}]"
    asked = [f"space.parameters={parameters}", "sweep.sampler.name=qmc", "launch.slots=1"]
    output = sweep.run(*asked, "sweep.trials=4", diverge=[0])
    assert "1 diverged" in output and "diverged from optimizer.lr=0.001 up" in output
    assert "diverged from optimizer.lr=0.001 up" in sweep.resume("sweep.trials=6")
    rates = [folder.read_facts().hyperparameters["lr"] for folder in sweep.folders()]
    assert rates[0] == 1e-3
    assert all(rate < 1e-3 for rate in rates[1:])
    assert len(set(rates)) == 6
    assert sweep.states() == {"COMPLETE": 5, "FAIL": 1}
