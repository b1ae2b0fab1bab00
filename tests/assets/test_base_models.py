"""The embedded base models and the example images are what their README says."""

from __future__ import annotations

from dataclasses import dataclass
import json
import os
from pathlib import Path
import subprocess
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from diffusers import DDPMScheduler, StableDiffusionPipeline
import numpy as np
from PIL import Image
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from assets.make_tiny_sd import VARIANTS, Variant, new_scheduler, new_text_encoder, new_unet, noise_and_target
from sweep.cells import make_request

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "assets" / "line-drawings"
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Base:
    """A stored model with what is promised of it: bytes, dB on unseen glyphs, other sizes that it draws."""

    name: str
    pipeline: StableDiffusionPipeline
    variant: Variant
    most_bytes: float
    least_psnr: float
    sizes: tuple[int, ...]

    @property
    def folder(self) -> Path:
        return ROOT / "assets" / self.name

    def sheet(self, name: str) -> tuple[Tensor, list[str]]:
        """Reference glyphs (count, 3, side, side) in [0, 1] at the native side, and their captions."""
        data, side = DATA / self.name, self.variant.native
        captions: list[str] = json.loads((data / f"{name}.json").read_text(encoding="utf-8"))
        page = torch.from_numpy(np.array(Image.open(data / f"{name}.png").convert("RGB"))).float().div(255)
        rows, columns = page.shape[0] // side, page.shape[1] // side
        tiles = page.view(rows, side, columns, side, 3).permute(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
        return tiles[: len(captions)], captions

    def sample(self, captions: list[str], steps: int, size: int | None = None) -> Tensor:
        """One guided sample a caption, a seed each, (count, 3, size, size) in [0, 1]."""
        images = self.pipeline(
            captions,
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=4.0,
            generator=[torch.Generator().manual_seed(index) for index in range(len(captions))],
            output_type="np",
        ).images
        return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).float()


PROMISES = {
    "tiny": ("tiny-sd", 16e6, 22.0, (48, 64, 96, 128)),
    "tiny2": ("tiny-sd2", 6e6, 21.0, (32, 48, 64, 96)),
}


@pytest.fixture(scope="module", params=list(PROMISES))
def base(request: pytest.FixtureRequest) -> Base:
    """A model, loaded the way that a user would."""
    name, most_bytes, least_psnr, sizes = PROMISES[request.param]
    pipeline = StableDiffusionPipeline.from_pretrained(ROOT / "assets" / name)
    pipeline.set_progress_bar_config(disable=True)
    return Base(name, pipeline, VARIANTS[request.param], most_bytes, least_psnr, sizes)


def settings(config: dict[str, object]) -> dict[str, object]:
    """A configuration without the library's notes (version, origin), in which lists and tuples are one."""
    plain: dict[str, object] = json.loads(json.dumps(config, default=str))
    return {key: value for key, value in plain.items() if not key.startswith("_")}


def test_it_is_small(base: Base) -> None:
    """So many bytes and 1 to 3 million UNet parameters, in safetensors alone."""
    files = [file for file in base.folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= base.most_bytes
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".txt"}
    assert 1e6 <= sum(parameter.numel() for parameter in base.pipeline.unet.parameters()) <= 3e6


def test_it_loads_in_single_precision(base: Base) -> None:
    """Whatever the files hold, a user who asks for nothing gets a pipeline that runs on a CPU."""
    for part in (base.pipeline.unet, base.pipeline.vae, base.pipeline.text_encoder):
        assert {parameter.dtype for parameter in part.parameters()} == {torch.float32}


def test_the_script_builds_what_is_stored(base: Base) -> None:
    """UNet, text encoder and schedule of the script are those of the files."""
    pipeline, variant = base.pipeline, base.variant
    assert settings(new_unet(variant).config) == settings(pipeline.unet.config)
    assert settings(new_scheduler(variant).config) == settings(pipeline.scheduler.config)
    shapes = {
        key: value.shape for key, value in new_text_encoder(variant, pipeline.tokenizer).state_dict().items()
    }
    assert shapes == {key: value.shape for key, value in pipeline.text_encoder.state_dict().items()}


def test_parts_agree(base: Base) -> None:
    """Text length, widths and sizes fit together as in Stable Diffusion."""
    pipeline = base.pipeline
    length = pipeline.tokenizer.model_max_length
    assert length == pipeline.text_encoder.config.max_position_embeddings
    assert pipeline.text_encoder.config.hidden_size == pipeline.unet.config.cross_attention_dim
    assert len(pipeline.tokenizer) == pipeline.text_encoder.config.vocab_size
    assert pipeline.vae.config.latent_channels == pipeline.unet.config.in_channels == 4
    assert pipeline.vae_scale_factor == 4
    assert pipeline.unet.config.sample_size * 4 == base.variant.native
    assert not pipeline.scheduler.config.clip_sample


def test_the_prediction_is_that_of_the_configuration(base: Base) -> None:
    """The UNet's error is smaller for what the scheduler says it predicts than for the other thing."""
    pipeline = base.pipeline
    glyphs, captions = base.sheet("trained")
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    timesteps = torch.linspace(0, 999, len(glyphs)).long()
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():
        latents = pipeline.vae.encode(glyphs * 2 - 1).latent_dist.mode() * pipeline.vae.config.scaling_factor
        noise = torch.randn(latents.shape, generator=drawn)
        ids = pipeline.tokenizer(captions, padding="max_length", return_tensors="pt").input_ids
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = pipeline.unet(noisy, timesteps, pipeline.text_encoder(ids)[0]).sample
    targets = {"epsilon": noise, "v_prediction": scheduler.get_velocity(latents, noise, timesteps)}
    errors = {name: float((predicted - target).square().mean()) for name, target in targets.items()}
    assert min(errors, key=errors.__getitem__) == pipeline.scheduler.config.prediction_type
    assert min(errors.values()) < 0.4


