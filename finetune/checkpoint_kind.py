"""What a single weight file holds, told from the names and shapes in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffusers.loaders.single_file_utils import infer_diffusers_model_type
from torch import Tensor

from conf.errors import RequestError

Shapes = Mapping[str, Tensor]  # of tensors without memory

LORA = ("lora_down", "lora_up", "lora_A.", "lora_B.", "lora.down.", "hada_w1", "lokr_w")
OTHERS = {  # parts of names by which a file is known to be no base model
    LORA: "a LoRA, which goes on top of a base model",
    ("control_model.", "controlnet_"): "a ControlNet",
    ("conditioner.embedders.0.model.",): "a Stable Diffusion XL refiner",
    ("string_to_param", "emb_params"): "a textual inversion embedding",
    ("down_blocks.", "transformer_blocks.", "text_model."): "one part of a folder in diffusers' layout",
    ("first_stage_model.", "encoder.down.0.", "encoder.conv_in."): "an autoencoder alone",
}
UNET = "model.diffusion_model.input_blocks."
AUTOENCODER = ("first_stage_model.", "vae.")


@dataclass(frozen=True)
class Kind:
    """A kind of base model that can be trained.

    Attributes:
        name: sd1, sd2, sdxl or sd3.
        title: for people.
        pipeline: diffusers' class.
        text_encoders: prefixes of the names of the text encoders that it cannot be without.
    """

    name: str
    title: str
    pipeline: str
    text_encoders: tuple[str, ...]


KINDS = {
    "sd1": Kind("sd1", "Stable Diffusion 1", "StableDiffusionPipeline", ("cond_stage_model.transformer.",)),
    "sd2": Kind("sd2", "Stable Diffusion 2", "StableDiffusionPipeline", ("cond_stage_model.model.",)),
    "sdxl": Kind(
        "sdxl",
        "Stable Diffusion XL",
        "StableDiffusionXLPipeline",
        ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    ),
    "sd3": Kind(
        "sd3",
        "Stable Diffusion 3",
        "StableDiffusion3Pipeline",
        tuple(f"text_encoders.{name}.transformer." for name in ("clip_l", "clip_g", "t5xxl")),
    ),
}


def recognize(file: Path, shapes: Shapes) -> Kind:
    """Which kind of base model a file holds.

    Raises:
        RequestError: none that can be trained, or not the whole of one; the message says what it is instead.
    """
    kind = _kind(shapes)
    if kind is None:
        raise RequestError(
            f"base_model.path={file}: is {_describe(shapes)}; give a whole model of "
            f"{', '.join(known.title for known in KINDS.values())}"
        )
    channels = shapes[f"{UNET}0.0.weight"].shape[1] if f"{UNET}0.0.weight" in shapes else 4
    if channels != 4:
        raise RequestError(
            f"base_model.path={file}: its UNet takes {channels} channels where the latent has 4 (an inpainting, "
            f"depth or upscaling model); give a text-to-image model"
        )
    parts: dict[tuple[str, ...], str] = {(prefix,): "text encoder" for prefix in kind.text_encoders}
    parts[AUTOENCODER] = "autoencoder"
    for prefixes, part in parts.items():
        if not any(name.startswith(prefixes) for name in shapes):
            raise RequestError(
                f"base_model.path={file}: this {kind.title} has no {part} ({prefixes[0]}*); give a file that "
                f"holds the whole model, or a folder in diffusers' layout"
            )
    return kind


def _kind(shapes: Shapes) -> Kind | None:
    def any_starts(*prefixes: str) -> bool:
        return any(name.startswith(prefixes) for name in shapes)

    if any_starts("control_model.", "conditioner.embedders.0.model."):
        return None
    if any_starts("model.diffusion_model.joint_blocks.", "joint_blocks."):
        return KINDS["sd3"]
    if not any_starts(UNET):
        return None
    if any_starts("model.diffusion_model.label_emb."):
        return KINDS["sdxl"]
    return KINDS["sd2" if any_starts(*KINDS["sd2"].text_encoders) else "sd1"]


def _describe(shapes: Shapes) -> str:
    """What a file is that is no known base model."""
    for words, description in OTHERS.items():
        if any(word in name for name in shapes for word in words):
            return description
    # The last resort of diffusers, for whatever it does not know, is v1.
    other = infer_diffusers_model_type(shapes)
    return f"a model of another family ({other})" if other != "v1" else "no weights of a model that is known"
