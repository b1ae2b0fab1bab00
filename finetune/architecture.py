"""What kind of model a pipeline folder holds, in our words and in those of files for other programs. No torch."""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

FAMILIES = {
    "StableDiffusionPipeline": "sd",
    "StableDiffusionXLPipeline": "sdxl",
    "StableDiffusion3Pipeline": "sd3",
}


@dataclass(frozen=True)
class Architecture:
    """The facts of a base model on which the names of weights in files depend.

    Attributes:
        family: sd, sdxl or sd3.
        open_clip: whether a Stable Diffusion 1 or 2 has OpenCLIP's text encoder, which makes it a 2.
        prediction: epsilon, v_prediction or flow.
        zero_terminal_snr: whether its noise schedule ends in pure noise (Lin et al. 2024).
        pixels: side of the images it was trained at.
        layers_per_block: residual blocks in a down block of the UNet; 0 where there is none.
        attention: whether each up block of the UNet has attention.
        vae_blocks: levels of the autoencoder.
    """

    family: str
    open_clip: bool
    prediction: str
    zero_terminal_snr: bool
    pixels: int
    layers_per_block: int
    attention: tuple[bool, ...]
    vae_blocks: int

    @classmethod
    def of(cls, folder: Path) -> "Architecture":
        """Read a folder in diffusers' layout, which has been checked before.

        Raises:
            KeyError, OSError, ValueError: it is no such folder.
        """
        family = FAMILIES[_read(folder / "model_index.json")["_class_name"]]
        denoiser = _read(folder / ("transformer" if family == "sd3" else "unet") / "config.json")
        text = _read(folder / "text_encoder" / "config.json")
        schedule = _read(folder / "scheduler" / "scheduler_config.json")
        levels = len(_read(folder / "vae" / "config.json")["block_out_channels"])
        return cls(
            family=family,
            open_clip=family == "sd" and text.get("hidden_act", "quick_gelu") == "gelu",
            prediction="flow" if family == "sd3" else schedule.get("prediction_type", "epsilon"),
            zero_terminal_snr=bool(schedule.get("rescale_betas_zero_snr", False)),
            pixels=int(denoiser["sample_size"]) * 2 ** (levels - 1),
            layers_per_block=int(denoiser.get("layers_per_block", 0)),
            attention=tuple("CrossAttn" in kind for kind in denoiser.get("up_block_types", ())),
            vae_blocks=levels,
        )


def model_spec(base: Architecture, title: str, adapter: bool) -> dict[str, str]:
    """Metadata of a weight file after Stability AI's model specification 1.0.0."""
    named = {"sd": "stable-diffusion-v1", "sdxl": "stable-diffusion-xl-v1-base", "sd3": "stable-diffusion-3"}
    architecture = named[base.family]
    if base.open_clip:
        suffix = "-v" if base.prediction == "v_prediction" else ""
        architecture = f"stable-diffusion-v2-{base.pixels}{suffix}"
    spec = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/lora" if adapter else architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.resolution": f"{base.pixels}x{base.pixels}",
    }
    if base.prediction != "flow":
        spec["modelspec.prediction_type"] = "v" if base.prediction == "v_prediction" else "epsilon"
    return spec


def _read(file: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return record
