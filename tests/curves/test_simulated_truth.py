"""Answers against the truth of a random-feature denoiser: what is promised of finished, cut and useless runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.random_features import Trainer, fine_tune
from benchmarks.simulated_truth import Case, answer_run, never_improving, settings


def answered(cut: float, worlds: int, stride: int = 1) -> list[Case]:
    """Runs of some worlds cut there."""
    chosen = list(settings(worlds))[::stride]
    runs = [(fine_tune(world, images), trainer) for world, images, trainer in chosen]
    return [answer_run(truth, trainer, cut) for truth, trainer in runs if truth.best > 0]


def share(cases: Sequence[Case], status: str) -> float:
    return float(np.mean([case.said.status == status for case in cases]))


def check_half(cases: Sequence[Case]) -> None:
    assert share(cases, "not_reached") >= 0.95
    assert np.mean([case.bound_holds for case in cases if case.said.lower_bound is not None]) >= 0.95


def check_nearly(cases: Sequence[Case]) -> None:
    assert share(cases, "ok") <= 0.1
    assert np.mean([case.holds for case in cases]) >= 0.8
    assert np.nanmedian([case.width for case in cases]) <= 5


def check_passed(cases: Sequence[Case], most: float = 0.95) -> None:
    assert share(cases, "ok") >= 0.8
    assert 0.85 <= np.mean([case.holds for case in cases if np.isfinite(case.width)]) <= most
    assert np.nanmedian([case.width for case in cases]) <= 2
    assert np.nanmedian([case.regret for case in cases]) <= 0.06


def test_the_denoiser_turns_later_on_more_images_and_a_useless_one_never_falls() -> None:
    times = [fine_tune(1, images).best for images in (5, 20, 80)]
    assert times[0] < times[1] < times[2]
    for images in (5, 80):
        truth = fine_tune(1, images)
        assert truth.regret(0.0) == pytest.approx(1)
        assert truth.regret(0.5 * truth.best) > 0.01 and truth.regret(3 * truth.best) > 0.05
        assert truth.bins.shape[1] == 8
    assert fine_tune(1, 20, useful=False).best == 0


def test_a_recorded_curve_is_the_truth_plus_its_scatter() -> None:
    truth, trainer = fine_tune(1, 20), Trainer(4e-4, 0.01, warmup=50, seed=3)
    best = trainer.best_step(truth)
    curve = trainer.record(truth, 3 * best)
    assert curve.steps[0] == 0 and curve.steps[-1] == 3 * best
    assert curve.lr_sum[-1] == pytest.approx(4e-4 * (3 * best - 24.5), rel=1e-6)
    assert np.abs(curve.loss - truth.at(curve.lr_sum)).max() < 0.1 * truth.gain
    assert curve.steps[np.argmin(truth.at(curve.lr_sum))] == pytest.approx(best, rel=0.2)


def test_what_is_promised_holds_on_a_few_curves() -> None:
    check_half(answered(0.5, 1))
    check_nearly(answered(0.8, 1))
    check_passed([*answered(1.5, 1), *answered(3.0, 1)], most=1.0)


def test_a_run_that_never_improves_has_no_gain() -> None:
    truth = fine_tune(1, 20, useful=False)
    cases = [
        answer_run(truth, Trainer(lr, 0.015, seed=seed), 2.0) for lr in (5e-5, 4e-4) for seed in range(4)
    ]
    assert share(cases, "no_gain") == 1


@pytest.mark.long
def test_what_is_promised_holds_on_two_hundred_curves_a_cut() -> None:
    check_half(answered(0.5, 7))
    check_nearly(answered(0.8, 7))
    passed = [*answered(1.5, 7), *answered(3.0, 7)]
    assert len(passed) >= 400
    check_passed(passed)
    cases = [answer_run(truth, trainer, 2.0) for truth, trainer in never_improving(7)]
    assert share(cases, "no_gain") >= 0.95
