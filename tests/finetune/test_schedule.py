"""The learning rate by update number: warm-up, ends, and sums."""

from fractions import Fraction
import itertools
import math

from hypothesis import given
from hypothesis import strategies as st
import pytest

from conf.schema import Optimizer
from conf.validate import SCHEDULES
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


def test_a_stable_phase_comes_between_warm_up_and_decay() -> None:
    optimizer = Optimizer(lr=1.0, schedule="warmup_stable_decay", warmup_steps=2, decay_share=0.4)
    values = [learning_rate(optimizer, 10, step) for step in range(1, 12)]
    assert values == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_sum_is_of_all_updates(schedule: str) -> None:
    optimizer = Optimizer(lr=3e-4, schedule=schedule, warmup_steps=3)
    assert lr_sum(optimizer, 20, 0) == 0.0
    assert lr_sum(optimizer, 20, 11) == math.fsum(learning_rate(optimizer, 20, step) for step in range(1, 12))


@st.composite
def schedules(draw: st.DrawFn) -> tuple[Optimizer, int]:
    """A schedule that validation lets through, and its horizon."""
    horizon = draw(st.integers(1, 400))
    schedule = draw(st.sampled_from(SCHEDULES))
    share = draw(st.floats(0.001, 1.0)) if schedule == "warmup_stable_decay" else 0.2
    latest = math.floor(horizon * (1 - share)) if schedule == "warmup_stable_decay" else horizon - 1
    warmup = draw(st.integers(0, min(latest, horizon - 1)))
    lr = draw(st.floats(1e-8, 10))
    return Optimizer(lr=lr, schedule=schedule, warmup_steps=warmup, decay_share=share), horizon


@given(schedules())
def test_every_update_trains_at_most_at_the_peak(case: tuple[Optimizer, int]) -> None:
    optimizer, horizon = case
    values = [learning_rate(optimizer, horizon, step) for step in range(1, horizon + 1)]
    assert all(0 < value <= optimizer.lr * (1 + 1e-15) for value in values)
    assert max(values) == pytest.approx(optimizer.lr)


@given(schedules())
def test_it_rises_in_the_warm_up_only_and_never_jumps(case: tuple[Optimizer, int]) -> None:
    optimizer, horizon = case
    warmup = optimizer.warmup_steps
    values = [0.0, *(learning_rate(optimizer, horizon, step) for step in range(1, horizon + 2))]
    changes = [(after - before) / optimizer.lr for before, after in itertools.pairwise(values)]
    decay = {
        "constant": 0.0,
        "linear": 1 / (horizon - warmup),
        "cosine": math.pi / 2 / (horizon - warmup),
        "warmup_stable_decay": min(1.0, 1 / (optimizer.decay_share * horizon)),
    }[optimizer.schedule]
    rising, falling = changes[:warmup], changes[max(warmup, 1) :]
    assert rising == pytest.approx([1 / warmup] * warmup if warmup else [], rel=1e-6)
    assert all(-decay - 1e-12 <= change <= 1e-12 for change in falling)


@given(schedules())
def test_what_decays_is_zero_just_after_the_horizon(case: tuple[Optimizer, int]) -> None:
    optimizer, horizon = case
    after = learning_rate(optimizer, horizon, horizon + 1)
    expected = optimizer.lr if optimizer.schedule == "constant" else 0.0
    assert after == pytest.approx(expected, abs=1e-12 * optimizer.lr)


@given(schedules(), st.data())
def test_the_sum_is_the_nearest_number_to_the_exact_one(
    case: tuple[Optimizer, int], data: st.DataObject
) -> None:
    optimizer, horizon = case
    step = data.draw(st.integers(0, horizon))
    exact = sum((Fraction(learning_rate(optimizer, horizon, n)) for n in range(1, step + 1)), Fraction(0))
    assert lr_sum(optimizer, horizon, step) == float(exact)


@given(st.integers(1, 300))
def test_a_decay_over_the_whole_horizon_is_the_linear_schedule(horizon: int) -> None:
    whole = Optimizer(lr=1.0, schedule="warmup_stable_decay", decay_share=1.0)
    values = [learning_rate(whole, horizon, step) for step in range(1, horizon + 1)]
    assert values == pytest.approx(rates("linear", horizon))
