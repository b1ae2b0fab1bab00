"""An optimizer whose states live on the CPU, which also computes the updates: a GPU then holds weights and gradients."""

from collections.abc import Callable
from typing import Any

import torch

from conf.schema import Optimizer
from finetune.optimizers import ParameterGroup, make_optimizer


class OffloadedOptimizer(torch.optim.Optimizer):
    """Another optimizer at work on copies of the parameters in main memory.

    The update is the same computation as on the device; only gradients go there and weights come back.
    """

    def __init__(self, groups: list[ParameterGroup], options: Optimizer) -> None:
        super().__init__(
            [{"params": group.parameters, "lr_scale": group.lr_scale} for group in groups],
            {"lr": options.lr},
        )
        copies = [
            ParameterGroup(
                [torch.nn.Parameter(parameter.detach().cpu().clone()) for parameter in group.parameters],
                group.lr_scale,
            )
            for group in groups
        ]
        self._inner = make_optimizer(copies, options, torch.device("cpu"))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take the gradients down, update there, and bring the weights up."""
        for group, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            inner["lr"] = group["lr"]
            for parameter, copy in zip(group["params"], inner["params"], strict=True):
                copy.copy_(parameter)  # whoever changed the weights in between, such as a resumption
                copy.grad = None if parameter.grad is None else parameter.grad.to("cpu", copy.dtype)
        self._inner.step()
        for group, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            group |= {key: inner[key] for key in inner if key == "d"}  # prodigy's estimate, which is reported
            for parameter, copy in zip(group["params"], inner["params"], strict=True):
                parameter.copy_(copy)

    def state_dict(self) -> dict[str, Any]:
        return self._inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._inner.load_state_dict(state_dict)
