"""Averaged weights: right, shown without a trace, and resumed bit for bit."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
import torch

from conf.compose import load_config, options
from conf.schema import Optimizer
from finetune.averaging import Averaging, MovingAverage, make_averaging
from finetune.optimizers import ParameterGroup, make_optimizer

OPTIMIZERS = options("optimizer")
CASES = [
    *([f"optimizer={name}"] for name in OPTIMIZERS),
    *([f"optimizer={name}", "optimizer.ema_decay=0.9"] for name in OPTIMIZERS if name != "schedulefree"),
]


class Training:
    """Weights that follow a noisy target, with their average."""

    def __init__(self, options: Optimizer) -> None:
        generator = torch.Generator().manual_seed(1)
        shapes = {"large": (64, 65), "small": (7,)}
        self.target = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        self.weights = {
            name: torch.nn.Parameter(torch.randn(shape, generator=generator))
            for name, shape in shapes.items()
        }
        group = ParameterGroup(list(self.weights.values()))
        self.optimizer = make_optimizer([group], options, torch.device("cpu"))
        self.averaging: Averaging = make_averaging(self.weights, options, self.optimizer)

    def train(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            generator = torch.Generator().manual_seed(100 + step)
            for name, weight in self.weights.items():
                noise = torch.randn(weight.shape, generator=generator)
                (weight - self.target[name] - noise).square().sum().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.averaging.update(step)

    def distance(self) -> float:
        """Of the live weights to the target."""
        with torch.no_grad():
            return sum(float((w - self.target[name]).square().sum()) for name, w in self.weights.items())

    def values(self) -> dict[str, torch.Tensor]:
        return {name: weight.detach().clone() for name, weight in self.weights.items()}

    def state(self) -> bytes:
        """Everything a checkpoint keeps of the optimizer, as bytes."""
        parts = []
        for key, values in sorted(self.optimizer.state_dict()["state"].items()):
            for name, value in sorted(_flat(values).items()):
                raw = value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
                parts.append(f"{key}.{name}:".encode() + raw)
        groups = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        return b"".join(parts) + repr(groups).encode()


def _flat(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


@cache
def composed(*overrides: str) -> Optimizer:
    rate = [] if "optimizer=prodigy" in overrides else ["optimizer.lr=0.05"]
    return load_config([*overrides, *rate]).optimizer


def training(overrides: list[str]) -> Training:
    return Training(composed(*overrides))


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_a_look_at_the_average_leaves_weights_and_optimizer_as_they_were(overrides: list[str]) -> None:
    run = training(overrides)
    run.train(1, 20)
    weights, state, average = run.values(), run.state(), run.averaging.state_dict()
    with run.averaging.applied():
        shown = run.values()
    assert equal(run.values(), weights)
    assert run.state() == state
    assert equal(run.averaging.state_dict(), average)
    averages = "optimizer=schedulefree" in overrides or "optimizer.ema_decay=0.9" in overrides
    assert equal(shown, weights) is not averages


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_a_run_that_is_evaluated_at_every_step_ends_with_the_same_weights(overrides: list[str]) -> None:
    plain, watched = training(overrides), training(overrides)
    plain.train(1, 12)
    for step in range(1, 13):
        with watched.averaging.applied():
            watched.distance()
        watched.train(step, step)
    assert equal(plain.values(), watched.values())
    with plain.averaging.applied(), watched.averaging.applied():
        assert equal(plain.values(), watched.values())


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_an_error_inside_puts_the_weights_back_too(overrides: list[str]) -> None:
    run = training(overrides)
    run.train(1, 5)
    weights = run.values()
    with pytest.raises(ValueError, match="in the evaluation"), run.averaging.applied():
        raise ValueError("in the evaluation")
    assert equal(run.values(), weights)
    run.train(6, 6)  # a schedule-free optimizer that was left in the wrong mode would refuse


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_six_steps_and_six_more_equal_twelve(overrides: list[str], tmp_path: Path) -> None:
    whole, first, second = training(overrides), training(overrides), training(overrides)
    whole.train(1, 12)
    first.train(1, 6)
    torch.save(first.optimizer.state_dict(), tmp_path / "optimizer.pt")
    save_file(first.averaging.state_dict(), tmp_path / "average.safetensors")
    with torch.no_grad():
        for name, value in first.values().items():
            second.weights[name].copy_(value)
    second.optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    second.averaging.load_state_dict(load_file(tmp_path / "average.safetensors"))
    second.train(7, 12)
    assert equal(second.values(), whole.values())
    with second.averaging.applied(), whole.averaging.applied():
        assert equal(second.values(), whole.values())


@pytest.mark.parametrize("override", ["optimizer.ema_decay=0.95", "optimizer=schedulefree"])
def test_the_average_lies_nearer_to_a_noisy_target_than_weights_without_one(override: str) -> None:
    plain, averaged = training([]), training([override])
    plain.train(1, 400)
    averaged.train(1, 400)
    live = averaged.distance()
    with averaged.averaging.applied():
        assert averaged.distance() < live
        assert averaged.distance() < 0.7 * plain.distance()


def test_the_moving_average_is_the_one_of_its_definition() -> None:
    run = training(["optimizer.ema_decay=0.98"])
    expected = {name: value.double().numpy() for name, value in run.values().items()}
    for step in range(1, 601):
        run.train(step, step)
        decay = min(0.98, (1 + step) / (10 + step))
        for name, value in run.values().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double().numpy()
    with run.averaging.applied():
        for name, value in run.values().items():
            np.testing.assert_allclose(value.double().numpy(), expected[name], rtol=0, atol=1e-6)


def test_a_moving_average_of_half_precision_weights_is_kept_in_float32() -> None:
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    average = MovingAverage({"weight": weight}, decay=0.999)
    for step in range(10_000, 10_100):  # each moves the average by less than bfloat16 can tell
        with torch.no_grad():
            weight.fill_(2.0)
        average.update(step)
    assert average.state_dict()["weight"].dtype == torch.float32
    torch.testing.assert_close(average.state_dict()["weight"], torch.full((3,), 2 - 0.999**100))
    with average.applied():
        assert weight.dtype == torch.bfloat16
        assert weight[0].item() == pytest.approx(2 - 0.999**100, abs=2**-7)
    assert weight[0].item() == 2.0


def test_without_an_average_nothing_is_kept() -> None:
    assert training(["optimizer=adamw"]).averaging.state_dict() == {}
