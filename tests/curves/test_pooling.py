"""Several runs of one cell: order, coverage of a fresh run, and what a far or unfinished run may say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from curves.answer import answer
from curves.pooling import pool
from curves.posterior import CurvePosterior, TimePrior, fit
from tests.curves.simulate import constant_schedule, denoiser, evaluation_steps, record

LR = 1e-4
STEP = 600  # of the minimum at LR


def run(seed: int, *, cut: float = 2.5, lr: float = LR, shift: float = 1.0) -> CurvePosterior:
    """A run of one cell whose intrinsic time of the minimum is off by shift."""
    source = denoiser(1)
    time, lowest = source.minimum()
    gain = float(source.loss(np.zeros(1))[0] - lowest)
    step = STEP * LR / lr * shift
    steps = evaluation_steps(int(cut * step))
    curve = record(source.loss(steps * time / step), steps, lr, gain=gain, seed=seed, pivot_step=step)
    return fit(curve, horizon_lr_sum=4 * STEP * LR)


def interval(
    runs: list[CurvePosterior], lrs: list[float] | None = None, fresh: float = LR
) -> tuple[float, float]:
    """90 % interval of a fresh run's minimum, in steps at LR."""
    draws = pool(runs, lrs or [LR] * len(runs), fresh).minimum_draws(count=4000) / LR
    return float(np.quantile(draws, 0.05)), float(np.quantile(draws, 0.95))


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [run(1), run(2, lr=2 * LR), run(3, cut=0.6)]
    lrs = [LR, 2 * LR, LR]
    answers = [
        answer(pool([runs[i] for i in order], [lrs[i] for i in order], LR), constant_schedule(LR, 2400))
        for order in itertools.permutations(range(3))
    ]
    assert all(a == answers[0] for a in answers)


def test_a_fresh_run_is_covered_where_runs_differ() -> None:
    low, high = interval([run(1, shift=0.85), run(2, shift=1.1), run(3, shift=1.0)])
    assert low <= 0.9 * STEP and high >= 1.1 * STEP
    assert high / low < 3


def test_disagreeing_runs_widen_the_interval() -> None:
    agreeing = interval([run(1), run(2), run(3)])
    disagreeing = interval([run(1, shift=0.5), run(2), run(3, shift=2.0)])
    assert np.log(disagreeing[1] / disagreeing[0]) > 1.3 * np.log(agreeing[1] / agreeing[0])


def test_a_run_at_a_far_learning_rate_says_less() -> None:
    near, far = interval([run(1)], [LR]), interval([run(1, lr=10 * LR)], [10 * LR])
    assert np.log(far[1] / far[0]) > 1.3 * np.log(near[1] / near[0])
    assert far[0] <= STEP <= far[1]


def test_unfinished_runs_alone_are_not_reached_and_beside_finished_ones_do_no_harm() -> None:
    schedule = constant_schedule(LR, 4 * STEP)
    cut = [run(4, cut=0.5), run(5, cut=0.6)]
    alone = answer(pool(cut), schedule)
    assert alone.status == "not_reached"
    assert alone.lower_bound is not None and alone.lower_bound <= STEP
    beside = answer(pool([run(1), run(2), *cut]), schedule)
    assert beside.status == "ok" and beside.minimum is not None
    assert beside.minimum.low <= STEP <= beside.minimum.high


def test_the_priors_of_single_runs_are_not_counted_again() -> None:
    curves = [run(seed, cut=0.6).curve for seed in (4, 5, 6)]
    medians, alone = [], []
    for own in (0.5, 8.0):
        runs = [fit(curve, time_prior=TimePrior(own * STEP * LR, 1.0)) for curve in curves]
        pooled = pool(runs, time_prior=TimePrior(2 * STEP * LR, 0.5))
        alone.append(np.median(runs[0].minimum_draws()))
        medians.append(np.median(pooled.minimum_draws(count=2000)))
    assert np.log(medians[1] / medians[0]) < 0.5 * np.log(alone[1] / alone[0])


def test_runs_without_a_gain_are_left_out_unless_all_are() -> None:
    steps = evaluation_steps(600)
    random = np.random.default_rng(0)
    loss = 1 + steps / 600 + 0.01 * random.standard_normal(len(steps))
    source = run(1)
    bad = fit(type(source.curve)(steps, steps * LR, loss))
    assert interval([source, bad]) == interval([source])
    assert answer(pool([bad, bad]), constant_schedule(LR, 600)).status == "no_gain"


def test_wrong_requests_are_said() -> None:
    with pytest.raises(ValueError, match="at least one run"):
        pool([])
    with pytest.raises(ValueError, match="one positive learning rate a run"):
        pool([run(1)], [LR, LR])
    with pytest.raises(ValueError, match="means nothing without"):
        pool([run(1)], fresh_learning_rate=LR)
