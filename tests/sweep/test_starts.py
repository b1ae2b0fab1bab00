"""Where new cells start, and sweeps of two objectives: real supervisors over the stand-in trainer."""

import json
from pathlib import Path
import re

import pytest

from sweep.objectives import pareto_front
from tests.sweep.harness import Sweep

RATES = "space.parameters=[{name: optimizer.lr, low: 1e-4, high: 1e-2, log: true}]"
SIZES = "sweep.factors={dataset_size: [n4, n16]}"


def rates(sweep: Sweep, study: Path) -> dict[str, list[float]]:
    """Learning rates of the runs of each cell, in the order of their numbers."""
    found: dict[str, list[float]] = {}
    for path in sorted((study / "trials").iterdir()):
        facts = json.loads((path / "run.json").read_text(encoding="utf-8"))
        found.setdefault(path.name.split("-", 1)[1], []).append(facts["hyperparameters"]["lr"])
    return found


def best_rate(study: Path, cell: str) -> float:
    """The learning rate of the run with the lowest held-out loss."""
    losses = {}
    for path in (study / "trials").glob(f"*-{cell}"):
        points = [
            json.loads(line) for line in (path / "curve.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        losses[min(point["val_loss"] for point in points)] = points[-1]["lr"]
    return float(losses[min(losses)])


@pytest.mark.long
def test_a_cell_starts_from_the_best_of_its_neighbours(sweep: Sweep) -> None:
    """The same after a stop between the two cells as without one."""
    asked = [RATES, SIZES, "sweep.start_from=neighbours", "launch.slots=1", "sweep.sampler.name=qmc"]
    first, second = "n4-lora-native-tiny", "n16-lora-native-tiny"
    output = sweep.run(*asked, "sweep.limits.trials=3", status=3)
    assert "starts from" not in output
    output = sweep.resume("sweep.limits.trials=6")
    stopped = rates(sweep, sweep.study)
    assert stopped[second][0] == best_rate(sweep.study, first)
    assert len({*stopped[first], *stopped[second]}) == 5  # only that one is shared
    started = [line for line in output.splitlines() if "started 0003-" in line]
    assert len(started) == 1 and started[0].endswith(f", starts from the best of {first}")
    sweep.study = sweep.runs_dir / "whole"
    assert output.count("starts from") == 1
    sweep.run(*asked, "study=whole")
    assert rates(sweep, sweep.study) == stopped


@pytest.mark.long
def test_a_study_starts_from_the_best_of_an_earlier_one(sweep: Sweep) -> None:
    """Of its cells from the one that differs in the fewest levels, the value moved into the new bounds."""
    sweep.run(RATES, "sweep.factors={dataset_size: [n4, n8], method: [lora, text_to_image]}")
    earlier = sweep.study
    sweep.study = sweep.runs_dir / "later"
    narrow = "space.parameters=[{name: optimizer.lr, low: 1e-4, high: 1.1e-4, log: true}]"
    origin = f"sweep.start_from='{earlier}'"
    output = sweep.run(origin, RATES, SIZES, "study=later")
    found = rates(sweep, sweep.study)
    assert found["n4-lora-native-tiny"][0] == best_rate(earlier, "n4-lora-native-tiny")
    nearest = {best_rate(earlier, f"{size}-lora-native-tiny") for size in ("n4", "n8")}
    assert found["n16-lora-native-tiny"][0] in nearest
    assert output.count(f"starts from the best of {earlier} n") == 2
    sweep.study = sweep.runs_dir / "narrow"
    sweep.run(origin, narrow, "study=narrow", "sweep.trials=1")
    (rate,) = rates(sweep, sweep.study)["n8-lora-native-tiny"]
    assert rate == min(max(best_rate(earlier, "n8-lora-native-tiny"), 1e-4), 1.1e-4)
    missing = sweep.end_of(sweep.start("plan", *sweep.arguments("sweep.start_from=runs/none", "study=x")), 2)
    assert "sweep.start_from=runs/none: there is no such study: give neighbours, or the folder" in missing


def test_the_pareto_front_is_told_by_cell(sweep: Sweep) -> None:
    """Of loss against steps; in the output, in `status` and in `status --json`."""
    objectives = ["sweep.sampler.name=nsga2", "sweep.objectives=[held_out_loss,steps]"]
    output = sweep.run(*objectives, RATES, SIZES, "sweep.trials=6", diverge=[2])
    state = json.loads(sweep.end_of(sweep.start("status", str(sweep.study), "--json"), 0))
    (record,) = state if isinstance(state, list) else [state]
    points: dict[str, dict[int, list[float]]] = {}
    for folder in sweep.folders():
        if folder.outcome() == "complete":
            best = min(folder.points(), key=lambda point: (point.val_loss or 0.0, point.step))
            number, cell = folder.path.name.split("-", 1)
            points.setdefault(cell, {})[int(number)] = [best.val_loss or 0.0, best.step]
    assert sum(map(len, points.values())) == 11
    status = sweep.end_of(sweep.start("status", str(sweep.study)), 0)
    for cell, own in points.items():
        front = [list(own)[index] for index in pareto_front(list(own.values()))]
        assert record["pareto_front"][cell] == front
        for text in (output, status):
            (line,) = [
                line
                for line in text.splitlines()
                if f"{cell}: Pareto front of held-out loss and steps" in line
            ]
            assert [int(number) for number in re.findall(r"trial (\d+)", line)] == front


PARETO: list[tuple[list[list[float]], list[int]]] = [
    ([], []),
    ([[1.0, 1.0]], [0]),
    ([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0]], [0, 1]),
    ([[1.0, 1.0], [1.0, 1.0]], [0]),
    ([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [2.0, 3.0]], [1, 2, 0]),
]


def test_no_point_of_a_front_is_beaten() -> None:
    for points, expected in PARETO:
        assert pareto_front(points) == expected, points
