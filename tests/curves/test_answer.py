"""From posteriors to budgets: every status, and what recommended steps and windows mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from curves.answer import Schedule, answer, answer_curve
from curves.posterior import Curve, TimePrior, fit
from tests.curves.simulate import evaluation_steps, simulated

LR = 1e-4


def test_a_passed_minimum_is_answered_within_tolerance() -> None:
    regrets = []
    for seed in range(8):
        curve, truth = simulated(seed, cut=2.5)
        horizon = int(5 * truth.step)
        said = answer_curve(fit(curve, horizon_lr_sum=horizon * LR), horizon)
        assert said.status == "ok", said.reason
        assert said.recommended_steps is not None and said.minimum is not None and said.window is not None
        assert said.minimum.low <= said.minimum.median <= said.minimum.high
        assert said.window.low <= said.recommended_steps <= said.window.high
        assert said.recommended_steps < said.minimum.high
        assert said.lower_bound is None
        regrets.append(truth.regret(said.recommended_steps))
    assert np.mean(regrets) < 0.06 and max(regrets) < 0.15


@pytest.mark.parametrize("seed", range(6))
def test_half_a_curve_is_not_reached_with_a_bound_that_holds(seed: int) -> None:
    curve, truth = simulated(seed, cut=0.5)
    said = answer_curve(fit(curve, horizon_lr_sum=4 * truth.lr_sum), int(4 * truth.step))
    assert said.status == "not_reached"
    assert (said.recommended_steps, said.minimum, said.window) == (None, None, None)
    assert said.lower_bound is not None and 0 < said.lower_bound <= truth.step


def test_truncating_the_curve_changes_the_answer() -> None:
    curve, truth = simulated(1, cut=2.5)
    horizon = int(4 * truth.step)
    statuses = [
        answer_curve(fit(curve.until(int(share * truth.step)), horizon_lr_sum=horizon * LR), horizon).status
        for share in (0.4, 2.5)
    ]
    assert statuses == ["not_reached", "ok"]


def test_no_gain_has_no_steps() -> None:
    steps = evaluation_steps(600)
    loss = 0.05 + 2e-3 * (steps / 600) + 1e-5 * np.random.default_rng(0).standard_normal(len(steps))
    said = answer_curve(fit(Curve(steps, steps * LR, loss)), 1000)
    assert said.status == "no_gain" and said.recommended_steps is None
    assert said.probability_of_gain is not None and said.probability_of_gain < 0.95


@pytest.mark.parametrize(
    ("spread", "reason"), [(3.0, "the minimum lies between"), (1.6, "no step is within")]
)
def test_too_wide_is_refused(spread: float, reason: str) -> None:
    curve, truth = simulated(1, cut=2.5)
    sure = fit(curve, time_prior=TimePrior(truth.lr_sum))
    shift = np.exp(-spread * np.random.default_rng(0).random(len(sure.shapes)))
    unsure = replace(sure, shapes=sure.shapes.at_time(shift * sure.shapes.time))
    said = answer_curve(unsure, int(4 * truth.step))
    assert said.status == "refused" and "too wide" in said.reason and reason in said.reason
    assert said.recommended_steps is None


def test_misfit_is_refused() -> None:
    steps = evaluation_steps(2000)
    wave = 0.05 - 1e-3 * np.sin(np.log1p(steps) * 1.6) ** 2
    said = answer_curve(fit(Curve(steps, steps * LR, wave), time_prior=TimePrior(500 * LR)), 2000)
    assert said.status == "refused" and "misfit" in said.reason and said.recommended_steps is None


def test_a_decaying_schedule_needs_more_steps_for_the_same_intrinsic_time() -> None:
    curve, truth = simulated(1, cut=2.5)
    horizon = int(3 * truth.step)
    posterior = fit(curve, horizon_lr_sum=horizon * LR)
    constant = answer(posterior, Schedule.constant(LR, horizon))
    cosine = Schedule.from_rates(lambda s: LR * 0.5 * (1 + np.cos(np.pi * s / horizon)), horizon)
    decayed = answer(posterior, cosine)
    assert constant.recommended_steps is not None and decayed.recommended_steps is not None
    assert decayed.recommended_steps > constant.recommended_steps
    at = [
        float(s.lr_sum[n])
        for s, n in (
            (Schedule.constant(LR, horizon), constant.recommended_steps),
            (cosine, decayed.recommended_steps),
        )
    ]
    assert at[1] == pytest.approx(at[0], rel=0.03)


def test_a_higher_price_never_asks_for_more_steps() -> None:
    curve, truth = simulated(1, cut=2.5)
    posterior = fit(curve)
    priced = [answer_curve(posterior, int(3 * truth.step), price=p).priced_steps for p in (0.0, 0.1, 1.0)]
    assert all(p is not None for p in priced)
    assert priced == sorted(priced, key=lambda p: -(p or 0))


def test_keeping_the_best_checkpoint_is_never_slower() -> None:
    curve, truth = simulated(1, cut=2.5)
    said = answer_curve(fit(curve), int(3 * truth.step))
    assert said.recommended_steps is not None and said.recommended_steps_best_kept is not None
    assert said.recommended_steps_best_kept <= said.recommended_steps


def test_schedules_map_steps_to_intrinsic_time_and_back() -> None:
    schedule = Schedule.interpolated(np.array([0, 10, 20]), np.array([0.0, 1.0, 3.0]), 30)
    assert schedule.horizon_steps == 30
    assert schedule.lr_sum[[5, 15, 30]] == pytest.approx([0.5, 2.0, 5.0])
    assert list(schedule.steps_at(np.array([0.0, 1.0, 2.0, 99.0]))) == [0, 10, 15, 30]
    with pytest.raises(ValueError, match="start at 0"):
        Schedule(np.array([1.0, 2.0]))
    with pytest.raises(ValueError, match="step 0 alone"):
        Schedule.interpolated(np.array([0]), np.array([0.0]), 30)
