"""From folders to cells."""

from dataclasses import replace
import json
import math
from pathlib import Path

import numpy as np
import pytest

from analysis.load import find_root, group_cells, load_study, read_run
from analysis.run import Run
from conf.errors import RequestError, WorkError
from curves.run_folder import RunFolder
from tests.analysis.make_runs import Spec, make_points, make_run, make_study

SPEC = Spec(horizon=60)


def test_study_folder_of_runs_and_single_run_hold_the_same_run(tmp_path: Path) -> None:
    root = make_study(tmp_path / "s", [SPEC, replace(SPEC, lr=2e-3)])
    assert [run.lr for run in load_study(root).runs] == [1e-3, 2e-3]
    assert len(load_study(root / "trials").runs) == 2
    only = load_study(root / "trials" / "0001-n4-lora-native-tiny")
    assert [run.lr for run in only.runs] == [2e-3]
    assert {load_study(root).name, load_study(root / "trials").name, only.name} == {"s"}


def test_runs_are_grouped_by_identity_and_by_nothing_else(tmp_path: Path) -> None:
    specs = [
        SPEC,
        replace(SPEC, lr=2e-3, seed=1),
        replace(SPEC, images=16),
        replace(SPEC, method="text_to_image"),
        replace(SPEC, resolution=128),
    ]
    cells = load_study(make_study(tmp_path / "s", specs)).cells
    found = [
        (cell.identity["method"], cell.identity["resolution"], cell.identity["images"], len(cell.runs))
        for cell in cells
    ]
    assert found == [
        ("lora", 64, 4, 2),
        ("lora", 64, 16, 1),
        ("lora", 128, 4, 1),
        ("text_to_image", 64, 4, 1),
    ]


@pytest.mark.parametrize("name", ["dataset", "captions", "base_id"])
def test_other_images_captions_or_weights_are_another_cell(tmp_path: Path, name: str) -> None:
    run = read_run(make_run(tmp_path / "a", SPEC))
    facts = replace(run.facts, cell={**run.facts.cell, name: "another"})
    assert len(group_cells([run, replace(run, facts=facts)])) == 2


def test_nothing_after_divergence_is_used(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", SPEC)
    lines = folder.curve.read_text().splitlines()
    record = json.loads(lines[6])
    record.pop("val_loss")
    lines[6] = json.dumps(record | {"diverged": True})
    folder.curve.write_text("\n".join(lines) + "\n")
    assert [point.step for point in read_run(folder).points] == [
        point.step for point in make_points(SPEC)[:6]
    ]


def test_training_points_are_no_evaluations_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", SPEC)
    whole = read_run(folder)
    with folder.curve.open("a") as file:
        file.write('{"step": 61, "train_loss": 0.2}\n{"step": 62, "val_l')
    assert read_run(folder).points == whole.points
    assert read_run(folder).last_step == 61


def test_curve_without_lr_sum_takes_a_constant_rate(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", SPEC)
    records = [json.loads(line) for line in folder.curve.read_text().splitlines()]
    for record in records:
        del record["lr_sum"]
    folder.curve.write_text("".join(json.dumps(record) + "\n" for record in records))
    curve = read_run(folder).curve()
    assert np.allclose(curve.lr_sum, SPEC.lr * curve.steps)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: run.run.write_text("{"), "run.json"),
        (lambda run: run.run.unlink(), "no run.json"),
        (lambda run: run.curve.write_text("nonsense\n" + run.curve.read_text()), "curve.jsonl: line 1"),
        (lambda run: run.curve.write_text('{"step": 4, "val_loss": "low"}\n'), "val_loss='low'"),
        (lambda run: _change(run, "hyperparameters", {"lr": None}), "lr=None"),
        (lambda run: _change(run, "cell", {"method": "lora"}), "the cell has no 'dataset'"),
        (lambda run: _change(run, "cell", "lora"), "cell='lora' is no mapping"),
        (lambda run: _change_cell(run, "resolution", "native"), "resolution='native' is no whole number"),
        (lambda run: _change_cell(run, "images", 0), "images=0 is no whole number"),
        (lambda run: _change(run, "images", None), "images=None is no whole number"),
        (lambda run: _change(run, "horizon", None), "horizon=None is no whole number"),
        (lambda run: _change(run, "horizon_lr_sum", 0.0), "horizon_lr_sum=0.0 is no positive number"),
        (lambda run: _change(run, "horizon_lr_sum", math.inf), "horizon_lr_sum=inf is no positive number"),
        (lambda run: _change(run, "hyperparameters", {"lr": 1e-3, "batch": "4"}), "batch='4' is no whole"),
        (lambda run: _change(run, "study", 7), "study=7 is no text"),
        (lambda run: _change_point(run, "image_loss", ["low"] * 8), "curve.jsonl: could not convert"),
        (lambda run: _change_point(run, "image_loss", 0.2), "step 5: image_loss=0.2 is no list"),
        (lambda run: _change_point(run, "panel", ["a"]), "step 5: panel=['a'] is no str"),
        (lambda run: _change_point(run, "train_loss", "low"), "step 5: train_loss='low' is no number"),
        (lambda run: _change_point(run, "lr_sum", -1.0), "curve.jsonl: lr_sum is not finite, or falls"),
    ],
)
def test_damaged_folder_is_named_and_the_rest_goes_on(tmp_path: Path, damage, said: str) -> None:
    make_run(tmp_path / "a", SPEC)
    damage(make_run(tmp_path / "b", SPEC))
    found = load_study(tmp_path)
    assert [run.name for run in found.runs] == ["a"]
    [(name, reason)] = found.damaged
    assert name == "b"
    assert said in reason
    assert str(tmp_path) not in reason


def test_only_damaged_folders_are_a_failure_that_names_them(tmp_path: Path) -> None:
    make_run(tmp_path / "broken-one", SPEC).run.write_text("[]")
    with pytest.raises(WorkError, match="broken-one"):
        load_study(tmp_path)


def test_missing_or_empty_folder_is_a_wrong_request_with_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_study(tmp_path / "runs" / "demo", [SPEC])
    (tmp_path / "runs" / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"demoo: there is no such folder; with runs: .*runs/demo"):
        load_study("demoo")
    with pytest.raises(RequestError, match="empty: there are no runs"):
        load_study("empty")
    assert find_root("demo") == Path("runs/demo")
    assert find_root("runs/demo") == Path("runs/demo")


def test_no_evaluation_is_a_run_without_points(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", SPEC)
    folder.curve.unlink()
    run = read_run(folder)
    assert (run.points, run.best, run.panels) == ((), None, frozenset())


def _change(run: RunFolder, key: str, value: object) -> None:
    record = json.loads(run.run.read_text())
    run.run.write_text(json.dumps(record | {key: value}))


def _change_cell(run: RunFolder, name: str, value: object) -> None:
    _change(run, "cell", {**json.loads(run.run.read_text())["cell"], name: value})


def _change_point(run: RunFolder, name: str, value: object) -> None:
    """Of the third evaluation, at step 5."""
    records = [json.loads(line) for line in run.curve.read_text().splitlines()]
    records[2][name] = value
    run.curve.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_outcome_is_the_verdict(tmp_path: Path) -> None:
    root = make_study(tmp_path / "s", [replace(SPEC, outcome="pruned")])
    runs: list[Run] = load_study(root).runs
    assert runs[0].outcome == "pruned"
