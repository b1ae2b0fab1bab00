"""Pruners: what they are told, at which steps, and what that does to trials."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
import optuna
import pytest

from conf.errors import RequestError
from conf.schema import Pruner, Sampler, SpaceParameter, Sweep
from conf.validate_sweep import PRUNERS
from sweep.cells import make_request
from sweep.pruners import make_pruner, on_grid
from sweep.storage import open_journal
from sweep.study import CellStudy
from tests.sweep.harness import Sweep as RealSweep
from tests.sweep.spaces import space_of

GRID = [0, 4, 8, 16, 32, 64]
RATE = SpaceParameter("optimizer.lr", low=1e-4, high=1e-2, log=True)


def study(path: Path, pruner: Pruner) -> CellStudy:
    return CellStudy(
        storage=open_journal(path / "journal.log"),
        label="cell",
        space=space_of(RATE),
        sweep=Sweep(sampler=Sampler("random"), pruner=pruner),
        trials=9,
        grid=GRID,
    )


ON_GRID: list[tuple[dict[int, float], dict[int, float]]] = [
    ({}, {}),
    ({0: 1.0}, {0: 1.0}),
    ({0: 1.0, 3: 0.4}, {0: 1.0}),  # step 4 is not yet between two
    ({0: 1.0, 5: 0.5}, {0: 1.0, 4: 0.6}),
    ({0: 1.0, 16: 0.2}, {0: 1.0, 4: 0.8, 8: 0.6, 16: 0.2}),
    ({4: 0.5, 6: 0.4, 10: 0.2}, {4: 0.5, 8: 0.3}),
    ({5: 0.5, 7: 0.4}, {}),  # before the first evaluation nothing is known
]


@pytest.mark.parametrize(("losses", "expected"), ON_GRID)
def test_losses_are_interpolated_to_the_shared_steps(
    losses: dict[int, float], expected: dict[int, float]
) -> None:
    assert on_grid(losses, GRID) == pytest.approx(expected)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.dictionaries(st.integers(0, 80), st.floats(0, 2), max_size=12))
def test_only_shared_steps_within_what_was_measured(losses: dict[int, float]) -> None:
    found = on_grid(losses, GRID)
    assert all(step in GRID and min(losses) <= step <= max(losses) for step in found)
    assert all(
        min(losses.values()) - 1e-9 <= value <= max(losses.values()) + 1e-9 for value in found.values()
    )
    assert all(found[step] == losses[step] for step in found if step in losses)


def test_optuna_is_told_each_shared_step_once(tmp_path: Path) -> None:
    """However often, and in whatever pieces, the curve is read."""
    cell = study(tmp_path, Pruner("median"))
    number = cell.ask().number
    losses = {0: 1.0, 3: 0.9, 6: 0.8, 12: 0.6, 20: 0.5, 40: 0.4}
    for count in (1, 3, 3, 6, 6):
        cell.report(number, dict(list(losses.items())[:count]))
    written = [
        json.loads(line) for line in (tmp_path / "journal.log").read_text(encoding="utf-8").splitlines()
    ]
    steps = [line["step"] for line in written if "step" in line]
    assert steps == [0, 4, 8, 16, 32]
    storage = open_journal(tmp_path / "journal.log")
    (trial,) = optuna.load_study(study_name="cell", storage=storage).trials
    assert trial.intermediate_values == pytest.approx(
        {0: 1.0, 4: 0.9 - 0.1 / 3, 8: 0.8 - 0.2 / 3, 16: 0.55, 32: 0.44}
    )


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "threshold"])
def test_a_run_without_held_out_loss_is_never_pruned(tmp_path: Path, name: str) -> None:
    cell = study(tmp_path, Pruner(name))
    for level in (0.1, 0.2, 0.3, 0.4):
        asked = cell.ask()
        cell.report(asked.number, dict.fromkeys(GRID, level))
        cell.tell(asked.number, "complete", [level])
    blind = cell.ask()
    assert cell.report(blind.number, {}) is None
    assert cell.report(blind.number, {5: 9.0}) is None  # one evaluation beside the grid is between no two


ALL: list[tuple[str, dict[str, Any]]] = [
    ("median", {"n_startup_trials": 2}),
    ("percentile", {"percentile": 50.0, "n_startup_trials": 2}),
    ("asha", {"reduction_factor": 2}),
    ("hyperband", {"reduction_factor": 2}),
    ("patient", {"wrapped_pruner": None, "patience": 1}),
    ("threshold", {"upper": 0.8}),
    ("wilcoxon", {"p_threshold": 0.3, "n_startup_steps": 2}),
]


@pytest.mark.parametrize(("name", "parameters"), ALL, ids=[name for name, _ in ALL])
def test_every_pruner_ends_what_gets_worse_and_keeps_the_best(
    tmp_path: Path, name: str, parameters: dict[str, Any]
) -> None:
    cell = study(tmp_path, Pruner(name, parameters))
    fates: dict[float, str] = {}
    for level in (0.3, 0.2, 0.25, 0.95, 0.22, 0.96, 0.1, 0.97):
        asked = cell.ask()
        rising = level > 0.9
        losses = {step: level + (0.001 if rising else -0.001) * step for step in GRID}
        fates[level] = "complete"
        for count in range(1, len(GRID) + 1):
            if cell.report(asked.number, {step: losses[step] for step in GRID[:count]}) is not None:
                fates[level] = "pruned"
                break
        cell.tell(asked.number, fates[level], [level] if fates[level] == "complete" else None)
    assert fates[0.3] == fates[0.2] == fates[0.1] == "complete"
    assert "pruned" in (fates[0.95], fates[0.96], fates[0.97])


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("median", {"patience": 3}, r"sweep\.pruner\.parameters\.patience=3: median .*n_startup_trials"),
    ("none", {"patience": 3}, r"parameters\.patience=3: none has no such parameter; it has none"),
    ("percentile", {"percentile": 101}, r"percentile: Percentile must be"),
    ("threshold", {}, r"threshold: .*lower.*upper"),
    ("asha", {"min_resource": 0}, r"asha: .*min_resource"),
    ("hyperband", {"reduction_factor": 1}, r"reduction_factor=1: must be a whole number of 2 or more"),
    ("hyperband", {"max_resource": 2}, r"max_resource=2: must be auto or at least min_resource=4"),
    ("patient", {"wrapped_pruner": "best"}, r"wrapped_pruner=best: must be null or one of median"),
    ("wilcoxon", {"p_threshold": 2}, r"wilcoxon: .*p_threshold"),
]


@pytest.mark.parametrize(("name", "parameters", "words"), WRONG)
def test_wrong_parameters_are_named(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_pruner(Pruner(name, parameters), 4, 64)


@pytest.mark.parametrize("name", [name for name in PRUNERS if name != "none"])
def test_pruning_with_two_objectives_is_refused(name: str) -> None:
    with pytest.raises(
        RequestError, match=rf"sweep\.pruner\.name={name}: several objectives cannot be pruned: set"
    ):
        make_request([f"sweep.pruner.name={name}", "sweep.objectives=[held_out_loss,steps]"])


def test_a_sweep_ends_poor_trials_as_pruned(sweep: RealSweep) -> None:
    """Of the stand-in's curves those of high rates have risen far above the base by half of their steps."""
    rates = "[{name: optimizer.lr, choices: [1e-3, 2e-2, 2e-3]}]"
    output = sweep.run(
        f"space.parameters={rates}",
        "sweep.sampler.name=grid",
        "sweep.pruner.name=threshold",
        "sweep.pruner.parameters.upper=0.97",
        "sweep.pruner.parameters.n_warmup_steps=3",
        step_s=0.02,
        slow=[1],  # waits at half of its steps until it is asked to stop
    )
    assert sweep.outcomes() == ["complete", "pruned", "complete"]
    assert sweep.states() == {"COMPLETE": 2, "PRUNED": 1}
    assert "pruned 0001" in output and "threshold at step" in output
    _, pruned, _ = sweep.folders()
    assert max(point.step for point in pruned.points()) < 64
