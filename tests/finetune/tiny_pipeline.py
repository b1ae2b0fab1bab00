"""A Stable Diffusion pipeline of random weights, of the real classes, and folders of captioned images."""

import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
import numpy as np
from PIL import Image
import torch
from transformers import CLIPTextModel

from tests.finetune.tiny_parts import PIXELS, WIDTH, clip_config, clip_tokenizer

REAL_STRUCTURE = {
    "block_out_channels": (8, 8, 16, 16),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "layers_per_block": 2,
}


def make_pipeline(
    folder: Path, prediction: str = "epsilon", dropout: float = 0.0, open_clip: bool = False, **unet: Any
) -> Path:
    """Write a pipeline whose native size is 32 px, with a VAE factor of 2; `unet` overrides its configuration.

    With `open_clip` its text encoder is of Stable Diffusion 2's kind, else of 1's.
    """
    torch.manual_seed(0)
    padding = "!" if open_clip else "<|endoftext|>"
    text = clip_config(padding, layers=2, hidden_act="gelu") if open_clip else clip_config()
    structure = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "layers_per_block": 1,
        **unet,
    }
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=PIXELS,
            scaling_factor=0.5,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=clip_tokenizer(padding),
        unet=UNet2DConditionModel(
            sample_size=PIXELS // 2,
            cross_attention_dim=WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
            dropout=dropout,
            **structure,
        ),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction,
            rescale_betas_zero_snr=prediction == "v_prediction",
            timestep_spacing="trailing" if prediction == "v_prediction" else "leading",
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def make_images(folder: Path, count: int, pixels: int = 40) -> Path:
    """Write captioned PNG files of coloured rectangles, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(count)
    for index in range(count):
        array = np.full((pixels, pixels, 3), 255, dtype=np.uint8)
        top, left, height, width = random.integers(2, pixels // 2, 4)
        array[top : top + height, left : left + width] = random.integers(0, 255, 3)
        Image.fromarray(array).save(folder / f"image-{index:03d}.png")
        (folder / f"image-{index:03d}.txt").write_text(f"box {index}\n", encoding="utf-8")
    return folder


def read_curve(run: Path) -> list[dict[str, object]]:
    """The lines of curve.jsonl without wall_s, the only value that may differ between equal runs."""
    lines = (run / "curve.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall_s"} for line in lines]
