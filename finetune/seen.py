"""What the objects of another's training script say of its configuration."""

from collections.abc import Mapping
from typing import Any

from accelerate import Accelerator
from peft import LoraConfig
from torch import nn

from finetune.families.stable_diffusion import UNET_TARGETS
from finetune.trained import is_adapted


def see(
    accelerator: Accelerator, denoiser: nn.Module, optimizer: Any, text_encoders: Mapping[str, nn.Module]
) -> dict[str, Any]:
    """Values by key of the configuration.

    Args:
        accelerator, optimizer: of the script; the optimizer bare or as accelerate wraps it.
        denoiser: with its adapter if it has one.
        text_encoders: those that train too.
    """
    group = bare(optimizer).param_groups[0]
    kinds = {"lora" if is_adapted(encoder) else "full" for encoder in text_encoders.values()}
    return {
        "optimizer.lr": float(group.get("initial_lr", group["lr"])),
        "memory.precision": accelerator.mixed_precision,
        "method.text_encoder": kinds.pop() if kinds else "frozen",
        "method.adapter": "lora" if is_adapted(denoiser) else "none",
        **(_adapter(denoiser.peft_config["default"]) if is_adapted(denoiser) else {}),  # type: ignore[index]
    }


def bare(optimizer: Any) -> Any:
    """An optimizer without accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def _adapter(config: LoraConfig) -> dict[str, Any]:
    """What an adapter is; its layers only where they are those of a preset of ours."""
    layers = set(config.target_modules or ())
    presets = [name for name, targets in UNET_TARGETS.items() if set(targets) == layers]
    return {
        "method.rank": config.r,
        "method.alpha": float(config.lora_alpha),
        "method.dropout": float(config.lora_dropout),
        **({"method.targets": presets[0]} if presets else {}),
    }
