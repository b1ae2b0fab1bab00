"""A Stable Diffusion 3 pipeline of random weights, of the real classes."""

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
import torch
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel, T5Tokenizer

from tests.finetune.tiny_parts import LETTERS, PIXELS, WIDTH, clip_config, clip_tokenizer

WIDTH_2, WIDTH_3 = 24, 48  # of the second CLIP and of T5, into whose width the two CLIPs are padded


def make_sd3(folder: Path, **transformer: Any) -> Path:
    """Write a pipeline whose native size is 32 px, with a VAE factor of 2 and patches of 2 latent pixels.

    Args:
        folder: to write.
        transformer: overrides its configuration, for example `qk_norm="rms_norm", dual_attention_layers=(0,)`,
            which make it a Stable Diffusion 3.5 medium.
    """
    torch.manual_seed(0)
    tokenizer = t5_tokenizer()
    pipeline = StableDiffusion3Pipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=16,
            sample_size=PIXELS,
            scaling_factor=1.5305,
            shift_factor=0.0609,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        text_encoder=CLIPTextModelWithProjection(clip_config(layers=2)),
        text_encoder_2=CLIPTextModelWithProjection(
            clip_config(padding="!", width=WIDTH_2, layers=2, hidden_act="gelu")
        ),
        text_encoder_3=T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=WIDTH_3,
                d_kv=8,
                d_ff=WIDTH,
                num_layers=2,
                num_heads=2,
                feed_forward_proj="gated-gelu",
                tie_word_embeddings=False,
            )
        ),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(padding="!"),
        tokenizer_3=tokenizer,
        transformer=SD3Transformer2DModel(
            **{
                "sample_size": PIXELS // 2,
                "patch_size": 2,
                "in_channels": 16,
                "num_layers": 2,
                "attention_head_dim": 8,
                "num_attention_heads": 2,
                "joint_attention_dim": WIDTH_3,
                "caption_projection_dim": 16,
                "pooled_projection_dim": WIDTH + WIDTH_2,
                "out_channels": 16,
                "pos_embed_max_size": 12,
                **transformer,
            }
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
    with torch.no_grad():  # as in the real one, whose file holds no projection of CLIP-L
        pipeline.text_encoder.text_projection.weight.copy_(torch.eye(WIDTH))
    pipeline.save_pretrained(folder)
    return folder


def t5_tokenizer() -> T5Tokenizer:
    """A unigram tokenizer of single characters."""
    words = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    return T5Tokenizer(vocab=[(word, -2.0) for word in words], extra_ids=0, model_max_length=77)
