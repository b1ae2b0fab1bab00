"""Every family against its pipeline in diffusers: what the denoiser is told, what it draws, and exact resuming."""

from collections.abc import Callable
from dataclasses import dataclass
import json
from pathlib import Path
import shutil
from typing import Any

from diffusers import DiffusionPipeline, StableDiffusion3Pipeline
import numpy as np
import pytest
import torch

from curves.run_folder import RunFolder
from finetune.backbone import Backbone
from finetune.base_files import find_base
from finetune.cache import ContentCache
from finetune.crops import Variant, pixels
from finetune.families.base import Conditioning, stack
from finetune.images import Example, pixel_hash, read_image
from finetune.samples import Sampler
from finetune.trained import TrainedModel
from tests.finetune.runs import equal, losses, stop_at, weights
from tests.finetune.tiny_pipeline import make_pipeline, read_curve
from tests.finetune.tiny_sd3 import make_sd3
from tests.finetune.tiny_sdxl import make_sdxl

CPU = torch.device("cpu")
CAPTION, LONG = "a box", "a very long caption " * 40  # longer than CLIP's 8 tokens here and T5's 256
STEPS, GUIDANCE, SIDE = 3, 4.0, 32

Train = Callable[..., int]


@dataclass(frozen=True)
class Base:
    """A base model of one family: through our code and through diffusers."""

    family: str
    backbone: Backbone
    cache: ContentCache
    pipeline: Any

    def given(self, caption: str) -> Conditioning:
        """A batch of one as the denoiser takes it."""
        sizes = self.backbone.family.sizes((SIDE, SIDE), (0, 0), (SIDE, SIDE))
        return stack([self.cache.text(caption) | sizes], CPU)


