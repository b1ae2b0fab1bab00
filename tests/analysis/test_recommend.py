"""From cells to answers: statuses, the best hyperparameters, and that the curves decide."""

from dataclasses import replace
import json
from pathlib import Path
import re

import numpy as np
import pytest

from analysis import words
from analysis.law import exponent
from analysis.load import Cell, group_cells, load_study, read_run
from analysis.recommend import Analysis, CellResult, analyse, answer_cell
from analysis.schedule import fresh_schedule
from curves.recommendation import matching_cell, read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_runs import Spec, learning_rates, make_run, true_minimum

SPEC = Spec(best_time=0.12)


def one_cell(tmp_path: Path, *specs: Spec) -> Cell:
    """The single cell of these runs."""
    runs = [read_run(make_run(tmp_path / f"run{number}", spec)) for number, spec in enumerate(specs)]
    [cell] = group_cells(runs)
    return cell


def by_images(analysis: Analysis, method: str) -> dict[int, CellResult]:
    return {cell.answer.images: cell for cell in analysis.cells if cell.answer.method == method}


def test_every_status_is_found_where_it_is_true(analysis: Analysis) -> None:
    lora, full = by_images(analysis, "lora"), by_images(analysis, "text_to_image")
    assert {images: cell.answer.status for images, cell in lora.items()} == {4: "ok", 8: "ok", 16: "ok"}
    expected = {4: "not_reached", 8: "no_gain", 16: "refused", 64: "refused", 128: "refused"}
    assert {images: cell.answer.status for images, cell in full.items()} == expected


def test_minimum_holds_the_truth_and_steps_are_cheaper(analysis: Analysis) -> None:
    for images, cell in by_images(analysis, "lora").items():
        row = cell.answer
        assert row.minimum is not None and row.window is not None and row.recommended_steps is not None
        truth = true_minimum(replace(SPEC, best_time=0.12 * (images / 4) ** 0.6))
        assert row.minimum["low"] <= truth <= row.minimum["high"]
        assert row.window["low"] <= row.recommended_steps <= row.minimum["median"]
        assert row.hyperparameters["lr"] == 1e-3
        assert row.gain == pytest.approx(0.012 * (images / 4) ** 0.1, rel=0.15)
        assert row.gain_se is not None and 0 < row.gain_se < 0.3 * row.gain


def test_images_seen_and_epochs_follow_from_the_steps(analysis: Analysis) -> None:
    for images, cell in by_images(analysis, "lora").items():
        row = cell.answer
        assert row.recommended_steps is not None
        assert row.images_seen == 4 * row.recommended_steps
        assert row.epochs == pytest.approx(4 * row.recommended_steps / images, abs=0.01)


def test_cells_without_an_answer_have_no_steps_and_a_reason(analysis: Analysis) -> None:
    for cell in by_images(analysis, "text_to_image").values():
        row = cell.answer
        assert (row.recommended_steps, row.minimum, row.window, row.images_seen, row.epochs) == (None,) * 5
        assert row.reason


def test_prefixes_give_a_lower_bound_and_count_as_censored(analysis: Analysis) -> None:
    row = by_images(analysis, "text_to_image")[4].answer
    assert row.lower_bound is not None and row.lower_bound > 20
    assert row.expected_minimum is not None
    assert row.lower_bound <= row.expected_minimum["low"] < row.expected_minimum["high"]
    assert row.evidence["runs"] == row.evidence["censored_runs"] == 2


def test_mixed_panels_are_refused_by_name(analysis: Analysis) -> None:
    cell = by_images(analysis, "text_to_image")[16]
    for name in ("panel-a", "panel-b", *(item.run.name for item in cell.runs)):
        assert name in cell.answer.reason
    assert "panel" in cell.answer.reason


def test_a_run_without_a_panel_name_is_not_compared_with_named_ones(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, SPEC, replace(SPEC, seed=1))
    folder = cell.runs[0].folder
    records = [json.loads(line) | {"panel": None} for line in folder.curve.read_text().splitlines()]
    folder.curve.write_text("".join(json.dumps(record) + "\n" for record in records))
    folder.run.write_text(json.dumps(json.loads(folder.run.read_text()) | {"panel": None}))
    [unlike] = group_cells([read_run(folder), cell.runs[1]])
    row = answer_cell(unlike).answer
    assert row.status == "refused" and "without a panel name: run0; panel-a: run1" in row.reason
    assert words.runs(row) == "0 of 2 runs used"
    [alone] = group_cells([read_run(folder)])
    assert answer_cell(alone).answer.status == "ok"