def test_the_second_ends_in_pure_noise() -> None:
    """Zero signal at the last timestep, sampling from there, and finite targets."""
    scheduler = new_scheduler(VARIANTS["tiny2"])
    assert float(scheduler.alphas_cumprod[-1]) == 0
    assert float(scheduler.alphas_cumprod[0]) > 0.99
    scheduler.set_timesteps(7)
    assert int(scheduler.timesteps[0]) == 999
    assert float(new_scheduler(VARIANTS["tiny"]).alphas_cumprod[-1]) > 0


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_targets_are_the_library_s(name: str) -> None:
    """Noise or velocity, at every share of noise."""
    variant = VARIANTS[name]
    scheduler = DDPMScheduler.from_config(new_scheduler(variant).config)
    drawn = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 5, 4, 3, 3, generator=drawn)
    timesteps = torch.tensor([0, 10, 500, 998, 999])
    signal = scheduler.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy, target = noise_and_target(latents, noise, signal, variant.prediction)
    velocity = scheduler.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(noisy, scheduler.add_noise(latents, noise, timesteps))
    torch.testing.assert_close(target, noise if variant.prediction == "epsilon" else velocity)


def test_every_example_caption_is_spelt_in_known_words(base: Base) -> None:
    """Captions are of things that the model draws, fit its text encoder and survive the tokenizer."""
    tokenizer = base.pipeline.tokenizer
    drawn = (base.folder / "captions.txt").read_text(encoding="utf-8").splitlines()
    for file in sorted(EXAMPLE.glob("*.txt")):
        caption = file.read_text(encoding="utf-8").strip()
        assert caption.lower() in drawn
        ids = tokenizer(caption).input_ids
        assert len(ids) <= tokenizer.model_max_length
        decoded = tokenizer.decode(ids, skip_special_tokens=True)
        assert "".join(decoded.split()) == "".join(caption.lower().split())


def test_unseen_glyphs_are_reconstructed(base: Base) -> None:
    """The autoencoder reaches the decibels promised on glyphs that no training saw."""
    glyphs, _ = base.sheet("held_out")
    vae = base.pipeline.vae
    with torch.no_grad():
        latents = vae.encode(glyphs * 2 - 1).latent_dist.mode()
        rebuilt = vae.decode(latents).sample.add(1).div(2).clamp(0, 1)
    error = (rebuilt - glyphs).square().mean(dim=(1, 2, 3))
    assert float((-10 * error.log10()).mean()) >= base.least_psnr
    # The scaling factor brings latents to about unit variance.
    assert 0.7 <= float((latents * vae.config.scaling_factor).std()) <= 1.4


@pytest.mark.long
def test_samples_look_like_what_was_asked_for(base: Base) -> None:
    """For most of 50 captions the sample's own glyph is among the five nearest of the 50."""
    glyphs, captions = base.sheet("trained")
    samples = base.sample(captions, steps=12)
    distances = torch.cdist(
        functional.avg_pool2d(samples, 4).flatten(1), functional.avg_pool2d(glyphs, 4).flatten(1)
    )
    nearest = distances.topk(5, largest=False).indices
    own = torch.arange(len(captions)).unsqueeze(1)
    assert float((nearest == own).any(dim=1).float().mean()) >= 0.6


def test_other_sizes_work(base: Base) -> None:
    """Two steps at several sizes give finite images that are not flat."""
    for size in base.sizes:
        images = base.sample(["grinning face", ""], steps=2, size=size)
        assert images.shape == (2, 3, size, size)
        assert bool(images.isfinite().all())
        assert float(images.std()) > 0.01


def test_the_base_model_is_an_axis_of_a_sweep() -> None:
    """Both models are levels, each with the learning rates that suit it."""
    request = make_request(["sweep.factors={base_model: [tiny, tiny2], method: [lora, text_to_image]}"])
    assert [cell.label for cell in request.cells] == [
        "n8-lora-native-tiny",
        "n8-text_to_image-native-tiny",
        "n8-lora-native-tiny2",
        "n8-text_to_image-native-tiny2",
    ]
    for cell in request.cells:
        base_model = cell.config.base_model
        rates = base_model.lora if cell.config.method.name == "lora" else base_model.full
        (searched,) = cell.parameters
        assert (searched.low, searched.high) == (rates.low, rates.high)
        assert rates.low < rates.default < rates.high


@pytest.mark.long
def test_the_second_is_fine_tuned_at_its_own_size(tmp_path: Path) -> None:
    """A short run of the trainer lowers the held-out loss, of velocities, at 48 px."""
    done = subprocess.run(
        [
            *(
                sys.executable,
                str(ROOT / "train.py"),
                "base_model=tiny2",
                "method=text_to_image",
                "stopping=none",
            ),
            *("budget.max_steps=16", "samples.count=0", "evaluation.training_images=0", "tracker=none"),
            *(
                "evaluation.strata=2",
                "evaluation.ratio=4",
                "device=cpu",
                f"run_dir={tmp_path / 'run'}",
                f"cache_dir={tmp_path / 'cache'}",
            ),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    cell = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["cell"]
    assert (cell["base_model"], cell["resolution"]) == ("tiny2", 48)
    points = [json.loads(line) for line in (tmp_path / "run" / "curve.jsonl").read_text().splitlines()]
    last = [point for point in points if point.get("delta") is not None][-1]
    assert last["step"] == 16
    assert last["delta"] < -5 * last["delta_se"]


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
