"""Every stop rule in the real trainer: it ends the run where the recorded points say it must."""

import math
from pathlib import Path

import pytest

from curves.run_folder import RunFolder
from curves.stopping.calibration import Calibration, write_calibrations
from curves.stopping.registry import make_rule
from tests.finetune.conftest import Train

RUN = ["optimizer.lr=0.05", "budget.max_steps=40", "evaluation.first_step=1"]
# With parameters under which this run, which gets worse after a few steps, is ended early.
CASES: list[tuple[str, dict[str, float]]] = [
    ("fixed", {"steps": 7}),
    ("fixed", {"steps_per_image": 2.5}),
    ("gl", {"alpha": 0.05}),
    ("up", {"successive": 2, "strip": 1}),
    ("pq", {"alpha": 0.2, "strip": 2}),
    ("dvar", {"threshold": 0.6, "window": 3}),
]


def overrides(name: str, parameters: dict[str, float]) -> list[str]:
    return [f"stopping={name}", *(f"stopping.parameters.{key}={value}" for key, value in parameters.items())]


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_the_trainer_stops_where_a_replay_of_its_points_does(
    run_train: Train, tmp_path: Path, name: str, parameters: dict[str, float]
) -> None:
    assert run_train(tmp_path / "run", *RUN, *overrides(name, parameters)) == 0
    folder = RunFolder(tmp_path / "run")
    facts, points, status = folder.read_facts(), folder.points(), folder.read_status()
    rule = make_rule(
        name,
        horizon_steps=facts.horizon,
        horizon_lr_sum=facts.horizon_lr_sum,
        images=facts.images,
        batch=facts.hyperparameters["batch"],
        **parameters,
    )
    stops = [rule.update(point).stop for point in points]
    assert stops == [False] * (len(points) - 1) + [True]
    assert status is not None
    assert (status.outcome, status.reason) == ("stopped", rule.stopped)
    assert all(point.train_panel_loss is not None for point in points)


def test_fixed_steps_are_measured_at_their_end_whatever_the_grid(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", *RUN, *overrides("fixed", {"steps": 13})) == 0
    assert RunFolder(tmp_path / "run").points()[-1].step == 13
    per_image = overrides("fixed", {"steps_per_image": 2.5})
    assert run_train(tmp_path / "image", *RUN, *per_image) == 0
    # 4 images at a batch of 2.
    assert RunFolder(tmp_path / "image").points()[-1].step == math.ceil(2.5 * 4 / 2)


def test_fixed_steps_need_no_held_out_loss(run_train: Train, tmp_path: Path) -> None:
    blind = ["evaluation.enabled=false", *overrides("fixed", {"steps": 6})]
    assert run_train(tmp_path / "run", *RUN, *blind) == 0
    points = RunFolder(tmp_path / "run").points()
    assert points[-1].step == 6
    assert all(point.val_loss is None for point in points)


def test_a_calibration_is_the_rule_that_it_names(
    run_train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    write_calibrations(path, [Calibration(0.3, "gl", {"alpha": 0.05})])
    chosen = ["stopping=calibrated", f"stopping.parameters.path={path}"]
    assert run_train(tmp_path / "run", *RUN, *chosen) == 0
    assert "stopping=calibrated: gl, alpha=0.05, tuned for a price of 0.3" in capsys.readouterr().err
    assert run_train(tmp_path / "same", *RUN, *overrides("gl", {"alpha": 0.05})) == 0
    ends = [RunFolder(tmp_path / name).points()[-1] for name in ("run", "same")]
    assert ends[0].step == ends[1].step < 40
    assert ends[0].val_loss == ends[1].val_loss