def test_a_window_that_the_horizon_ends_is_said_to_be_open(tmp_path: Path) -> None:
    short, long = replace(SPEC, horizon=190), replace(SPEC, horizon=1200)
    cut = answer_cell(one_cell(tmp_path / "short", short)).answer
    whole = answer_cell(one_cell(tmp_path / "long", long)).answer
    assert cut.window is not None and whole.window is not None
    assert (cut.status, cut.window_open, cut.window["high"]) == ("ok", True, 190)
    assert words.window(cut) == f"{cut.window['low']}–190+"
    assert (whole.status, whole.window_open) == ("ok", False) and "+" not in words.window(whole)


def test_a_price_of_the_horizon_moves_the_priced_steps_alone(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, SPEC)
    plain, cheap, dear = (answer_cell(cell, price).answer for price in (None, 0.0, 2.0))
    assert plain.priced is None and cheap.priced is not None and dear.priced is not None
    truth = true_minimum(SPEC)
    assert 0.7 * truth < cheap.priced["steps"] < 1.4 * truth
    assert 0 < dear.priced["steps"] < 0.5 * truth and dear.priced["price"] == 2
    assert replace(dear, priced=None) == plain


def test_a_run_that_gained_nothing_has_no_minimum_to_end_before(tmp_path: Path) -> None:
    result = answer_cell(one_cell(tmp_path, replace(SPEC, gain=-0.004)))
    assert result.answer.status == "no_gain"
    assert result.answer.evidence["censored_runs"] == 0 and not result.runs[0].censored
    assert words.runs(result.answer) == "1 run"


def test_file_holds_the_answers_and_finds_the_cell(analysis: Analysis, study: Path) -> None:
    stored = read_recommendation(study)
    assert stored == analysis.recommendation
    row = analysis.cells[0].answer
    found = matching_cell(stored.cells, analysis.study.cells[0].identity)
    assert found == row
    raw = json.loads((study / "analysis" / "recommendation.json").read_text())
    assert set(raw) == {"schema", "study", "cells", "law"}


def test_analysis_is_the_same_twice(analysis: Analysis, study: Path) -> None:
    again = analyse(replace(load_study(study), cells=load_study(study).cells[:1]))
    assert again.recommendation.cells[0] == analysis.recommendation.cells[0]


def test_truncated_curves_change_the_answer(tmp_path: Path) -> None:
    whole = answer_cell(one_cell(tmp_path / "whole", SPEC)).answer
    cut = answer_cell(one_cell(tmp_path / "cut", replace(SPEC, last_step=54))).answer
    assert whole.status == "ok"
    assert cut.status != "ok" and cut.recommended_steps is None


def test_shuffled_curves_change_the_answer(tmp_path: Path) -> None:
    cell = one_cell(tmp_path, SPEC)
    folder = cell.runs[0].folder
    records = [json.loads(line) for line in folder.curve.read_text().splitlines()]
    values = [record["val_loss"] for record in records]
    order = np.random.default_rng(0).permutation(len(values))
    for record, index in zip(records, order, strict=True):
        record["val_loss"] = values[index]
        record["image_loss"] = [values[index]] * 8
    folder.curve.write_text("".join(json.dumps(record) + "\n" for record in records))
    before = answer_cell(cell).answer
    [shuffled] = group_cells([read_run(folder)])
    after = answer_cell(shuffled).answer
    assert (after.status, after.recommended_steps) != (before.status, before.recommended_steps)


def test_best_hyperparameters_average_over_replicates(tmp_path: Path) -> None:
    """One lucky seed at a poor learning rate does not win against the mean of two at a good one."""
    lucky = replace(SPEC, lr=2e-3, seed=1, gain=0.014)
    unlucky = replace(SPEC, lr=2e-3, seed=2, gain=0.0095)
    cell = one_cell(tmp_path, SPEC, replace(SPEC, seed=3), lucky, unlucky)
    result = answer_cell(cell)
    assert result.answer.hyperparameters["lr"] == 1e-3
    assert [item.run.name for item in result.best] == ["run0", "run1"]


def test_other_hyperparameters_are_not_pooled(tmp_path: Path) -> None:
    other = replace(SPEC, seed=1, gain=0.006, best_time=0.5, hyperparameters={"rank": 64})
    alone = answer_cell(one_cell(tmp_path / "alone", SPEC)).answer
    both = answer_cell(one_cell(tmp_path / "both", SPEC, other)).answer
    assert (both.minimum, both.evidence["runs"]) == (alone.minimum, 1)


