"""The optimizers of a run. The learning rate of every update is set from outside: see finetune.schedule."""

from collections.abc import Sequence
import contextlib
from dataclasses import dataclass
import io
from typing import Any

import torch

from conf.schema import Optimizer
from finetune.extras import check_library

FUSED_DEVICES = ("cpu", "cuda", "mps", "xpu")

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that train at `lr_scale` times the run's learning rate."""

    parameters: list[torch.nn.Parameter]
    lr_scale: float = 1.0


def text_encoder_scale(options: Optimizer) -> float:
    """The `lr_scale` of the text encoders' parameters."""
    return 1.0 if options.text_encoder_lr is None else options.text_encoder_lr / options.lr


def make_optimizer(
    groups: Sequence[ParameterGroup], options: Optimizer, device: torch.device
) -> torch.optim.Optimizer:
    """The optimizer that the options name, ready for the first step.

    Args:
        groups: the UNet's parameters, and the text encoders' where they train. The state dict knows them by their
            order alone.
        options: validated.
        device: of the parameters.

    Raises:
        RequestError: an optional library is not installed.
    """
    check_library(options)
    makers = {
        "adamw": _adamw,
        "adamw8bit": _adamw8bit,
        "adafactor": _adafactor,
        "prodigy": _prodigy,
        "schedulefree": _schedulefree,
    }
    # `lr_scale` is no optimizer's option: it lives in the group, which state dicts keep whole.
    plain = [{"params": group.parameters, "lr_scale": group.lr_scale} for group in groups]
    optimizer = makers[options.name](plain, options, device)
    set_learning_rate(optimizer, options.lr)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give every group its share of the learning rate of the next update."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def effective_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of the last update of the first group; prodigy's is its estimate `d` times the one set."""
    group = optimizer.param_groups[0]
    return float(group["lr"] * group.get("d", 1.0))


def _adam_arguments(options: Optimizer) -> dict[str, Any]:
    return {
        "lr": options.lr,
        "betas": (options.beta1, options.beta2),
        "eps": options.epsilon,
        "weight_decay": options.weight_decay,
    }


def _adamw(groups: Groups, options: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Loshchilov & Hutter 2019, arXiv 1711.05101."""
    # Fused, since the plain loop over tensors costs a CPU tens of milliseconds a step.
    return torch.optim.AdamW(groups, **_adam_arguments(options), fused=device.type in FUSED_DEVICES)


def _adamw8bit(groups: Groups, options: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Dettmers et al. 2022, arXiv 2110.02861: one byte a moment, with a scale for each 256.

    Tensors of fewer than 4096 numbers keep their moments in float32: they weigh little and are the fragile ones.
    """
    from bitsandbytes.optim import AdamW8bit

    # Its first update would do this, so that a resumed run went on in another layout, and with other roundings.
    for parameter in (parameter for group in groups for parameter in group["params"]):
        parameter.data = parameter.data.contiguous()
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, **_adam_arguments(options))
    return optimizer


def _adafactor(groups: Groups, options: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Shazeer & Stern 2018, arXiv 1804.04235, with the learning rate from outside as the size of an update.

    Not torch's: it always multiplies the learning rate by the root mean square of the parameter and bounds it by
    1 / sqrt(step), so that a LoRA matrix, which starts at zero, would hardly move.
    """
    from transformers.optimization import Adafactor

    optimizer: torch.optim.Optimizer = Adafactor(
        groups,
        lr=options.lr,
        weight_decay=options.weight_decay,
        scale_parameter=False,
        relative_step=False,
        warmup_init=False,
    )
    return optimizer


def _prodigy(groups: Groups, options: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Mishchenko & Defazio 2024, arXiv 2306.06101, as its authors advise for diffusion models and warm-ups."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it announces its weight decay
        optimizer: torch.optim.Optimizer = Prodigy(
            groups,
            **_adam_arguments(options),
            d_coef=options.d_coef,
            use_bias_correction=True,
            safeguard_warmup=True,
        )
    return optimizer


def _schedulefree(groups: Groups, options: Optimizer, device: torch.device) -> torch.optim.Optimizer:
    """Defazio et al. 2024, arXiv 2405.15682.

    The live weights are y, where gradients are taken; the average x is what finetune.averaging shows. A warm-up from
    outside is the paper's own: each update enters the average with the square of the largest learning rate so far.
    """
    from schedulefree import AdamWScheduleFree

    average = AdamWScheduleFree(groups, **_adam_arguments(options))
    average.train()
    optimizer: torch.optim.Optimizer = average
    return optimizer
