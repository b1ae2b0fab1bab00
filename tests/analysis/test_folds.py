"""Folds: what their join says, which sets are joined, and the answer from curves of known truth."""

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.load import load_study
from analysis.recommend import analyse
from conf.errors import WorkError
from curves.panel import paired_difference
from curves.run_folder import RunFolder
from tests.analysis.make_runs import HELD_OUT, Spec, make_points, make_run, run_facts, true_minimum

SPEC = Spec(images=HELD_OUT - 1, horizon=600)


def make_fold(root: Path, number: int, spec: Spec, fold: int, folds: int = HELD_OUT) -> RunFolder:
    """The run that holds out one image of what `spec` measures."""
    folder = make_run(root / "trials" / f"{number:04d}-all-lora", spec)
    folder.write_facts(replace(run_facts(spec), panel=f"panel-{fold}", fold=fold, folds=folds))
    folder.curve.unlink()
    for point in make_points(spec):
        assert point.image_loss is not None
        one = point.image_loss[fold]
        alone = replace(point, val_loss=one, val_se=None, delta=None, delta_se=None, image_loss=[one])
        folder.append_point(replace(alone, panel=f"panel-{fold}"))
    return folder


def make_folds(root: Path, specs: list[Spec], folds: int = HELD_OUT) -> Path:
    for index, spec in enumerate(specs):
        for fold in range(folds):
            make_fold(root, folds * index + fold, spec, fold, folds)
    return root


def test_folds_of_one_model_answer_as_its_whole_panel_does(tmp_path: Path) -> None:
    """Where all folds train alike, holding the images out one by one measures what holding all out measures."""
    specs = [replace(SPEC, lr=lr) for lr in (1e-3, 2e-3)]
    for index, spec in enumerate(specs):
        make_run(tmp_path / "whole" / "trials" / f"{index:04d}-all-lora", spec)
    (whole,) = analyse(load_study(tmp_path / "whole")).cells
    (found,) = analyse(load_study(make_folds(tmp_path / "folds", specs))).cells
    assert found.answer.status == "ok"
    names = ("recommended_steps", "minimum", "window", "gain", "gain_se", "hyperparameters", "images")
    for name in names:
        assert getattr(found.answer, name) == getattr(whole.answer, name), name
    assert found.answer.evidence["runs_found"] == 2


def test_the_joined_curve_is_paired_and_clustered_by_image(tmp_path: Path) -> None:
    (run,) = load_study(make_folds(tmp_path / "s", [SPEC])).runs
    points = make_points(SPEC)
    assert [point.step for point in run.points] == [point.step for point in points]
    last, start = np.array(points[-1].image_loss), np.array(points[0].image_loss)
    assert run.points[-1].image_loss == list(last)
    assert (run.points[-1].delta, run.points[-1].delta_se) == paired_difference(last, start)
    assert (run.folds, run.outcome, run.name) == (HELD_OUT, "complete", "0000-all-lora")


@pytest.mark.parametrize("images", [3, 5])
def test_few_images_of_which_each_fold_trains_another_model_are_answered(tmp_path: Path, images: int) -> None:
    """Every fold has its own noise and its own time of the minimum (Spec's scatter of 5 % by seed)."""
    spec = replace(SPEC, images=images - 1, noise=0.02)
    for number, lr in enumerate((7e-4, 1e-3, 1.4e-3)):
        for fold in range(images):
            own = replace(spec, lr=lr, seed=100 * number + fold)
            folder = make_fold(tmp_path, images * number + fold, own, fold, images)
            folder.write_facts(replace(folder.read_facts(), seed=number))
    (cell,) = analyse(load_study(tmp_path)).cells
    answer = cell.answer
    assert (answer.status, answer.images, len(cell.runs)) == ("ok", images - 1, 3)
    lr = answer.hyperparameters["lr"]
    truth = true_minimum(replace(spec, lr=lr))
    assert answer.minimum is not None
    assert answer.recommended_steps is not None
    assert 0.85 * answer.minimum["low"] <= truth <= 1.15 * answer.minimum["high"]
    assert truth / 3 <= answer.recommended_steps <= truth


@pytest.mark.parametrize(
    ("folds", "crashed", "reason"),
    [
        (8, 4, ""),
        (8, 5, "3 of its 8 folds can be used (fold 0 crashed, fold 1 crashed"),
        (3, 0, ""),
        (3, 1, "2 of its 3 folds can be used (fold 0 crashed), which measure 2 images; 4 are needed"),
    ],
)
def test_a_set_with_missing_folds_needs_four_images(
    tmp_path: Path, folds: int, crashed: int, reason: str
) -> None:
    make_folds(tmp_path, [SPEC], folds)
    for fold in range(crashed):
        folder = RunFolder(tmp_path / "trials" / f"{fold:04d}-all-lora")
        status = folder.read_status()
        assert status is not None
        folder.write_status(replace(status, outcome="crashed"))
    if reason:
        with pytest.raises(WorkError) as caught:
            load_study(tmp_path)
        assert f"0000-all-lora: {reason}" in str(caught.value)
    else:
        (run,) = load_study(tmp_path).runs
        assert (run.folds, len(run.points[0].image_loss or ())) == (folds - crashed, folds - crashed)


def test_a_set_without_a_fold_that_others_have_is_left_out_by_name(tmp_path: Path) -> None:
    make_folds(tmp_path, [replace(SPEC, seed=seed) for seed in range(3)])
    lost = RunFolder(tmp_path / "trials" / "0010-all-lora")
    lost.run.unlink()
    study = load_study(tmp_path)
    assert [run.facts.seed for run in study.runs] == [0, 2]
    assert ("0008-all-lora", "its 7 folds measure other images than the 8 of 0000-all-lora") in study.damaged
    (cell,) = analyse(study).cells
    assert cell.answer.status == "ok"


def test_folds_at_work_are_joined_as_far_as_all_have_come(tmp_path: Path) -> None:
    make_folds(tmp_path, [SPEC])
    folder = RunFolder(tmp_path / "trials" / "0003-all-lora")
    folder.cut_curve(64)
    status = folder.read_status()
    assert status is not None
    folder.write_status(replace(status, state="running", outcome=None, step=70))
    (run,) = load_study(tmp_path).runs
    assert (run.points[-1].step, run.last_step, run.outcome) == (64, 64, None)


def test_seeds_and_parameters_are_never_mixed(tmp_path: Path) -> None:
    """The first half of one set and the second half of another are two incomplete sets."""
    for fold in range(4):
        make_fold(tmp_path, fold, SPEC, fold)
        make_fold(tmp_path, fold + 4, replace(SPEC, lr=2e-3), fold + 4)
    runs = load_study(tmp_path).runs
    assert [(run.lr, run.folds) for run in runs] == [(1e-3, 4)]  # the other measures other images


@pytest.mark.parametrize(("fold", "folds"), [(8, 8), (-1, 8), (0, 1), (None, 8), (0, None)])
def test_a_damaged_fold_is_left_out_by_name(tmp_path: Path, fold: object, folds: object) -> None:
    make_folds(tmp_path, [SPEC])
    path = tmp_path / "trials" / "0002-all-lora" / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "fold": fold, "folds": folds}))
    study = load_study(tmp_path)
    assert [name for name, _ in study.damaged] == ["0002-all-lora"]
    assert [run.folds for run in study.runs] == [7]
