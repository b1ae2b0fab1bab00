"""How many images are enough: a known saturating law is found, and what cannot be said is not said."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.enough import ImagesAnswer, SizeGain, fit_gain, images_enough
from tests.analysis.make_runs import Spec, make_study

LEVELS = {
    "method": "lora",
    "base_model": "tiny",
    "base_id": "b",
    "resolution": 64,
    "captions": "file",
    "dataset": "d",
}


def answer(
    gains: dict[int, float], share: float = 0.05, panels: dict[int, str] | None = None
) -> ImagesAnswer:
    sizes = [
        SizeGain(LEVELS, images, gain, 0.01 * gain, frozenset({(panels or {}).get(images, "p")}))
        for images, gain in gains.items()
    ]
    [found] = images_enough(sizes, share)
    return found


def saturating(sizes: tuple[int, ...], rise: float = 0.8, power: float = 0.7) -> dict[int, float]:
    return {images: 0.012 * (1 - rise * images**-power) for images in sizes}


def true_enough(share: float, rise: float = 0.8, power: float = 0.7) -> float:
    """Where doubling buys exactly the share, by bisection rather than by the formula."""
    low, high = 1.0, 1e6
    for _ in range(200):
        middle = float(np.sqrt(low * high))
        once, twice = (1 - rise * n**-power for n in (middle, 2 * middle))
        low, high = (middle, high) if (twice - once) / once > share else (low, middle)
    return low


@pytest.mark.parametrize("share", [0.03, 0.05, 0.1])
def test_a_known_law_is_found(share: float) -> None:
    found = answer(saturating((2, 4, 8, 16, 32, 64)), share)
    assert found.status == "ok" and found.enough is not None and found.doubling is not None
    assert found.enough["low"] <= true_enough(share) <= found.enough["high"]
    assert abs(np.log(found.enough["median"] / true_enough(share))) < np.log(1.4)
    once, twice = (1 - 0.8 * n**-0.7 for n in (64, 128))
    assert found.doubling["low"] <= (twice - once) / once <= found.doubling["high"]


def test_the_curve_for_drawing_goes_through_the_cells() -> None:
    gains = saturating((4, 8, 16, 32))
    found = answer(gains)
    at = np.interp(np.log(list(gains)), np.log(found.sizes), found.median)
    np.testing.assert_allclose(at, list(gains.values()), rtol=0.03)
    assert (np.array(found.low) <= found.median).all() and (np.array(found.median) <= found.high).all()
    assert (found.sizes[0], found.sizes[-1]) == (pytest.approx(2), pytest.approx(64))


def test_a_flat_gain_says_that_the_smallest_size_is_enough() -> None:
    found = answer({8: 0.0120, 16: 0.0121, 32: 0.0120, 64: 0.0121})
    assert found.status == "ok" and "the smallest size, 8, is enough" in found.reason


def test_a_gain_that_goes_on_rising_says_that_more_are_worth_it() -> None:
    found = answer({4: 0.004, 8: 0.006, 16: 0.008, 32: 0.010})
    assert found.status == "not_reached" and "more than the largest size, 32" in found.reason
    assert found.doubling is not None and found.doubling["low"] > 0.05


@pytest.mark.parametrize(
    ("gains", "panels", "why"),
    [
        ({4: 0.01, 8: 0.011}, None, "2 sizes show their gain, 3 are needed"),
        ({4: 0.010, 8: 0.016, 16: 0.009}, None, "too wide"),
        (saturating((4, 8, 16)), {4: "other"}, "different panels"),
    ],
)
def test_what_cannot_be_said_is_refused(
    gains: dict[int, float], panels: dict[int, str] | None, why: str
) -> None:
    found = answer(gains, panels=panels)
    assert found.status == "refused" and why in found.reason and found.enough is None


def test_two_parameters_that_three_sizes_cannot_tell_lean_on_the_prior() -> None:
    """A gain that barely rises, within its scatter: the power stays where the prior has it, near a half."""
    power = fit_gain(np.array([4.0, 8.0, 16.0]), np.array([0.0100, 0.0101, 0.0102]), np.full(3, 3e-4)).power
    assert 0.35 < np.median(power) < 0.7 and np.quantile(power, 0.9) < 1.5


def test_the_gain_never_falls_with_more_images() -> None:
    draws = fit_gain(np.array([4.0, 8.0, 16.0]), np.array([0.012, 0.011, 0.0115]), np.full(3, 1e-4))
    gain = draws.gain(np.array([4.0, 8.0, 16.0, 32.0]))
    assert (np.diff(gain, axis=1) >= 0).all()


def test_intervals_hold_in_nine_of_ten_worlds() -> None:
    """Gains with a scatter of 1.5 % around laws that are drawn: the interval holds the truth about as often as it says."""
    random = np.random.default_rng(3)
    images, inside, count = np.array([4.0, 8.0, 16.0, 32.0, 64.0]), 0, 200
    for _ in range(count):
        power, rise = 0.5 * np.exp(0.4 * random.standard_normal()), random.uniform(0.3, 0.9)
        gains = (1 - rise * images**-power) * (1 + 0.015 * random.standard_normal(5))
        low, high = np.quantile(fit_gain(images, gains, np.full(5, 0.01)).doubling(64.0), [0.05, 0.95])
        once, twice = (1 - rise * n**-power for n in (64, 128))
        inside += bool(low <= (twice - once) / once <= high)
    assert 165 <= inside <= 198


def test_recommend_says_it_and_the_file_has_it(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    import json

    gains = saturating((4, 8, 16, 32), 0.9, 0.9)
    specs = [
        Spec(images=n, gain=gain, best_time=0.12 * (n / 4) ** 0.6, horizon=900) for n, gain in gains.items()
    ]
    root = make_study(tmp_path / "sizes", specs)
    status, out, _ = command("recommend", root, "--enough", "0.1")
    text = " ".join(out.split())
    assert status == 0 and "doubling them buys less than 10 % of the gain. Doubling 32 would buy" in text
    [found] = json.loads((root / "analysis" / "recommendation.json").read_text())["law"]["images_enough"]
    assert found["enough"]["low"] <= true_enough(0.1, 0.9, 0.9) <= found["enough"]["high"]
    assert found["images"] == [4, 8, 16, 32] and found["share"] == 0.1
    status, _, error = command("recommend", root, "--enough", "5")
    assert status == 2 and "5 is no share of the gain" in error
