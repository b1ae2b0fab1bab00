"""A pipeline folder as one .safetensors file in the original layout, as the web UIs load it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.architecture import Architecture, model_spec
from finetune.base_files import weight_files
from finetune.original_keys import clip_name, open_clip_weights, sd3_weights, unet_name, vae_weight
from finetune.paths import replace_with

Tensors = dict[str, Tensor]


def check_export(folder: Path) -> None:
    """Check, before anything is trained, that what is trained from a base model can be exported.

    Args:
        folder: the base model in diffusers' layout.

    Raises:
        RequestError: it has weights that the original layout has no name for.
    """
    _original(folder, _shapes)


def export_single_file(folder: Path, target: Path, facts: Mapping[str, str] | None = None) -> None:
    """Write all weights of a pipeline into one file, in the precision they are stored in.

    Args:
        folder: a whole pipeline of Stable Diffusion 1, 2, XL or 3 in diffusers' layout.
        target: the .safetensors file.
        facts: base, steps and the like, for people.

    Raises:
        RequestError: it has weights that the original layout has no name for.
    """
    base = Architecture.of(folder)
    weights = {name: value.contiguous() for name, value in _original(folder, load_file).items()}
    if base.family == "sdxl" and base.prediction == "v_prediction":  # the marks by which web UIs know it
        weights["v_pred"] = torch.empty(0)
        if base.zero_terminal_snr:
            weights["ztsnr"] = torch.empty(0)
    metadata = {"format": "pt", **model_spec(base, title=target.stem, adapter=False), **(facts or {})}
    replace_with(target, lambda path: save_file(weights, path, metadata=metadata))


def _original(folder: Path, read: Callable[[Path], Tensors]) -> Tensors:
    """All weights of a pipeline under their original names."""
    base = Architecture.of(folder)
    try:
        return dict(_weights(folder, base, read))
    except KeyError as error:
        raise RequestError(
            f"base_model.path={folder}: its weight {error} has no name in the layout of a single file; "
            f"keep what is trained from it as a folder"
        ) from error


def _weights(
    folder: Path, base: Architecture, read: Callable[[Path], Tensors]
) -> Iterator[tuple[str, Tensor]]:
    def part(name: str) -> Tensors:
        tensors: Tensors = {}
        for file in weight_files(folder / name):
            tensors |= read(file)
        return tensors

    for name, value in part("vae").items():
        original, value = vae_weight(name, value, base)
        yield f"first_stage_model.{original}", value
    if base.family == "sd3":
        yield from _prefixed("model.diffusion_model", sd3_weights(part("transformer")))
        yield from _prefixed("text_encoders.clip_l.transformer", _clip(part("text_encoder")))
        yield from _prefixed("text_encoders.clip_g.transformer", _clip(part("text_encoder_2")))
        yield from _prefixed("text_encoders.t5xxl.transformer", part("text_encoder_3"))
        return
    for name, value in part("unet").items():
        yield f"model.diffusion_model.{unet_name(name, base)}", value
    if base.family == "sdxl":
        yield from _prefixed("conditioner.embedders.0.transformer", _clip(part("text_encoder")))
        yield from _prefixed("conditioner.embedders.1.model", open_clip_weights(part("text_encoder_2")))
    elif base.open_clip:
        yield from _prefixed("cond_stage_model.model", open_clip_weights(part("text_encoder")))
    else:
        yield from _prefixed("cond_stage_model.transformer", _clip(part("text_encoder")))


def _clip(tensors: Tensors) -> Tensors:
    return {clip_name(name): value for name, value in tensors.items()}


def _prefixed(prefix: str, tensors: Tensors) -> Iterator[tuple[str, Tensor]]:
    for name, value in tensors.items():
        yield f"{prefix}.{name}", value


def _shapes(file: Path) -> Tensors:
    """Tensors without memory, of the shapes in a file."""
    with safe_open(file, framework="pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
