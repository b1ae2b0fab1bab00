"""Before any run: what public facts say, marked as such, and what they do not say."""

from collections.abc import Callable
import json
import shlex

import numpy as np
import pytest

from analysis.asked import Asked
from analysis.prior import prior_answer
from conf.compose import load_config

Command = Callable[..., tuple[int, str, str]]


def test_the_public_runs_themselves_are_told() -> None:
    found = prior_answer(Asked(20, method="text_to_image", lr=1e-6))
    assert found.status == "prior_only" and found.steps is not None and found.first_guess is not None
    assert 670 < found.steps["median"] < 800
    assert found.steps["high"] / found.steps["low"] > 3  # two image sets are not the world
    assert found.steps["low"] <= found.first_guess < found.steps["median"]
    assert found.images_seen == found.first_guess and found.epochs == round(found.first_guess / 20, 2)
    assert found.best_kept is not None and found.best_kept > found.first_guess


@pytest.mark.parametrize("lr", [1e-7, 5e-7])
def test_a_lower_rate_takes_as_many_times_the_steps(lr: float) -> None:
    fast, slow = (prior_answer(Asked(20, method="text_to_image", lr=rate)) for rate in (1e-6, lr))
    assert fast.steps is not None and slow.steps is not None
    assert slow.steps["median"] * lr == pytest.approx(fast.steps["median"] * 1e-6, rel=0.01)


def test_more_images_take_longer_and_widen_the_answer() -> None:
    few, many = (prior_answer(Asked(n, method="text_to_image")).lr_sum for n in (20, 160))
    assert few is not None and many is not None
    assert np.log(many["median"] / few["median"]) == pytest.approx(0.81 * np.log(8), abs=0.02)
    assert many["high"] / many["low"] > 1.1 * few["high"] / few["low"]


def test_without_a_learning_rate_the_product_is_known_and_the_need_is_said() -> None:
    found = prior_answer(Asked(20, method="text_to_image"))
    assert found.status == "prior_only" and found.lr_sum is not None and found.steps is None
    assert "say optimizer.lr=..." in found.reason


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked(20, method="lora"), "method=lora: nobody has published where its held-out loss is lowest"),
        (Asked(20, 768, method="text_to_image"), "resolution=768: nobody has published"),
        (Asked(20, method="text_to_image", base_model="sdxl"), "base_model=sdxl"),
        (Asked(4, method="text_to_image"), "more than a factor 2 outside of 10 to 270 images"),
        (Asked(600, method="text_to_image"), "more than a factor 2 outside of 10 to 270 images"),
        (Asked(20, method="text_to_image", lr=5e-6), "beyond which lr x steps is not constant"),
        (Asked(20, method="text_to_image", batch=64), "too wide"),
    ],
)
def test_what_nobody_published_is_refused_with_a_pilot(asked: Asked, why: str) -> None:
    found = prior_answer(asked)
    assert found.status == "refused" and why in found.reason and found.steps is None
    words = [word for word in shlex.split(found.pilot)[2:] if not word.startswith("dataset")]
    config = load_config(words)
    assert config.method.name == asked.method and config.stopping.name == "evidence"


def test_the_command_needs_no_runs_and_says_what_it_is(command: Command) -> None:
    cell = ("dataset_size=20", "method=text_to_image", "optimizer.lr=1e-6")
    status, out, _ = command("recommend", "--prior", *cell)
    assert status == 0 and out.startswith("prior only, from no run: text_to_image, 20 images, 512 px, sd15")
    assert "not known: how far your images differ" in out and "a pilot run would tell: python train.py" in out
    status, out, _ = command("recommend", "--prior", "--json", *cell)
    assert status == 0 and json.loads(out)["status"] == "prior_only"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--prior", "dataset_size=20"), "--prior: say method=..."),
        (("--prior",), "--prior: say method=..."),
        (("--prior", "runs/demo"), "runs/demo: a cell is asked for as dataset_size=n24"),
        ((), "recommend: give RUNS"),
    ],
)
def test_mistakes(command: Command, words: tuple[str, ...], why: str) -> None:
    status, out, error = command("recommend", *words)
    assert (status, out) == (2, "") and why in error
