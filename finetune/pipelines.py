"""A pipeline of diffusers from a folder, and adapters on it, stacked with weights."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
import warnings

from peft.utils import get_peft_model_state_dict
import torch

from conf.errors import RequestError
from finetune.backbone import Backbone
from finetune.base_files import BaseFiles
from finetune.lora_files import COMPONENTS
from finetune.names import shown
from finetune.quiet import be_quiet
from finetune.weights import Weights


def choose_device(name: str) -> torch.device:
    """The device of auto, cpu or cuda.

    Raises:
        RequestError: there is no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("--device=cuda: there is no CUDA GPU here; use cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def open_pipeline(base: BaseFiles, folder: Path, device: torch.device) -> Any:
    """Load a pipeline; on a GPU in half precision but for the autoencoder, which in half overflows (that of XL).

    Args:
        base: what it is.
        folder: of `pipeline_folder.assemble`.
        device: to draw on.

    Raises:
        RequestError: a part is damaged.
    """
    be_quiet()
    import diffusers

    backbone = Backbone(replace(base, path=folder), device)
    modules = {base.family.denoiser: backbone.load_denoiser()}
    modules |= {part: backbone.load_text_encoder(part) for part in base.text_encoders}
    dtype = torch.float32
    if device.type == "cuda":
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    for module in modules.values():
        module.to(device, dtype).requires_grad_(False).eval()
    kind = getattr(diffusers, f"{base.family.pipeline}Pipeline")
    pipeline = kind.from_pretrained(folder, vae=backbone.vae.to(device), **modules, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def add_lora(pipeline: Any, base: BaseFiles, weights: Weights, name: str) -> None:
    """Load an adapter beside those that are there.

    Args:
        pipeline: changed in place.
        base: what it is.
        weights: of an adapter.
        name: of the adapter.

    Raises:
        RequestError: it is for layers of other sizes, or does not fit in part.
    """
    given, title = shown(weights.name), base.family.title
    file = weights.path
    try:
        with warnings.catch_warnings(action="ignore"):  # of peft, of what is looked at here
            pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name=name)
    except Exception as error:  # safetensors, torch, peft and diffusers raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise RequestError(
            f"{given}: does not fit the base model, a {title} ({reason}); name the one it was trained on with --base"
        ) from error
    wanted = sum(not key.endswith((".alpha", ".dora_scale")) for key in weights.tensors)
    loaded = sum(
        len(get_peft_model_state_dict(module, adapter_name=name))
        for module in adapted(pipeline, base).values()
        if name in module.peft_config
    )
    if loaded != wanted:  # diffusers leaves out, silently, what it has no place for
        raise RequestError(
            f"{given}: {wanted - loaded} of its {wanted} tensors have no place in the base model, a {title}; name the "
            f"one it was trained on with --base"
        )
    for part in COMPONENTS[base.family.name]:
        getattr(pipeline, part).eval()  # the adapter's dropout comes in training mode


def adapted(pipeline: Any, base: BaseFiles) -> dict[str, Any]:
    """The networks that have an adapter, by part."""
    parts = {part: getattr(pipeline, part, None) for part in COMPONENTS[base.family.name]}
    return {part: module for part, module in parts.items() if getattr(module, "peft_config", None)}


def weigh(pipeline: Any, weights: Mapping[str, float]) -> None:
    """Use adapters with weights; one of weight zero is off."""
    used = {name: weight for name, weight in weights.items() if weight != 0}
    if used:
        pipeline.enable_lora()
        pipeline.set_adapters(list(used), adapter_weights=list(used.values()))
    elif weights:
        pipeline.disable_lora()


def fuse(pipeline: Any, base: BaseFiles, name: str, weight: float) -> dict[str, Any]:
    """Add an adapter, times a weight, to the networks it is on, and give those, by part."""
    networks = adapted(pipeline, base)
    pipeline.fuse_lora(components=list(networks), adapter_names=[name], lora_scale=weight)
    pipeline.unload_lora_weights()
    return {part: getattr(pipeline, part) for part in networks}
