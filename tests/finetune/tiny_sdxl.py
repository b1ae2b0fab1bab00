"""A Stable Diffusion XL pipeline of random weights, of the real classes."""

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
import torch
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from tests.finetune.tiny_parts import PIXELS, WIDTH, clip_config, clip_tokenizer

WIDTH_2 = 24  # of the second text encoder, so that the two cannot be mistaken for one another
TIME_WIDTH = 8  # of each of the six size and crop numbers
REAL_STRUCTURE = {
    "block_out_channels": (8, 16, 24),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 3),  # of the real one: 1, 2, 10
    "layers_per_block": 2,
}


def make_sdxl(folder: Path, prediction: str = "epsilon", **unet: Any) -> Path:
    """Write a pipeline whose native size is 32 px, with a VAE factor of 2; `unet` overrides its configuration."""
    torch.manual_seed(0)
    structure = {
        "block_out_channels": (8, 16),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2),
        "layers_per_block": 1,
        **unet,
    }
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=PIXELS,
            scaling_factor=0.13025,
            force_upcast=True,
        ),
        text_encoder=CLIPTextModel(clip_config(layers=2)),
        text_encoder_2=CLIPTextModelWithProjection(
            clip_config(padding="!", width=WIDTH_2, layers=2, hidden_act="gelu")
        ),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(padding="!"),
        unet=UNet2DConditionModel(
            sample_size=PIXELS // 2,
            cross_attention_dim=WIDTH + WIDTH_2,
            attention_head_dim=2,
            norm_num_groups=4,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=TIME_WIDTH,
            projection_class_embeddings_input_dim=WIDTH_2 + 6 * TIME_WIDTH,
            **structure,
        ),
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            steps_offset=1,
            prediction_type=prediction,
            rescale_betas_zero_snr=prediction == "v_prediction",
            timestep_spacing="trailing" if prediction == "v_prediction" else "leading",
        ),
    )
    pipeline.save_pretrained(folder)
    return folder
