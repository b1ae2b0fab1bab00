"""The stretch of intervals: learnt over image sets, and how it does on sets that it has not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curves.answer import Interval
from curves.calibration import (
    LEVEL,
    Calibration,
    Prediction,
    calibrate,
    shipped_calibration,
    stretches,
    write_calibration,
)
from curves.run_folder import read_json


def made(sets: int, each: int, spread: float, shift: float = 0.0, seed: int = 0) -> list[Prediction]:
    """Intervals of 0.3 either way in log around 1000 steps; the truth scatters by spread about shift."""
    random = np.random.default_rng(seed)
    interval = Interval(741, 1000, 1350)
    return [
        Prediction(f"set{number}", interval, 1000 * float(np.exp(shift + spread * random.standard_normal())))
        for number in range(sets)
        for _ in range(each)
    ]


def held(predictions: list[Prediction], factors: tuple[float, float]) -> float:
    """How often the stretched intervals hold."""
    ends = [(one.interval.stretched(factors), one.minimum) for one in predictions]
    return float(np.mean([interval.low <= minimum <= interval.high for interval, minimum in ends]))


@pytest.mark.parametrize("spread", [0.2, 0.3, 0.6])
def test_stretched_intervals_hold_as_often_as_they_say_on_other_predictions(spread: float) -> None:
    factors = stretches(made(12, 20, spread))
    assert held(made(12, 40, spread, seed=1), factors) == pytest.approx(LEVEL, abs=0.07)


def test_a_truth_that_lies_low_stretches_the_low_end() -> None:
    low, high = stretches(made(12, 20, 0.2, shift=-0.2))
    assert low > 1.5 * high


def test_image_sets_weigh_the_same_however_many_runs_they_have() -> None:
    wide, narrow = made(1, 200, 1.5), made(10, 4, 0.1, seed=1)
    renamed = [Prediction("wide", one.interval, one.minimum) for one in wide]
    assert max(stretches([*renamed, *narrow])) < 0.5 * max(stretches(renamed))


def test_too_few_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 9 image sets, these runs have 8"):
        calibrate(made(8, 4, 0.3))


def test_a_calibration_says_what_it_does_on_sets_left_out(tmp_path: Path) -> None:
    found = calibrate(made(10, 8, 0.5))
    assert found.raw_coverage < 0.6 < 0.8 < found.coverage
    assert found.high_over_low > found.raw_high_over_low
    write_calibration(found, tmp_path / "calibration.json")
    assert Calibration(**read_json(tmp_path / "calibration.json")) == found


def test_the_shipped_calibration_is_of_nine_sets_and_holds() -> None:
    shipped = shipped_calibration()
    assert shipped.sets >= 9
    assert 0.8 <= shipped.coverage <= 0.97
    assert min(shipped.stretch) >= 0.8


def test_a_set_that_is_unlike_the_others_is_not_helped_by_itself() -> None:
    alike, odd = made(9, 10, 0.05), made(1, 10, 0.01, shift=1.5, seed=1)
    found = calibrate([*alike, *(Prediction("odd", one.interval, one.minimum) for one in odd)])
    assert found.stretch_high > 2  # learnt with it
    assert found.coverage == pytest.approx(0.9, abs=0.02)  # and yet it is missed, being left out
