"""What a run trains, as one module: the denoiser, the text encoders that train with it, or adapters on them."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from conf.schema import Memory
from finetune.families.base import Conditioning, Family

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TrainedModel(nn.Module):
    """Denoiser and trained text encoders; one module, so that accumulation and processes cover both alike."""

    def __init__(self, family: Family, denoiser: nn.Module, text_encoders: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.family = family
        self.denoiser = denoiser
        self.text_encoders = nn.ModuleDict(dict(text_encoders))

    def forward(self, noisy: Tensor, times: Tensor, given: Conditioning) -> Tensor:
        """The prediction, of the shape of `noisy` (batch, channels, h, w).

        Args:
            noisy: latents.
            times: (batch,) as the objective tells them.
            given: a batch of conditioning; captions of trained text encoders as token ids.
        """
        known = dict(given)
        for part, encoder in self.text_encoders.items():
            ids, present = known.pop(f"{part}.ids"), known.pop(f"{part}.given")
            for name, value in self.family.encode(part, encoder, ids).items():
                known[name] = value * present.view(-1, *[1] * (value.ndim - 1)).to(value.dtype)
        return self.family.predict(self.denoiser, noisy, times, known)

    def components(self) -> dict[str, nn.Module]:
        """The modules by the names of their folders."""
        return {self.family.files.denoiser: self.denoiser, **self.text_encoders}


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, in a fixed order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """The trained weights as they are now, copied to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in trainable_parameters(model).items()}


@torch.no_grad()
def load_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put copied weights back."""
    for name, parameter in trainable_parameters(model).items():
        parameter.copy_(weights[name])


def is_adapted(module: nn.Module) -> bool:
    """Whether an adapter trains, instead of the network."""
    return bool(getattr(module, "peft_config", None))


def save_memory(model: TrainedModel, memory: Memory) -> None:
    """Trade speed for memory, or the other way; nothing of it changes what is computed, but for the last bits."""
    if memory.gradient_checkpointing:
        model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        for encoder in model.text_encoders.values():
            encoder.activation_checkpointing_enable(  # type: ignore[operator]
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
    if memory.frozen_half and memory.precision in HALF:
        for component in filter(_may_shrink, model.components().values()):
            _shrink_frozen(component, HALF[memory.precision])
    if memory.channels_last:
        model.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if memory.compile:
        model.denoiser.compile(backend=memory.compile_backend)


def _may_shrink(component: nn.Module) -> bool:
    """Not where DoRA compares the frozen weights' norms with magnitudes that it took from them in full precision."""
    return is_adapted(component) and not component.peft_config["default"].use_dora  # type: ignore[index, union-attr]


def _shrink_frozen(component: nn.Module, half: torch.dtype) -> None:
    """Keep the frozen matrices in half precision: under autocast they are rounded to it at every use anyway."""
    for module in component.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and not module.weight.requires_grad:
            module.to(half)
