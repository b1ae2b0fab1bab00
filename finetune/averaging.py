"""Averages of the weights over the steps: what is evaluated and kept instead of the weights that train."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, cast

import torch
from torch import Tensor

from conf.schema import Optimizer
from curves.cooldown import average_exponent

Parameters = Mapping[str, torch.nn.Parameter]


class Averaging(Protocol):
    """One average of the trained parameters."""

    def update(self, step: int) -> None:
        """Take in the weights after update `step`, from 1."""

    def applied(self) -> AbstractContextManager[None]:
        """Inside of it the live parameters hold the average; afterwards they are bit for bit as before."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps beside weights and optimizer, on the CPU, by the parameters' names; may be empty."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a checkpoint; weights and optimizer are loaded apart from this."""


def make_averaging(parameters: Parameters, options: Optimizer, optimizer: torch.optim.Optimizer) -> Averaging:
    """The average that the options ask for.

    Args:
        parameters: those that train, by names that are unique in the run, with the values they start from.
        options: validated.
        optimizer: of these parameters.
    """
    if options.name == "schedulefree":
        return ScheduleFreeAverage(parameters, cast(TwoPoints, optimizer))
    if options.ema_decay is not None:
        return MovingAverage(parameters, options.ema_decay)
    return NoAverage()


class NoAverage:
    """The weights that train are the ones that count."""

    def update(self, step: int) -> None:
        pass

    def applied(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


class MovingAverage:
    """The exponential moving average of the weights, in float32 on their device.

    The decay of update n is min(decay, (1 + n) / (10 + n)), as in TensorFlow's ExponentialMovingAverage with
    `num_updates`: the weights of the start are forgotten first.
    """

    def __init__(self, parameters: Parameters, decay: float) -> None:
        self._parameters = dict(parameters)
        self._decay = decay
        self._average = {name: value.detach().float().clone() for name, value in parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        now = [value.detach().float() for value in self._parameters.values()]
        torch._foreach_lerp_(list(self._average.values()), now, self.share_of_update(step))

    def share_of_update(self, step: int) -> float:
        """What the weights after update `step` are of the average then."""
        return 1 - min(self._decay, (1 + step) / (10 + step))

    @contextmanager
    def applied(self) -> Iterator[None]:
        with _restored(self._parameters.values()):
            _assign(self._parameters.values(), self._average.values())
            yield

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.cpu().clone() for name, value in self._average.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        _assign(self._average.values(), (state[name] for name in self._average))


class AgingAverage(MovingAverage):
    """The average with weights s^g of the steps s: of the same share of the run at every step, whose loss stands for a
    cooldown's.

    Updated as in polynomial-decay averaging (Shamir and Zhang 2013): by a share (g + 1)/(g + s) of the new weights.
    """

    def __init__(self, parameters: Parameters, decay_share: float) -> None:
        super().__init__(parameters, 0.0)
        self._exponent = average_exponent(decay_share)

    def share_of_update(self, step: int) -> float:
        return (self._exponent + 1) / (self._exponent + step)


class TwoPoints(Protocol):
    """A schedule-free optimizer: `eval` puts the average x into the parameters, `train` puts y back."""

    def eval(self) -> None: ...
    def train(self) -> None: ...


class ScheduleFreeAverage:
    """The average that a schedule-free optimizer keeps itself; its state is the optimizer's."""

    def __init__(self, parameters: Parameters, optimizer: TwoPoints) -> None:
        self._parameters = dict(parameters)
        self._optimizer = optimizer

    def update(self, step: int) -> None:
        pass

    @contextmanager
    def applied(self) -> Iterator[None]:
        # The optimizer computes x from y and y from x, each time with rounding: only a copy brings y back exactly.
        with _restored(self._parameters.values()):
            self._optimizer.eval()
            try:
                yield
            finally:
                self._optimizer.train()

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        pass


@contextmanager
def _restored(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Whatever is written into the parameters inside of it, they leave it bit for bit as they were."""
    live = list(parameters)
    before = [value.detach().clone() for value in live]
    try:
        yield
    finally:
        _assign(live, before)


@torch.no_grad()
def _assign(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