def without_t5(folder: Path) -> Path:
    """Stable Diffusion 3 is often handed on without its largest text encoder."""
    make_sd3(folder)
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    index = folder / "model_index.json"
    absent = {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
    index.write_text(json.dumps({**json.loads(index.read_text()), **absent}))
    return folder


MAKERS: dict[str, Callable[[Path], Path]] = {
    "sd": make_pipeline,
    "sd-v": lambda folder: make_pipeline(folder, prediction="v_prediction"),
    "sdxl": make_sdxl,
    "sd3": make_sd3,
    "sd3-no-t5": without_t5,
}


@pytest.fixture(scope="module", params=list(MAKERS))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    folder = tmp_path_factory.mktemp(request.param)
    files = find_base(str(MAKERS[request.param](folder / "base")), folder)
    backbone = Backbone(files, CPU)
    if request.param == "sd3-no-t5":
        pipeline = StableDiffusion3Pipeline.from_pretrained(
            folder / "base", text_encoder_3=None, tokenizer_3=None
        )
    else:
        pipeline = DiffusionPipeline.from_pretrained(folder / "base", safety_checker=None)
    pipeline.scheduler = backbone.sampling_scheduler()
    pipeline.set_progress_bar_config(disable=True)
    return Base(request.param, backbone, ContentCache(folder, backbone, SIDE), pipeline)


def encoded_by_pipeline(base: Base, caption: str) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What the pipeline makes of a caption and of no caption: all tokens, and the pooled text where there is one."""
    if base.family.startswith("sd3"):
        found = base.pipeline.encode_prompt(caption, None, None, device=CPU)
    else:
        found = base.pipeline.encode_prompt(
            caption, device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
    return list(found[0::2]), list(found[1::2])


def as_pipeline(base: Base, given: Conditioning) -> list[torch.Tensor]:
    """Our conditioning in the order of `encoded_by_pipeline`, as the denoiser is given it."""
    seen: list[torch.Tensor] = []

    class Recorder(torch.nn.Module):
        config = base.pipeline.components[base.backbone.files.family.denoiser].config

        def forward(self, *arguments: Any, **named: Any) -> tuple[torch.Tensor]:
            seen.append(named.get("encoder_hidden_states", arguments[-1] if len(arguments) > 2 else None))
            added = named.get("added_cond_kwargs", {})
            pooled = named.get("pooled_projections", added.get("text_embeds"))
            seen.extend([] if pooled is None else [pooled])
            return (torch.zeros(1),)

    base.backbone.family.predict(
        Recorder(), torch.zeros(1, *base.backbone.latent_shape(SIDE)), torch.tensor([5]), given
    )
    return seen


@torch.no_grad()
@pytest.mark.parametrize("caption", [CAPTION, LONG])
def test_captions_are_read_as_the_pipeline_reads_them(
    base: Base, caption: str, capfd: pytest.CaptureFixture[str]
) -> None:
    ours, empty = as_pipeline(base, base.given(caption)), stack([base.cache.empty_text()], CPU)
    assert capfd.readouterr().err == "", "a long caption is cut in silence: the plan has noted it"
    expected, expected_empty = encoded_by_pipeline(base, caption)
    sizes = {name: value for name, value in base.given(caption).items() if name == "sizes"}
    for found, wanted in ((ours, expected), (as_pipeline(base, empty | sizes), expected_empty)):
        assert len(found) == len(wanted) == (1 if base.family.startswith("sd-") or base.family == "sd" else 2)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_no_caption_is_zeros_where_the_base_was_taught_so(base: Base) -> None:
    empty = base.cache.empty_text()
    assert all(not value.any() for value in empty.values()) == (base.family == "sdxl")


@torch.no_grad()
def test_sampling_draws_what_the_pipeline_draws(base: Base) -> None:
    shape = base.backbone.latent_shape(SIDE)
    sizes = base.backbone.family.sizes((SIDE, SIDE), (0, 0), (SIDE, SIDE))
    keys: list[tuple[str | int, ...]] = [("test", index) for index in range(2)]
    texts = [base.cache.text(caption) | sizes for caption in (CAPTION, LONG)]
    empty = base.cache.empty_text() | sizes
    sampler = Sampler(base.backbone, texts, empty, shape, keys, STEPS, GUIDANCE)
    model = TrainedModel(base.backbone.family, base.backbone.load_denoiser(), {})
    asked = {
        "prompt": [CAPTION, LONG],
        "latents": sampler._start.clone(),
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "height": SIDE,
        "width": SIDE,
    }
    latents = base.pipeline(**asked, output_type="latent").images
    torch.testing.assert_close(sampler._denoise(model), latents, atol=1e-4, rtol=1e-4)
    drawn = np.stack([np.asarray(image, dtype=int) for image in sampler.draw(model)])
    theirs = np.stack([np.asarray(image, dtype=int) for image in base.pipeline(**asked).images])
    assert np.abs(drawn - theirs).max() <= 1
    assert np.ptp(drawn) > 10


@torch.no_grad()
def test_latents_are_shifted_and_scaled_as_the_pipeline_does(base: Base, images: Path) -> None:
    path = images / "image-000.png"
    [latent] = base.cache.encode([Example(path, CAPTION, pixel_hash(path))]).latents[0]
    vae = base.pipeline.vae
    image = torch.from_numpy(pixels(read_image(path), Variant((SIDE, SIDE))))[None]
    posterior, shift = vae.encode(image).latent_dist, vae.config.shift_factor or 0.0
    torch.testing.assert_close(latent.mean[None], (posterior.mean - shift) * vae.config.scaling_factor)
    torch.testing.assert_close(latent.std[None], posterior.std * vae.config.scaling_factor)
    assert (shift != 0) == base.family.startswith("sd3")
    torch.testing.assert_close(
        base.backbone.decode(latent.mean[None]),
        (vae.decode(posterior.mean).sample / 2 + 0.5).clamp(0, 1),
        atol=1e-5,
        rtol=1e-4,
    )


@torch.no_grad()
def test_a_text_encoder_that_trains_starts_as_the_one_that_is_cached(base: Base) -> None:
    backbone = base.backbone
    parts = [
        part for part in backbone.family.trainable_text_encoders() if part in backbone.files.text_encoders
    ]
    trained_cache = ContentCache(base.cache._root.parent, backbone, SIDE, (), parts)
    denoiser = backbone.load_denoiser().eval()
    encoders = {part: backbone.load_text_encoder(part).eval() for part in parts}
    latents = torch.randn(3, *backbone.latent_shape(SIDE), generator=torch.Generator().manual_seed(0))
    times = torch.tensor([10.0, 500.0, 900.0])
    predictions = []
    for cache, trained in ((base.cache, {}), (trained_cache, encoders)):
        sizes = backbone.family.sizes((SIDE, SIDE), (0, 0), (SIDE, SIDE))
        texts = [cache.text(CAPTION), cache.text(LONG), cache.empty_text()]
        given = stack([text | sizes for text in texts], CPU)
        predictions.append(TrainedModel(backbone.family, denoiser, trained)(latents, times, given))
    torch.testing.assert_close(predictions[1], predictions[0], atol=1e-5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("sd-v", ["method=lora", "method.text_encoder=lora"]),
        ("sdxl", ["method=text_to_image", "method.text_encoder=full", "augmentation.flip=true"]),
        ("sd3", ["method=lora", "method.text_encoder=lora", "resolution.buckets=true"]),
    ],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str, options: list[str]
) -> None:
    path = MAKERS[family](tmp_path / "base")
    common = [*options, f"base_model.path={path}", f"cache_dir={tmp_path / 'cache'}", "captions.dropout=0.3"]
    common += ["budget.max_steps=4", "evaluation.first_step=2", "optimizer.lr=1e-2"]
    assert run_train(tmp_path / "whole", *common) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3, lambda run: run.folder.request_stop("preempted", "a test"))
        assert run_train(tmp_path / "parts", *common) == 1
    assert RunFolder(tmp_path / "parts").outcome() == "preempted"
    assert run_train(tmp_path / "parts", *common) == 0
    assert read_curve(tmp_path / "parts") == read_curve(tmp_path / "whole")
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))
    values = losses(tmp_path / "whole")
    assert len(set(values)) == len(values)