def test_recommendation_follows_the_decaying_schedule(tmp_path: Path) -> None:
    """A cosine run reaches the same intrinsic time later."""
    spec = replace(SPEC, schedule="cosine", horizon=300, best_time=0.1)
    run = read_run(make_run(tmp_path / "a", spec))
    schedule = fresh_schedule(run)
    assert np.allclose(schedule.lr_sum[1:], np.cumsum(learning_rates(spec)))
    cut = read_run(make_run(tmp_path / "b", replace(spec, last_step=76)))
    assert np.allclose(fresh_schedule(cut).lr_sum, schedule.lr_sum)


def test_unknown_schedule_goes_through_the_points(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", replace(SPEC, hyperparameters={"schedule": "one-cycle"}))
    schedule = fresh_schedule(read_run(folder))
    assert schedule.horizon_steps == SPEC.horizon
    assert schedule.lr_sum[-1] == pytest.approx(SPEC.lr * SPEC.horizon)


def test_runs_without_evaluations_are_refused(tmp_path: Path) -> None:
    folder: RunFolder = make_run(tmp_path / "a", SPEC)
    folder.curve.unlink()
    row = analyse(load_study(tmp_path)).cells[0].answer
    assert (row.status, row.reason) == ("refused", "no run has 4 finite evaluations")


def test_law_needs_three_sizes_and_finds_the_exponent(analysis: Analysis, tmp_path: Path) -> None:
    law = analysis.recommendation.law
    assert law is not None
    [group] = law["groups"]
    assert group["images"] == [4, 8, 16]
    assert group["exponent"]["low"] <= 0.6 <= group["exponent"]["high"]
    assert analyse(replace(analysis.study, cells=analysis.study.cells[:2])).recommendation.law is None


@pytest.mark.parametrize("truth", [0.3, 0.6, 1.0])
def test_exponent_of_an_exact_law(truth: float) -> None:
    images = np.array([4.0, 16.0, 64.0, 256.0, 1024.0])
    low, median, high = exponent(images, 3 * images**truth, np.full(5, 0.02))
    assert low < truth < high
    assert median == pytest.approx(truth, abs=0.05)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "warmup_stable_decay"])
def test_the_formula_is_the_trainers(tmp_path: Path, schedule: str) -> None:
    """A run that was cut before its decay is still known to decay."""
    from conf.schema import Optimizer
    from finetune.schedule import learning_rate, lr_sum

    optimizer = Optimizer(lr=1e-3, schedule=schedule, warmup_steps=20, decay_share=0.4)
    facts = {"schedule": schedule, "warmup_steps": 20, "decay_share": 0.4}
    folder = make_run(tmp_path / "a", replace(SPEC, horizon=300, last_step=76, hyperparameters=facts))
    record = json.loads((folder.path / "run.json").read_text())
    record["horizon_lr_sum"] = lr_sum(optimizer, 300, 300)
    (folder.path / "run.json").write_text(json.dumps(record))
    expected = np.cumsum([learning_rate(optimizer, 300, step) for step in range(1, 301)])
    np.testing.assert_allclose(fresh_schedule(read_run(folder)).lr_sum[1:], expected, rtol=1e-12)


def test_the_second_best_learning_rate_is_told_apart_only_where_it_is_worse(tmp_path: Path) -> None:
    """A rate of half the best reaches 93 % of its gain; one of 0.9 times the best 99.8 %."""
    near, far = replace(SPEC, lr=9e-4, seed=1), replace(SPEC, lr=3e-4, seed=2, horizon=1500)
    alike = answer_cell(one_cell(tmp_path / "near", SPEC, near)).answer
    unlike = answer_cell(one_cell(tmp_path / "far", SPEC, far)).answer
    assert alike.runner_up is not None and unlike.runner_up is not None
    assert not alike.runner_up["told_apart"] and unlike.runner_up["told_apart"]
    assert unlike.runner_up["hyperparameters"] == {"lr": 3e-4}
    assert unlike.runner_up["worse_by"] == pytest.approx(1 - np.exp(-0.15 * np.log(0.3) ** 2), abs=0.04)
    assert words.runner_up(alike).endswith("% of gain worse, not told apart")
    assert re.fullmatch(r"next best lr 3e-4: \d+\.\d ± \d+\.\d % of gain worse", words.runner_up(unlike))
    assert answer_cell(one_cell(tmp_path / "one", SPEC)).answer.runner_up is None
