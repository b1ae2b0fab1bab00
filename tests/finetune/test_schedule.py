"""The learning rate by update number: warm-up, ends, and sums."""

import math

import pytest

from conf.schema import Optimizer
from finetune.schedule import learning_rate, lr_sum


def rates(schedule: str, horizon: int, warmup: int = 0) -> list[float]:
    optimizer = Optimizer(lr=1.0, schedule=schedule, warmup_steps=warmup)
    return [learning_rate(optimizer, horizon, step) for step in range(1, horizon + 1)]


def test_constant() -> None:
    assert rates("constant", 5) == [1.0] * 5
    assert rates("constant", 5, warmup=2) == [0.5, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_decaying_schedules_start_at_the_peak_and_reach_zero_just_after_the_horizon(schedule: str) -> None:
    values = rates(schedule, 100)
    assert values[0] == 1.0
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < 0.02
    optimizer = Optimizer(lr=1.0, schedule=schedule)
    assert learning_rate(optimizer, 100, 101) == pytest.approx(0, abs=1e-12)


def test_warm_up_comes_before_the_decay() -> None:
    assert rates("linear", 6, warmup=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_the_sum_is_of_all_updates(schedule: str) -> None:
    optimizer = Optimizer(lr=3e-4, schedule=schedule, warmup_steps=3)
    assert lr_sum(optimizer, 20, 0) == 0.0
    assert lr_sum(optimizer, 20, 11) == math.fsum(learning_rate(optimizer, 20, step) for step in range(1, 12))
