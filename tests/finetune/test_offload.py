"""An optimizer that works in main memory takes the very steps that it takes on the device."""

from collections.abc import Callable, Sequence
import copy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conf.compose import load_config
from conf.errors import RequestError
from conf.schema import Config, Optimizer
from conf.validate import validate
from finetune.offload import OffloadedOptimizer
from finetune.optimizers import ParameterGroup, effective_learning_rate, make_optimizer, set_learning_rate

NAMES = ("adamw", "adamw8bit", "adafactor", "prodigy")
MakeOptimizer = Callable[[list[ParameterGroup], Optimizer], torch.optim.Optimizer]


@cache
def composed(name: str) -> Config:
    return load_config([f"optimizer={name}"])


def plain(groups: list[ParameterGroup], options: Optimizer) -> torch.optim.Optimizer:
    return make_optimizer(groups, options, torch.device("cpu"))


class Regression:
    """Two layers learn what two others compute; the first has as many weights as 8-bit moments need."""

    def __init__(self, name: str, make: MakeOptimizer) -> None:
        torch.manual_seed(0)
        self.target = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3)).requires_grad_(False)
        self.model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        groups = [
            ParameterGroup(list(self.model[0].parameters())),
            ParameterGroup(list(self.model[2].parameters()), lr_scale=1.0 if name == "prodigy" else 0.1),
        ]
        self.optimizer = make(groups, composed(name).optimizer)
        self.lr = 1.0 if name == "prodigy" else 0.01

    def train(self, steps: Sequence[int]) -> None:
        for step in steps:
            inputs = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
            (self.model(inputs) - self.target(inputs)).square().mean().backward()
            set_learning_rate(self.optimizer, self.lr / (1 + step))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> list[Tensor]:
        return [parameter.detach().clone() for parameter in self.model.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_bit_for_bit_those_of_the_plain_optimizer(name: str) -> None:
    on_device, offloaded = Regression(name, plain), Regression(name, OffloadedOptimizer)
    start = offloaded.weights()
    assert same(start, on_device.weights())
    for problem in (on_device, offloaded):
        problem.train(range(6))
    assert same(offloaded.weights(), on_device.weights())
    assert not same(offloaded.weights(), start)
    assert effective_learning_rate(offloaded.optimizer) == effective_learning_rate(on_device.optimizer)


@pytest.mark.parametrize("name", NAMES)
def test_its_state_goes_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    whole, before, after = (Regression(name, OffloadedOptimizer) for _ in range(3))
    whole.train(range(7))
    before.train(range(4))
    torch.save((before.weights(), before.optimizer.state_dict()), tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    with torch.no_grad():
        for parameter, value in zip(after.model.parameters(), weights, strict=True):
            parameter.copy_(value)
    after.optimizer.load_state_dict(state)
    after.train(range(4, 7))
    assert same(after.weights(), whole.weights())


def test_a_state_of_the_device_goes_on_in_main_memory() -> None:
    """So that a run may be gone on with on a machine with less memory."""
    whole, before, after = (Regression("adamw", make) for make in (plain, plain, OffloadedOptimizer))
    whole.train(range(5))
    before.train(range(3))
    after.model.load_state_dict(before.model.state_dict())
    after.optimizer.load_state_dict(copy.deepcopy(before.optimizer.state_dict()))
    after.train(range(3, 5))
    assert same(after.weights(), whole.weights())


def test_an_average_that_lies_beside_the_weights_is_refused() -> None:
    config = copy.deepcopy(composed("schedulefree"))
    config.memory = replace(config.memory, offload_optimizer=True)
    with pytest.raises(
        RequestError, match=r"memory\.offload_optimizer=true: the average of optimizer=schedulefree"
    ):
        validate(config)
