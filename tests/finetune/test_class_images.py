"""Prior preservation: class images are one's own or drawn once, they train and are measured, and steps count right."""

from collections.abc import Callable
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from PIL import Image
import pytest
import torch

from conf.compose import load_config
from finetune import loop, step
from finetune.class_images import class_prompt, own_class_images
from finetune.setup import Run
from tests.finetune.runs import weights
from tests.finetune.tiny_pipeline import make_images, read_curve

Train = Callable[..., int]
# Two steps without evaluation; class images of the captions' class word.
SHORT = ["budget.max_steps=2", "evaluation.enabled=false", "captions.class_word=box", "optimizer.lr=1e-3"]
PRIOR = [*SHORT, "method.prior_weight=1", "method.prior_images=2"]


def drawn(cache: Path) -> dict[str, list[Path]]:
    """Class images in a cache, by folder."""
    folders = sorted(cache.glob("*/class-images-*"))
    return {folder.name: sorted(folder.iterdir()) for folder in folders}


def read(path: Path) -> Any:
    return np.asarray(Image.open(path), dtype=int)


def test_missing_class_images_are_drawn_by_the_base_and_used_again(run_train: Train, tmp_path: Path) -> None:
    own = [*PRIOR, f"cache_dir={tmp_path / 'cache'}"]
    assert run_train(tmp_path / "first", *own) == 0
    [paths] = drawn(tmp_path / "cache").values()
    assert [path.name for path in paths] == ["00000.png", "00001.png"]
    pictures = [read(path) for path in paths]
    assert all(picture.shape == (32, 32, 3) and np.ptp(picture) > 10 for picture in pictures)
    assert not np.array_equal(*pictures)

    paths[0].unlink()
    kept = paths[1].stat()
    assert run_train(tmp_path / "second", *own, "seed=4", "method=lora") == 0
    assert paths[1].stat().st_mtime_ns == kept.st_mtime_ns and paths[1].stat().st_ino == kept.st_ino
    assert (
        np.abs(read(paths[0]) - pictures[0]).max() <= 1
    )  # an image depends on its index alone, but for rounding

    assert run_train(tmp_path / "third", *own, "method.prior_prompt='a circle'") == 0
    assert run_train(tmp_path / "fourth", *own, "resolution.pixels=24") == 0
    folders = drawn(tmp_path / "cache").values()
    assert sorted(len(paths) for paths in folders) == [2, 2, 2]
    assert sorted({read(paths[0]).shape[0] for paths in folders}) == [24, 32]
    assert paths[1].stat().st_mtime_ns == kept.st_mtime_ns


def test_own_class_images_come_first(run_train: Train, tmp_path: Path) -> None:
    own = make_images(tmp_path / "own", 3)
    folder = [f"method.prior_folder={own}", f"cache_dir={tmp_path / 'cache'}"]
    assert run_train(tmp_path / "enough", *PRIOR, *folder) == 0
    assert drawn(tmp_path / "cache") == {}
    assert run_train(tmp_path / "more", *PRIOR, *folder, "method.prior_images=4") == 0
    assert [len(paths) for paths in drawn(tmp_path / "cache").values()] == [1]


@pytest.mark.parametrize("backwards", [False, True])
def test_own_class_images_are_the_first_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """Whatever the order in which the filesystem gives the names."""
    own = make_images(tmp_path / "own", 4)
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=backwards)))
    method = load_config([*PRIOR, "stopping=none", f"method.prior_folder={own}"]).method
    found = own_class_images(method, 2, tmp_path / "cache", "a box")
    assert [example.path.name for example in found] == ["image-000.png", "image-001.png"]


def test_an_empty_prompt_is_a_prompt() -> None:
    for given, prompt in (("'a circle'", "a circle"), ("''", ""), ("null", "a photo of box")):
        config = load_config(["captions.class_word=box", f"method.prior_prompt={given}"])
        assert class_prompt(config) == prompt


