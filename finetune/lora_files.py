"""LoRA adapters as files: in diffusers' keys, or in the keys of sd-scripts (kohya) that the web UIs read."""

from collections.abc import Mapping
import json
import math
from pathlib import Path
import re

from peft import LoraConfig
from safetensors.torch import save_file
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.architecture import Architecture, model_spec
from finetune.original_keys import clip_name, unet_name

FORMATS = ("diffusers", "kohya")
COMPONENTS = {  # what diffusers can load an adapter into, by family
    "sd": ("unet", "text_encoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer", "text_encoder", "text_encoder_2"),
}
BASE_VERSIONS = {"sd": "sd_v1", "sdxl": "sdxl_base_v1-0"}
TENSOR = re.compile(
    r"(?P<component>[^.]+)\.(?P<module>.+)\.(?P<kind>lora_A\.weight|lora_B\.weight|lora_magnitude_vector)"
)


def check_lora(form: str, family: str, configs: Mapping[str, LoraConfig]) -> None:
    """Check, before anything is trained, that an adapter can be written.

    Args:
        form: diffusers or kohya.
        family: sd, sdxl or sd3.
        configs: of the adapters, by component (unet, transformer, text_encoder, text_encoder_2).

    Raises:
        RequestError: no program reads such a file.
    """
    if form not in FORMATS:
        raise RequestError(
            f"checkpoints.formats=[{form}]: no such format; choose one of {', '.join(FORMATS)}"
        )
    unknown = sorted(set(configs) - set(COMPONENTS[family]))
    if unknown:
        raise RequestError(
            f"method: an adapter on {unknown[0]} cannot be loaded again; of {family} choose among "
            f"{', '.join(COMPONENTS[family])}"
        )
    if form == "diffusers":
        return
    if family == "sd3":
        raise RequestError(
            "checkpoints.formats=[kohya]: there are no such keys that all programs read for Stable Diffusion 3; "
            "take checkpoints.formats=[diffusers], which ComfyUI reads too"
        )
    if any(config.use_dora for config in configs.values()):
        raise RequestError(
            "checkpoints.formats=[kohya]: programs disagree on DoRA's magnitude in these keys, and diffusers drops it; "
            "take checkpoints.formats=[diffusers], or LoRA without DoRA"
        )


def save_lora(
    target: Path,
    form: str,
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, LoraConfig],
    facts: Mapping[str, str],
    base: Architecture,
) -> None:
    """Write an adapter in one of the formats; arguments and errors as of `check_lora` and `save_diffusers_lora`."""
    check_lora(form, base.family, configs)
    if form == "kohya":
        save_kohya_lora(target, tensors, configs, facts, base)
    else:
        save_diffusers_lora(target, tensors, configs, facts, base)


def save_diffusers_lora(
    target: Path,
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, LoraConfig],
    facts: Mapping[str, str],
    base: Architecture,
) -> None:
    """Write an adapter that `pipeline.load_lora_weights` reads, with alpha from its metadata.

    Args:
        target: a .safetensors file.
        tensors: in peft's layout under the component's name, for example
            `unet.down_blocks.1.attentions.0.proj_in.lora_A.weight`: lora_A (rank, in, ...), lora_B (out, rank, ...).
        configs: of the adapters, by component.
        facts: base, steps, recommendation and the like, for people.
        base: model that was trained on.
    """
    described = {}
    for component, config in configs.items():
        # Whatever the adapter started from, a reader must not change the base's weights for it.
        record = {**config.to_dict(), "init_lora_weights": True, "inference_mode": True}
        for key, value in record.items():
            described[f"{component}.{key}"] = sorted(value) if isinstance(value, set) else value
    metadata = {
        "format": "pt",
        **model_spec(base, title=target.stem, adapter=True),
        **facts,
        "lora_adapter_metadata": json.dumps(described, sort_keys=True, default=str),
    }
    named = {_diffusers_name(name): value for name, value in tensors.items()}
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in named.items()}, target, metadata=metadata
    )


def save_kohya_lora(
    target: Path,
    tensors: Mapping[str, Tensor],
    configs: Mapping[str, LoraConfig],
    facts: Mapping[str, str],
    base: Architecture,
) -> None:
    """Write an adapter in sd-scripts' keys; arguments as of `save_diffusers_lora`.

    A reader scales every layer by alpha / rank, so that is what alpha is chosen for where training scaled by
    alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023).
    """
    written: dict[str, Tensor] = {}
    for name, value in tensors.items():
        component, module, kind = _parse(name)
        key = _kohya_name(component, module, base)
        written[f"{key}.{'lora_down' if kind == 'lora_A.weight' else 'lora_up'}.weight"] = value
        if kind == "lora_A.weight":
            written[f"{key}.alpha"] = torch.tensor(_kohya_alpha(configs[component], rank=value.shape[0]))
    metadata = {
        "format": "pt",
        **model_spec(base, title=target.stem, adapter=True),
        **_network(configs, base),
        **facts,
    }
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in written.items()},
        target,
        metadata=metadata,
    )


def _network(configs: Mapping[str, LoraConfig], base: Architecture) -> dict[str, str]:
    """The metadata by which web UIs and sd-scripts tell what an adapter is for."""
    first = next(iter(configs.values()))
    version = "sd_v2" if base.open_clip else BASE_VERSIONS[base.family]
    if base.family == "sd" and base.prediction == "v_prediction":
        version += "_v"
    return {
        "ss_base_model_version": version,
        "ss_v2": str(base.open_clip),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(first.r),
        "ss_network_alpha": str(_kohya_alpha(first, first.r)),
        "ss_resolution": f"({base.pixels}, {base.pixels})",
    }


def _kohya_alpha(config: LoraConfig, rank: int) -> float:
    """The alpha for which alpha / rank is the scale that was trained with."""
    return float(config.lora_alpha) * (math.sqrt(rank) if config.use_rslora else 1.0)


def _kohya_name(component: str, module: str, base: Architecture) -> str:
    """The module's key: of a UNet of Stable Diffusion 1 and 2 after diffusers' names, of XL after the original's."""
    if component == "unet":
        name = unet_name(module, base) if base.family == "sdxl" else module
        prefix = "lora_unet"
    else:
        name = clip_name(module)
        first = "lora_te1" if base.family == "sdxl" else "lora_te"
        prefix = first if component == "text_encoder" else "lora_te2"
    return f"{prefix}_{name.replace('.', '_')}"


def _diffusers_name(name: str) -> str:
    component, module, kind = _parse(name)
    if not component.startswith("text_encoder"):
        return f"{component}.{module}.{kind}"
    # transformers reads DoRA's magnitude only under the name it has in the model, diffusers only without `.weight`.
    kind = "lora_magnitude_vector.weight" if kind == "lora_magnitude_vector" else kind
    return f"{component}.{clip_name(module)}.{kind}"


def _parse(name: str) -> tuple[str, str, str]:
    """Component, module and kind of a tensor's name."""
    match = TENSOR.fullmatch(name)
    if match is None:
        raise KeyError(name)
    return match["component"], match["module"], match["kind"]
