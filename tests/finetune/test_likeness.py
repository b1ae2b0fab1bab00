"""How near samples come to the training images: by hand, in a real run, and through real image encoders."""

import math
from pathlib import Path

import numpy as np
from PIL import Image
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
)

from conf.errors import RequestError
from curves.likeness import read_likeness
from finetune.cache import Encoded, Latent
from finetune.encoder import ImageEncoder
from finetune.likeness import LikenessMeter, nearest_distance
from tests.finetune.conftest import Train
from tests.finetune.runs import stop_at

SAMPLES = ["samples.count=2", "samples.inference_steps=2", "samples.first_step=2", "samples.ratio=2"]
SIDE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def clip(folder: Path) -> Path:
    """A random CLIP of images and texts."""
    torch.manual_seed(0)
    text = {**SIDE, "intermediate_size": 16, "vocab_size": 64}
    vision = {**SIDE, "intermediate_size": 16, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    crop = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=crop).save_pretrained(folder)
    return folder


def dino(folder: Path) -> Path:
    """A random DINOv2."""
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(**SIDE, mlp_ratio=1, image_size=28, patch_size=14)).save_pretrained(folder)
    crop = {"height": 28, "width": 28}
    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size=crop).save_pretrained(folder)
    return folder


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def encoded(*latents: list[torch.Tensor]) -> Encoded:
    """Images, each with its variants."""
    return Encoded([[Latent((8, 8), one, one, {}) for one in variants] for variants in latents], [], {})


def test_distance_is_to_the_nearest_of_all_variants() -> None:
    images = [noise(4, 8, 8, seed=seed) for seed in range(5)]
    samples = torch.stack([images[3], images[1] + 0.1, noise(4, 8, 8, seed=9)])
    table = np.array([[np.sqrt(((s - i).numpy() ** 2).mean()) for i in images] for s in samples])
    np.testing.assert_allclose(nearest_distance(samples, images), table.min(axis=1), rtol=1e-5)
    meter = LikenessMeter(encoded(images[:2], images[2:4]), encoded([images[4]]), [], None)
    record = meter.measure(16, samples, [])
    assert record.nearest[:2] == [0.0, pytest.approx(0.1, rel=1e-4)]
    [[new]] = [nearest_distance(images[4][None], images[:4]).tolist()]
    assert record.held_out == pytest.approx(new)
    assert (record.step, record.encoder, record.similarity) == (16, None, None)


def test_an_image_of_another_shape_is_stretched() -> None:
    wide = noise(4, 8, 16)
    shrunk = wide.reshape(4, 8, 8, 2).mean(dim=3)
    assert float(nearest_distance(shrunk[None], [wide])) == pytest.approx(0.0, abs=1e-6)


def test_samples_of_a_diverged_model_have_no_distance() -> None:
    meter = LikenessMeter(encoded([noise(4, 8, 8)]), encoded(), [], None)
    record = meter.measure(4, torch.full((1, 4, 8, 8), math.nan), [])
    assert (record.nearest, record.held_out) == ([None], None)


def test_a_run_records_every_sampled_step_once_also_when_it_is_resumed(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["budget.max_steps=8", *SAMPLES]
    assert run_train(tmp_path / "whole", *wanted) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 5, lambda run: setattr(run.interruption, "reason", "asked to end by a test"))
        assert run_train(tmp_path / "resumed", *wanted) == 1
    assert run_train(tmp_path / "resumed", *wanted) == 0
    records = read_likeness(tmp_path / "whole" / "samples")
    drawn = sorted({int(path.name.split("-")[1]) for path in (tmp_path / "whole/samples").glob("*.png")})
    assert [record.step for record in records] == drawn == [0, 2, 4, 8]
    assert all(len(record.nearest) == 2 and min(record.nearest) > 0 for record in records)
    assert len({record.held_out for record in records}) == 1 and records[0].held_out > 0
    assert read_likeness(tmp_path / "resumed" / "samples") == records


@pytest.mark.parametrize("make", [clip, dino])
def test_an_encoder_finds_an_image_most_like_itself(tmp_path: Path, make: object) -> None:
    encoder = ImageEncoder(make(tmp_path / "encoder"))
    pictures = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 50, 3), dtype=np.uint8))
        for seed in range(20)
    ]
    vectors = torch.nn.functional.normalize(encoder.encode(pictures), dim=1)
    similarity = vectors @ encoder.encode([pictures[7]])[0]
    assert int(similarity.argmax()) == 7
    assert encoder.name == "encoder"


def test_a_run_with_an_encoder_records_its_similarity(run_train: Train, tmp_path: Path) -> None:
    folder = clip(tmp_path / "tiny-clip")
    assert run_train(tmp_path / "run", "budget.max_steps=2", f"samples.encoder={folder}", *SAMPLES) == 0
    for record in read_likeness(tmp_path / "run" / "samples"):
        assert record.encoder == "tiny-clip"
        assert record.similarity is not None and len(record.similarity) == 2
        assert all(value is not None and -1 <= value <= 1 for value in record.similarity)


def test_a_wrong_encoder_is_refused_before_anything_is_trained(run_train: Train, tmp_path: Path) -> None:
    nowhere, damaged = tmp_path / "nowhere", clip(tmp_path / "damaged")
    (damaged / "config.json").write_text('{"model_type": "no such model"}')
    for folder, fault in (
        (nowhere, "config.json and preprocessor_config.json not found"),
        (damaged, "cannot be loaded as an image encoder"),
    ):
        run = tmp_path / f"run-{folder.name}"
        with pytest.raises(RequestError, match=f"samples.encoder={folder}: {fault}"):
            run_train(run, "budget.max_steps=2", f"samples.encoder={folder}", *SAMPLES)
        assert not (run / "curve.jsonl").exists()
