"""The shapes of the real base models, without their weights: what their public config.json files say."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
import torch
from torch import nn
from transformers import CLIPTextConfig

from finetune.families.base import Family
from finetune.families.files import SDXL, STABLE_DIFFUSION, STABLE_DIFFUSION_3, FamilyFiles
from finetune.families.registry import make_family

CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
}
CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}


@dataclass(frozen=True)
class Architecture:
    """A base model as configurations.

    Attributes:
        files: of its family.
        denoiser, vae: configurations of diffusers.
        text_encoders: configurations of its CLIPs, by folder.
        conditioning: shapes of what the denoiser is told of one caption, by name.
    """

    files: FamilyFiles
    denoiser: Mapping[str, Any]
    vae: Mapping[str, Any]
    text_encoders: Mapping[str, Mapping[str, Any]]
    conditioning: Mapping[str, tuple[int, ...]]

    def latent_shape(self, pixels: int) -> tuple[int, int, int]:
        """(channels, h, w) of the latent of a square image."""
        factor = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return int(self.vae["latent_channels"]), pixels // factor, pixels // factor

    @property
    def tokens(self) -> int:
        """Of a caption, in each CLIP."""
        return self.conditioning["text_encoder"][0]


ARCHITECTURES = {
    # stable-diffusion-v1-5/stable-diffusion-v1-5, */config.json
    "sd15": Architecture(
        files=STABLE_DIFFUSION,
        denoiser={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "layers_per_block": 2,
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        vae=VAE,
        text_encoders={"text_encoder": CLIP_L},
        conditioning={"text_encoder": (77, 768)},
    ),
    # stabilityai/stable-diffusion-xl-base-1.0, */config.json
    "sdxl": Architecture(
        files=SDXL,
        denoiser={
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "layers_per_block": 2,
            "attention_head_dim": (5, 10, 20),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae={**VAE, "sample_size": 1024},
        text_encoders={"text_encoder": CLIP_L, "text_encoder_2": CLIP_G},
        conditioning={
            "text_encoder": (77, 768),
            "text_encoder_2": (77, 1280),
            "text_encoder_2.pooled": (1280,),
            "sizes": (6,),
        },
    ),
    # stabilityai/stable-diffusion-3.5-medium, */config.json
    "sd35": Architecture(
        files=STABLE_DIFFUSION_3,
        denoiser={
            "sample_size": 128,
            "num_layers": 24,
            "num_attention_heads": 24,
            "attention_head_dim": 64,
            "caption_projection_dim": 1536,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)),
            "qk_norm": "rms_norm",
        },
        vae={
            **VAE,
            "latent_channels": 16,
            "sample_size": 1024,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
        },
        text_encoders={"text_encoder": CLIP_L, "text_encoder_2": CLIP_G},
        conditioning={
            "text_encoder": (77, 768),
            "text_encoder.pooled": (768,),
            "text_encoder_2": (77, 1280),
            "text_encoder_2.pooled": (1280,),
            "text_encoder_3": (256, 4096),
        },
    ),
}


def architecture_in(folder: Path) -> Architecture:
    """That of a Stable Diffusion 1 or 2 in diffusers' layout."""
    denoiser, vae, text = (
        {key: value for key, value in json.loads(file.read_text(encoding="utf-8")).items() if key[0] != "_"}
        for file in (folder / part / "config.json" for part in ("unet", "vae", "text_encoder"))
    )
    shape = (int(text["max_position_embeddings"]), int(text["hidden_size"]))
    return replace(
        ARCHITECTURES["sd15"],
        denoiser=denoiser,
        vae=vae,
        text_encoders={"text_encoder": text},
        conditioning={"text_encoder": shape},
    )


class RandomBackbone:
    """What finetune.methods asks of a backbone, with random weights, or on the device "meta" with none."""

    def __init__(self, architecture: Architecture, device: torch.device) -> None:
        self.files = self  # of which only the names of the text encoders are asked
        self.device = device
        self.family: Family = make_family(architecture.files.name)
        self._architecture = architecture

    @property
    def text_encoders(self) -> tuple[str, ...]:
        return tuple(self._architecture.text_encoders)

    def load_denoiser(self) -> nn.Module:
        with self.device:
            denoiser: nn.Module = self.family.denoiser_class(**self._architecture.denoiser)
        return denoiser

    def load_text_encoder(self, part: str) -> nn.Module:
        config = CLIPTextConfig(**self._architecture.text_encoders[part])
        with self.device:
            encoder: nn.Module = self.family.text_encoder_class(part)(config)
        return encoder

    def load_vae(self) -> AutoencoderKL:
        with self.device:
            vae = AutoencoderKL(**self._architecture.vae)
        return vae.requires_grad_(False).eval()
