"""The geometric grid of evaluations."""

from hypothesis import given
from hypothesis import strategies as st

from curves.grid import evaluation_steps


def test_the_default_grid() -> None:
    assert evaluation_steps(4, 2**0.25, 32) == [0, 4, 5, 6, 7, 8, 10, 11, 13, 16, 19, 23, 27, 32]


def test_a_horizon_below_the_first_step() -> None:
    assert evaluation_steps(16, 2.0, 5) == [0, 5]


@given(first=st.integers(1, 50), ratio=st.floats(1.01, 4), horizon=st.integers(1, 5000))
def test_runs_of_any_horizon_share_the_grid_below_it(first: int, ratio: float, horizon: int) -> None:
    short, long = evaluation_steps(first, ratio, horizon), evaluation_steps(first, ratio, 2 * horizon)
    assert short[0] == 0
    assert short[-1] == horizon
    assert short == sorted(set(short))
    assert set(short[:-1]) <= set(long)