def test_class_images_train_as_much_as_their_weight_says(run_train: Train, tmp_path: Path) -> None:
    for name, value in (("none", "null"), ("tiny", "1e-7"), ("whole", "1")):
        overrides = [*PRIOR, f"method.prior_weight={value}", "method=text_to_image"]
        assert run_train(tmp_path / name, *overrides) == 0
    none, tiny, whole = (weights(tmp_path / name) for name in ("none", "tiny", "whole"))
    moved = {
        name: float(torch.stack([(other[key] - none[key]).abs().mean() for key in none]).mean())
        for name, other in (("tiny", tiny), ("whole", whole))
    }
    assert moved["whole"] > 1e-5
    assert moved["tiny"] < 0.02 * moved["whole"]


def test_images_seen_are_instance_images(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", *PRIOR, "optimizer.accumulation=2") == 0
    assert [(point["step"], point["images_seen"]) for point in read_curve(tmp_path / "run")] == [
        (0, 0),
        (2, 8),
    ]


def test_min_snr_weights_each_example_of_both_halves(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instance and class images have timesteps, and so weights, of their own."""
    seen: list[tuple[float, float, float]] = []

    @torch.no_grad()
    def checking(run: Run) -> float:
        loss, error = step.micro_loss(run, run.counters.step, 0)
        instance, prior = (
            source.batch(run.counters.step, 0, torch.device("cpu"))
            for source in (run.training, *run.prior.values())
        )
        objective, halves = run.backbone.objective, []
        for batch in (instance, prior):
            noisy = objective.add_noise(batch.latents, batch.noise, batch.timesteps)
            predicted = run.model(noisy, objective.times(batch.timesteps), batch.given)
            halves.append((predicted - batch.noise).square().mean(dim=(1, 2, 3)))
        ratio = [
            objective.signal[batch.timesteps] / (1 - objective.signal[batch.timesteps])
            for batch in (instance, prior)
        ]  # type: ignore[attr-defined]
        weighted = [
            float((values * (share.clamp(max=0.5) / share).float()).mean())
            for values, share in zip(halves, ratio, strict=True)
        ]
        seen.append((float(loss), weighted[0] + 0.25 * weighted[1], float(torch.cat(halves).mean() - error)))
        return float(error)

    monkeypatch.setattr(loop, "training_step", checking)
    options = ["loss.snr_gamma=0.5", "method.prior_weight=0.25", "budget.max_steps=4"]
    assert run_train(tmp_path / "run", *PRIOR, *options) == 0
    assert len(seen) == 4
    for loss, expected, difference in seen:
        assert loss == pytest.approx(expected, rel=1e-5)
        assert difference == pytest.approx(0, abs=1e-5)


def test_the_drift_from_the_prior_is_measured(run_train: Train, tmp_path: Path) -> None:
    overrides = [
        "captions.class_word=box",
        "evaluation.class_images=2",
        "budget.max_steps=4",
        "optimizer.lr=1e-2",
    ]
    assert run_train(tmp_path / "watched", *overrides) == 0
    assert run_train(tmp_path / "plain", *overrides, "evaluation.class_images=0") == 0
    points = read_curve(tmp_path / "watched")
    measured = [point["class_panel_loss"] for point in points]
    assert len(set(measured)) == len(points) > 1
    assert all(isinstance(value, float) and value > 0 for value in measured)
    without = [{**point, "class_panel_loss": None} for point in points]
    plain = [{**point, "class_panel_loss": None} for point in read_curve(tmp_path / "plain")]
    assert without == plain, "measuring class images changes nothing else"


def test_class_images_take_the_shapes_of_the_training_images(
    run_train: Train, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(images, tmp_path / "mixed"))
    for index in range(0, 16, 2):
        path = folder / f"image-{index:03d}.png"
        Image.open(path).resize((60, 30)).save(path)
    shapes: list[set[tuple[int, ...]]] = []
    original = loop.training_step

    def looking(run: Run) -> float:
        shapes.append(set(run.prior))
        shapes.append({run.training.encoded.shape(index) for index in range(4)})
        return original(run)

    monkeypatch.setattr(loop, "training_step", looking)
    mixed = [f"dataset.path={folder}", "resolution.buckets=true", "budget.max_steps=6"]
    assert run_train(tmp_path / "run", *PRIOR, *mixed) == 0
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 2
    assert all(np.isfinite(point["train_loss"]) for point in read_curve(tmp_path / "run")[1:])
