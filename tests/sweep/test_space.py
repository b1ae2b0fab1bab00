"""Random space files: each is sampled within its bounds, conditions and constraints, or refused in one clear line."""

from pathlib import Path
import tempfile
from typing import Any

from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st
import optuna
import pytest
import yaml

from conf import validate_sweep
from conf.errors import RequestError
from conf.schema import Sampler, Sweep
from sweep.space import CellSpace
from sweep.study import CellStudy
from tests.sweep.random_spaces import SpaceFile, space_files
from tests.sweep.spaces import base_config, read_space_file

TRIALS = {"random": 4, "qmc": 4, "tpe": 6, "grid": 12, "nsga2": 6, "cmaes": 5}
SAMPLERS = ["random", "random", "qmc", "qmc", "tpe", "grid", "nsga2", "cmaes"]
MAY_BE_EMPTY = (
    "constraints",
    "points",
    "grid",
    "cmaes",
)  # what refuses a sound file: nothing is left, or a sampler


def check(file: SpaceFile, sampler: str, folder: Path) -> None:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(file.content), encoding="utf-8")
    try:
        space = read_space_file(path, sampler)
        trials = sampled(space, sampler)
    except RequestError as error:
        event("refused")
        message = str(error)
        assert "\n" not in message
        assert ":" in message and len(message) < 2000
        assert "conf/space/mine.yaml: " in message or "sweep.sampler" in message or "space." in message, (
            message
        )
        assert file.broken or any(word in message for word in MAY_BE_EMPTY), message
        return
    event("accepted")
    for number, values in enumerate(trials):
        declared = searched(file.content, values)
        assert {item["name"] for item in declared} == set(values)
        for item in declared:
            assert_within(item, values[item["name"]])
        if not file.broken:
            assert all(bound.holds(values) for bound in file.bounds), (values, file.bounds)
            if sampler != "grid" and number < len(file.content["points"]):
                point = file.content["points"][number]
                assert {name: values[name] for name in point} == pytest.approx(point)


def sampled(space: CellSpace, sampler: str) -> list[dict[str, Any]]:
    """Trials asked for and told one by one."""
    objectives = ["held_out_loss", "steps"] if sampler == "nsga2" else ["held_out_loss"]
    count = min(TRIALS[sampler], len(space.grid())) if sampler == "grid" else TRIALS[sampler]
    study = CellStudy(
        storage=optuna.storages.InMemoryStorage(),
        label="cell",
        space=space,
        sweep=Sweep(sampler=Sampler(sampler), objectives=objectives),
        trials=count,
        grid=[0, 4, 8],
    )
    trials = []
    for number in range(count):
        asked = study.ask()
        study.tell(asked.number, "complete", [1 / (1 + number), float(number)][: len(objectives)])
        trials.append(asked.values)
    return trials


def searched(content: dict[str, Any], values: dict[str, Any]) -> list[dict[str, Any]]:
    """What a trial with these values is declared to have, by the file alone."""
    config = base_config()
    found = []
    for item in content["parameters"]:
        fits = True
        for name, wanted in (item.get("when") or {}).items():
            # What a trial does not search is its cell's, if it is a group.
            value = values[name] if name in values else getattr(getattr(config, name, None), "name", None)
            fits &= value in wanted if isinstance(wanted, list) else value == wanted
        found += [item] if fits else []
    return found


def assert_within(item: dict[str, Any], value: Any) -> None:
    if item.get("choices") is not None:
        assert value in item["choices"]
        return
    assert item["low"] <= value <= item["high"]
    if item.get("integer"):
        assert isinstance(value, int)
    if item.get("step"):
        steps = (value - item["low"]) / item["step"]
        assert steps == pytest.approx(round(steps), abs=1e-6)


def run_random_files(count: int, seeded: int, monkeypatch: pytest.MonkeyPatch) -> int:
    """Check so many files; how many there were."""
    checked = 0
    with tempfile.TemporaryDirectory() as name:
        monkeypatch.setattr(validate_sweep, "SPACES", Path(name))

        @seed(seeded)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(space_files(), st.sampled_from(SAMPLERS))
        def every_file(file: SpaceFile, sampler: str) -> None:
            nonlocal checked
            check(file, sampler, Path(name))
            checked += 1

        every_file()
    return checked


def test_random_space_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_random_files(30, 0, monkeypatch) >= 30


@pytest.mark.long
@pytest.mark.parametrize("part", range(1, 5))
def test_a_thousand_random_space_files(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_random_files(250, part, monkeypatch) >= 250
