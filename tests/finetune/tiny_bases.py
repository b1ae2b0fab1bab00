"""Every tiny pipeline by name, and what they draw."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline
import torch
from torch import Tensor

from tests.finetune import tiny_pipeline, tiny_sdxl
from tests.finetune.tiny_pipeline import make_pipeline
from tests.finetune.tiny_sd3 import make_sd3
from tests.finetune.tiny_sdxl import make_sdxl

MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd": make_pipeline,
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "sd35": lambda folder: make_sd3(folder, qk_norm="rms_norm", dual_attention_layers=(0,)),
    # Of the real block structure, where it decides on names.
    "sd1 real": lambda folder: make_pipeline(folder, **tiny_pipeline.REAL_STRUCTURE),
    "sd2 real": lambda folder: make_pipeline(
        folder,
        prediction="v_prediction",
        open_clip=True,
        use_linear_projection=True,
        **tiny_pipeline.REAL_STRUCTURE,
    ),
    "sdxl real": lambda folder: make_sdxl(folder, **tiny_sdxl.REAL_STRUCTURE),
}


def load(folder: Path) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def draw(pipeline: Any) -> Tensor:
    """Latents of two steps with guidance, so that both text paths count."""
    latents: Tensor = pipeline(
        "a box 1",
        num_inference_steps=2,
        guidance_scale=3.0,
        output_type="latent",
        generator=torch.Generator().manual_seed(0),
    ).images
    return latents
