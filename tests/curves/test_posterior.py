"""The posterior of one curve: invariances, what it must not be misled by, and coverage of a foreign truth."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from curves.posterior import Curve, CurvePosterior, TimePrior, fit
from curves.shapes import COORDINATES, quasi_normal, regret_within, relative_regret, shapes_from_normal
from tests.curves.simulate import evaluation_steps, simulated

LR = 1e-4


def quantiles(posterior: CurvePosterior) -> tuple[float, float, float]:
    """5, 50 and 95 % of the lr_sum at the minimum."""
    low, median, high = np.quantile(posterior.minimum_draws(count=2000), [0.05, 0.5, 0.95])
    return float(low), float(median), float(high)


def test_every_shape_has_its_minimum_where_it_says() -> None:
    shapes = shapes_from_normal(quasi_normal(300, len(COORDINATES)), np.log(50.0), 1.0)
    grid = np.array([0.0, 0.5, 0.95, 1.0, 1.05, 2.0])
    for index in range(len(shapes)):
        one = shapes.take(np.array([index]))
        regret = relative_regret(grid * one.time, one)[0]
        if np.isfinite(regret).all():
            assert regret[0] == pytest.approx(1) and regret[3] == pytest.approx(0, abs=1e-9)
            assert regret.min() >= -1e-9


def test_regret_within_a_horizon_before_the_minimum_ends_at_zero() -> None:
    shapes = shapes_from_normal(quasi_normal(50, len(COORDINATES)), np.log(50.0), 0.1).at_time(
        np.full(50, 50.0)
    )
    regret = regret_within(np.array([0.0, 10.0, 20.0]), shapes)
    regret = regret[np.isfinite(regret).all(axis=1)]  # a steep concave rise leaves no minimum below the start
    assert len(regret) > 40
    assert regret[:, -1] == pytest.approx(0) and regret[:, 0] == pytest.approx(1)


def test_minimum_of_a_foreign_family_is_covered_and_the_interval_is_not_wide() -> None:
    covered, widths = [], []
    for seed in range(12):
        curve, truth = simulated(seed, cut=2.5)
        low, _, high = quantiles(fit(curve, horizon_lr_sum=4 * truth.lr_sum))
        covered.append(low <= truth.lr_sum <= high)
        widths.append(high / low)
    assert sum(covered) >= 10
    assert np.median(widths) <= 2


@settings(max_examples=6, deadline=None)
@given(st.floats(1e-3, 1e3), st.floats(-10, 10), st.floats(1e-6, 1e6))
def test_units_of_loss_and_time_do_not_matter(loss_unit: float, offset: float, time_unit: float) -> None:
    curve, _ = simulated(3, cut=2.0)
    before = fit(curve, horizon_lr_sum=0.2)
    other = Curve(curve.steps, time_unit * curve.lr_sum, offset * loss_unit + loss_unit * curve.loss)
    after = fit(other, horizon_lr_sum=0.2 * time_unit)
    assert np.array(quantiles(after)) / time_unit == pytest.approx(np.array(quantiles(before)), rel=0.03)
    assert after.gain_summary()[0] / loss_unit == pytest.approx(before.gain_summary()[0], rel=0.03)
    assert after.probability_of_gain == pytest.approx(before.probability_of_gain, abs=0.01)


def test_order_of_points_and_points_without_a_finite_loss_do_not_matter() -> None:
    curve, _ = simulated(4, cut=2.0)
    order = np.random.default_rng(0).permutation(len(curve.steps))
    nan = np.array([np.nan, np.inf, -np.inf])
    shuffled = Curve(
        np.concatenate([curve.steps[order], [7, 9, 99999]]),
        np.concatenate([curve.lr_sum[order], LR * np.array([7.0, 9.0, 99999.0])]),
        np.concatenate([curve.loss[order], nan]),
    )
    assert quantiles(fit(shuffled)) == quantiles(fit(curve))


def test_a_resumed_run_counts_a_step_once() -> None:
    curve, _ = simulated(4, cut=2.0)
    twice = Curve(
        np.concatenate([curve.steps[:10], curve.steps[6:]]),
        np.concatenate([curve.lr_sum[:10], curve.lr_sum[6:]]),
        np.concatenate([curve.loss[:10] + np.where(np.arange(10) >= 6, 1.0, 0.0), curve.loss[6:]]),
    )
    assert quantiles(fit(twice)) == quantiles(fit(curve))


def test_too_few_points_and_wrong_shapes_are_said() -> None:
    steps = np.arange(3)
    with pytest.raises(ValueError, match="at least 4 finite evaluations"):
        fit(Curve(steps, steps * LR, np.ones(3)))
    with pytest.raises(ValueError, match="one length"):
        Curve(steps, steps * LR, np.ones(4))
    with pytest.raises(ValueError, match="positive median"):
        TimePrior(0.0)


def test_one_outlier_near_the_bottom_barely_moves_the_minimum() -> None:
    curve, truth = simulated(5, cut=2.5)
    loss = curve.loss.copy()
    loss[np.argmin(loss) - 2] += 0.5 * truth.gain
    before, after = quantiles(fit(curve))[1], quantiles(fit(replace(curve, loss=loss)))[1]
    assert after == pytest.approx(before, rel=0.15)


def test_an_early_bump_above_the_start_barely_moves_the_minimum() -> None:
    curve, truth = simulated(5, cut=2.5)
    loss = curve.loss.copy()
    loss[1:5] = loss[0] + truth.gain * np.array([0.4, 0.8, 0.7, 0.2])
    posterior = fit(replace(curve, loss=loss))
    assert posterior.probability_of_gain > 0.95
    assert quantiles(posterior)[1] == pytest.approx(quantiles(fit(curve))[1], rel=0.2)


def test_a_far_wall_does_not_spoil_the_bottom() -> None:
    held = []
    for seed in range(6, 12):
        near, truth = simulated(seed, cut=3.0)
        far, _ = simulated(seed, cut=20.0)
        assert far.loss[-1] - far.loss.min() > truth.gain
        low, median, high = quantiles(fit(far, horizon_lr_sum=4 * truth.lr_sum))
        assert high / low < 2.5
        assert median == pytest.approx(quantiles(fit(near, horizon_lr_sum=4 * truth.lr_sum))[1], rel=0.3)
        held.append(low <= truth.lr_sum <= high)
    assert sum(held) >= 4  # of 90 % intervals


def test_step_zero_may_be_absent() -> None:
    curve, truth = simulated(6, cut=3.0)
    later = Curve(curve.steps[3:], curve.lr_sum[3:], curve.loss[3:])
    low, _, high = quantiles(fit(later))
    assert low <= truth.lr_sum <= high


@pytest.mark.parametrize("kind", ["flat", "rising", "constant"])
def test_a_curve_that_never_improves_has_no_sure_gain(kind: str) -> None:
    steps = evaluation_steps(500)
    noise = 1e-4 * np.random.default_rng(1).standard_normal(len(steps))
    loss = {
        "flat": 0.05 + noise,
        "rising": 0.05 + 3e-3 * (steps / 500) ** 0.7 + noise,
        "constant": np.full(len(steps), 0.05),
    }[kind]
    assert fit(Curve(steps, steps * LR, loss)).probability_of_gain < 0.95


def test_the_time_prior_moves_an_unfinished_curve_and_not_a_finished_one() -> None:
    def shift(cut: float) -> float:
        curve, truth = simulated(8, cut=cut)
        near = fit(curve, time_prior=TimePrior(truth.lr_sum, 0.7))
        far = fit(curve, time_prior=TimePrior(5 * truth.lr_sum, 0.7))
        return float(np.log(quantiles(far)[1] / quantiles(near)[1]))

    assert shift(0.5) > 0.5
    assert abs(shift(2.5)) < 0.15


def test_reweighting_agrees_with_refitting() -> None:
    curve, truth = simulated(8, cut=0.7)
    prior = TimePrior(2 * truth.lr_sum, 1.0)
    moved = fit(curve, horizon_lr_sum=4 * truth.lr_sum).with_time_prior(prior)
    assert quantiles(moved)[1] == pytest.approx(quantiles(fit(curve, time_prior=prior))[1], rel=0.25)


def test_which_images_were_held_out_widens_the_posterior() -> None:
    curve, truth = simulated(9, cut=2.5)
    random = np.random.default_rng(0)
    slope = random.standard_normal(8)
    images = curve.loss[:, None] + truth.gain * 0.5 * np.outer(
        curve.steps / curve.steps[-1], slope - slope.mean()
    )
    with_images = replace(curve, image_loss=images)
    plain, bootstrapped = fit(with_images), fit(with_images, image_bootstrap=8)
    assert np.ptp(quantiles(bootstrapped)) > np.ptp(quantiles(plain))
    assert bootstrapped.gain_summary()[1] > plain.gain_summary()[1]
    assert bootstrapped.weights.sum() == pytest.approx(1)


def test_draws_are_on_the_loss_scale_and_repeatable() -> None:
    curve, truth = simulated(9, cut=2.5)
    posterior = fit(curve)
    latent, gain = posterior.draws(curve.lr_sum, count=300, seed=3)
    again, _ = fit(curve).draws(curve.lr_sum, count=300, seed=3)
    assert np.array_equal(latent, again)
    assert latent.shape == (300, len(curve.steps)) and np.all(gain > 0)
    assert np.abs(latent.mean(axis=0) - curve.loss).max() < 0.3 * truth.gain
    assert gain.mean() == pytest.approx(truth.gain, rel=0.1)
    assert 0.003 < posterior.sigma / truth.gain < 0.06


def test_a_curve_that_is_not_a_u_is_flagged() -> None:
    steps = evaluation_steps(2000)
    wave = 0.05 - 1e-3 * np.sin(np.log1p(steps) * 1.6) ** 2 * (1 + 0.0 * steps)
    assert fit(Curve(steps, steps * LR, wave)).misfit.flag
    assert not fit(simulated(2, cut=2.5)[0]).misfit.flag
