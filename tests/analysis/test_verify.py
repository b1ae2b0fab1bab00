"""The recommendation against fresh runs of known truth, the panel's scatter, and the replay of stop rules."""

from dataclasses import replace
import json
from pathlib import Path

import numpy as np
import pytest

from analysis.load import load_study, read_run
from analysis.panel import detrended_sd, panel_scatter, panel_table
from analysis.recommend import Analysis
from analysis.verify import print_verification, truth_of, verification_table, verify
from conf.errors import RequestError
from tests.analysis.make_runs import Spec, latent_regret, make_run, true_minimum

FRESH = Spec(lr=1e-3, best_time=0.12, seed=50, study=None)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fresh seeds of the study's lora cells on 4 and 8 images, and two runs that belong to none."""
    root = tmp_path_factory.mktemp("fresh")
    make_run(root / "n4", FRESH)
    make_run(root / "n8", replace(FRESH, images=8, best_time=0.12 * 2**0.6))
    make_run(root / "other-lr", replace(FRESH, lr=2e-3))
    make_run(root / "other-cell", replace(FRESH, images=12))
    return root


def test_truth_is_the_simulated_one(tmp_path: Path) -> None:
    spec = replace(FRESH, noise=0.005)
    truth = truth_of(read_run(make_run(tmp_path / "a", spec)))
    assert truth is not None
    assert truth.minimum == pytest.approx(true_minimum(spec), rel=0.25)
    assert truth.gain == pytest.approx(0.012, rel=0.1)
    for step in (30, 60, 400):
        assert truth.at(step) == pytest.approx(latent_regret(np.array([step * 1e-3]), 0.12)[0], abs=0.06)
    assert np.isnan(truth.at(10_000))


def test_recommendation_holds_on_fresh_runs(analysis: Analysis, fresh: Path) -> None:
    result = verify(analysis, load_study(fresh))
    assert [check.run for check in result.checks] == ["n4", "n8"]
    for check in result.checks:
        assert check.covered
        assert check.regret is not None and check.regret < 0.12
        assert check.minimum_regret is not None and check.minimum_regret < 0.05
        assert 0.3 < check.early_gain < 0.9
        assert check.high_over_low is not None and 1 < check.high_over_low < 4
    assert [check.rule_of_thumb_steps for check in result.checks] == [100, 200]
    assert result.mean_regret == pytest.approx(
        np.mean([check.regret for check in result.checks if check.regret])
    )
    assert 0 <= result.constant_regret < 0.1
    unmatched = " ".join(result.unmatched)
    assert "other-lr: lr=0.002, not 0.001" in unmatched and "other-cell: no such cell" in unmatched
    assert [row[0] for row in verification_table(result).rows] == ["lora, 4 images", "lora, 8 images"]


def test_wrong_steps_cost_regret(analysis: Analysis, fresh: Path) -> None:
    cells = [replace(cell, recommended_steps=8) for cell in analysis.recommendation.cells]
    wrong = replace(analysis, recommendation=replace(analysis.recommendation, cells=cells))
    assert verify(wrong, load_study(fresh)).mean_regret > 0.3


def test_steps_beyond_a_fresh_run_leave_all_means_alike(
    analysis: Analysis, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The run on 8 images ends before the steps that its cell recommends: it counts in no mean."""
    first = verify(analysis, load_study(fresh / "n4"))
    cells = [
        replace(cell, recommended_steps=10_000) if cell.images == 8 else cell
        for cell in analysis.recommendation.cells
    ]
    beyond = replace(analysis, recommendation=replace(analysis.recommendation, cells=cells))
    result = verify(beyond, load_study(fresh))
    assert (len(result.checks), result.compared) == (2, 1)
    for name in ("mean_regret", "mean_minimum_regret", "constant_regret", "rule_of_thumb_regret"):
        assert getattr(result, name) == pytest.approx(getattr(first, name))
    print_verification(beyond, load_study(fresh))
    printed = capsys.readouterr().out
    assert "mean regret at the recommended steps –" not in printed
    assert "means over 1 of 2 fresh runs" in printed


def test_cells_without_steps_have_no_means(
    analysis: Analysis, fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [
        replace(cell, status="refused", recommended_steps=None, minimum=None)
        for cell in analysis.recommendation.cells
    ]
    none = replace(analysis, recommendation=replace(analysis.recommendation, cells=cells))
    print_verification(none, load_study(fresh))
    printed = capsys.readouterr().out
    assert "means over 0 of 2 fresh runs" in printed and "hindsight (–) – %" in printed
    print_verification(none, load_study(fresh), as_json=True)
    assert json.loads(capsys.readouterr().out)["constant_regret"] is None


def test_verification_as_json(analysis: Analysis, fresh: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_verification(analysis, load_study(fresh), as_json=True)
    assert [check["run"] for check in json.loads(capsys.readouterr().out)["checks"]] == ["n4", "n8"]


def test_nothing_to_compare_is_a_wrong_request(analysis: Analysis, fresh: Path) -> None:
    with pytest.raises(RequestError, match="no such cell"):
        verify(analysis, load_study(fresh / "other-cell"))


def test_panel_scatter_compares_training_loss_with_paired_error(tmp_path: Path) -> None:
    scatter = panel_scatter(read_run(make_run(tmp_path / "a", FRESH)))
    assert scatter is not None
    assert scatter.train_loss_sd == pytest.approx(0.05, rel=0.4)
    assert scatter.ratio > 100
    assert panel_table(load_study(tmp_path)).rows[-1][0] == "median"


def test_detrended_sd_does_not_see_a_trend() -> None:
    noise = np.random.default_rng(0).standard_normal(4000)
    assert detrended_sd(list(noise + np.arange(4000))) == pytest.approx(1, rel=0.05)
