"""The embedded base model and the example images are what their README says."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from diffusers import StableDiffusionPipeline
import numpy as np
from PIL import Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "assets" / "tiny-sd"
EXAMPLE = ROOT / "assets" / "line-drawings"
DATA = Path(__file__).parent / "data"
SIDE = 64  # px


def sheet(name: str) -> tuple[Tensor, list[str]]:
    """Reference glyphs (count, 3, 64, 64) in [0, 1] and their captions."""
    captions: list[str] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    page = torch.from_numpy(np.array(Image.open(DATA / f"{name}.png").convert("RGB"))).float().div(255)
    rows, columns = page.shape[0] // SIDE, page.shape[1] // SIDE
    tiles = page.view(rows, SIDE, columns, SIDE, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, SIDE, SIDE)
    return tiles[: len(captions)], captions


def sample(pipeline: StableDiffusionPipeline, captions: list[str], steps: int, size: int = SIDE) -> Tensor:
    """One guided sample a caption, a seed each, (count, 3, size, size) in [0, 1]."""
    images = pipeline(
        captions,
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(index) for index in range(len(captions))],
        output_type="np",
    ).images
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float()


@pytest.fixture(scope="module")
def pipeline() -> StableDiffusionPipeline:
    """The model, loaded the way that a user would."""
    loaded = StableDiffusionPipeline.from_pretrained(MODEL)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def test_it_is_small(pipeline: StableDiffusionPipeline) -> None:
    """At most 16 MB of files and 1 to 3 million UNet parameters."""
    assert sum(file.stat().st_size for file in MODEL.rglob("*") if file.is_file()) <= 16e6
    assert 1e6 <= sum(parameter.numel() for parameter in pipeline.unet.parameters()) <= 3e6


def test_parts_agree(pipeline: StableDiffusionPipeline) -> None:
    """Text length, widths and the noise schedule fit together as in Stable Diffusion."""
    length = pipeline.tokenizer.model_max_length
    assert length == pipeline.text_encoder.config.max_position_embeddings
    assert pipeline.text_encoder.config.hidden_size == pipeline.unet.config.cross_attention_dim
    assert len(pipeline.tokenizer) == pipeline.text_encoder.config.vocab_size
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels == 4
    assert pipeline.vae_scale_factor == 4
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    assert not pipeline.scheduler.config.clip_sample


def test_every_example_caption_is_spelt_in_known_words(pipeline: StableDiffusionPipeline) -> None:
    """Captions fit the text encoder and survive the tokenizer."""
    for file in sorted(EXAMPLE.glob("*.txt")):
        caption = file.read_text(encoding="utf-8").strip()
        ids = pipeline.tokenizer(caption).input_ids
        assert len(ids) <= pipeline.tokenizer.model_max_length
        decoded = pipeline.tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(decoded.split()) == "".join(caption.lower().split())


def test_unseen_glyphs_are_reconstructed(pipeline: StableDiffusionPipeline) -> None:
    """The autoencoder reaches 22 dB on glyphs that no training saw."""
    glyphs, _ = sheet("held_out")
    with torch.no_grad():
        latents = pipeline.vae.encode(glyphs * 2 - 1).latent_dist.mode()
        rebuilt = pipeline.vae.decode(latents).sample.add(1).div(2).clamp(0, 1)
    error = (rebuilt - glyphs).square().mean(dim=(1, 2, 3))
    assert float((-10 * error.log10()).mean()) >= 22
    # The scaling factor brings latents to about unit variance.
    assert 0.7 <= float((latents * pipeline.vae.config.scaling_factor).std()) <= 1.4


def test_samples_look_like_what_was_asked_for(pipeline: StableDiffusionPipeline) -> None:
    """For most of 50 captions the sample's own glyph is among the five nearest of the 50."""
    glyphs, captions = sheet("trained")
    samples = sample(pipeline, captions, steps=12)
    distances = torch.cdist(
        functional.avg_pool2d(samples, 4).flatten(1), functional.avg_pool2d(glyphs, 4).flatten(1)
    )
    nearest = distances.topk(5, largest=False).indices
    own = torch.arange(len(captions)).unsqueeze(1)
    assert float((nearest == own).any(dim=1).float().mean()) >= 0.6


@pytest.mark.parametrize("size", [48, 64, 96, 128])
def test_other_sizes_work(pipeline: StableDiffusionPipeline, size: int) -> None:
    """Two steps at several sizes give finite images that are not flat."""
    images = sample(pipeline, ["grinning face", ""], steps=2, size=size)
    assert images.shape == (2, 3, size, size)
    assert bool(images.isfinite().all())
    assert float(images.std()) > 0.01


def test_example_images_are_whole() -> None:
    """At least 160 distinct RGB images, a caption each, in at most 2.5 MB."""
    images = sorted(EXAMPLE.glob("*.png"))
    assert len(images) >= 160
    assert sum(file.stat().st_size for file in EXAMPLE.iterdir()) <= 2.5e6
    contents = set()
    for file in images:
        assert file.with_suffix(".txt").read_text(encoding="utf-8").strip()
        with Image.open(file) as image:
            assert image.mode == "RGB" and image.size == (128, 128)
            contents.add(image.tobytes())
    assert len(contents) == len(images)
