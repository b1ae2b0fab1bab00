"""Two processes train as one does with the same effective batch: gloo on the CPU, launched as users launch it."""

from dataclasses import dataclass
import math
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

from PIL import Image
import pytest
import torch

from curves.run_folder import RunFolder
from tests.finetune.tiny_pipeline import make_images, read_curve

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
RECORDER = "tests.finetune.recording_trainer"
LAUNCH = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no --main_process_port 0"
# Not --cpu: with it accelerate starts one process, whatever --num_processes says.
ENVIRONMENT = {**os.environ, "ACCELERATE_USE_CPU": "true"}


@dataclass
class Recorded:
    """A run, everything that its processes trained on by purpose, step and position, and its learning rates."""

    folder: RunFolder
    batches: dict[tuple[str, int, int], dict[str, torch.Tensor]]
    rates: list[list[list[float]]]  # by process, update, group of parameters

    @property
    def curve(self) -> list[dict[str, Any]]:
        return read_curve(self.folder.path)


def record(launcher: list[str], folder: Path, overrides: list[str], processes: int) -> Recorded:
    """Train in processes of their own."""
    command = [sys.executable, "-m", *launcher, RECORDER, str(folder), *overrides, f"run_dir={folder}"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = [torch.load(f"{folder}-{rank}.pt") for rank in range(processes)]
    batches: dict[tuple[str, int, int], dict[str, torch.Tensor]] = {}
    for part in parts:
        assert not batches.keys() & part["batches"].keys()
        batches |= part["batches"]
    return Recorded(RunFolder(folder), batches, [part["rates"] for part in parts])


def both(folder: Path, common: list[str], alone: list[str], shared: list[str]) -> tuple[Recorded, Recorded]:
    """A run in one process, and in two; each with a cache of its own, which they have to fill alike."""
    caches = [f"cache_dir={folder / name}" for name in ("cache-one", "cache-two")]
    one = record([], folder / "one", [*common, *alone, caches[0]], processes=1)
    launcher = ["accelerate.commands.launch", *LAUNCH.split(), "-m"]
    two = record(launcher, folder / "two", [*common, *shared, caches[1]], processes=2)
    facts = two.folder.read_facts()
    assert facts.extra["processes"] == 2
    assert facts.hyperparameters["batch"] == one.folder.read_facts().hyperparameters["batch"]
    assert [run.folder.outcome() for run in (one, two)] == ["complete"] * 2
    return one, two


def check_alike(one: Recorded, two: Recorded) -> None:
    """The same examples, timesteps and noise, the same updates, and a panel that measures the same."""
    assert two.batches.keys() == one.batches.keys()
    for key, drawn in one.batches.items():
        assert drawn.keys() == two.batches[key].keys()
        assert [name for name in drawn if not torch.equal(drawn[name], two.batches[key][name])] == []
    assert two.rates == [one.rates[0]] * 2
    for first, second in zip(one.curve, two.curve, strict=True):
        for name in ("step", "images_seen", "lr", "lr_sum", "panel"):
            assert second.get(name) == first.get(name)
        assert second["val_loss"] == pytest.approx(first["val_loss"], abs=1e-5)
        assert second["image_loss"] == pytest.approx(first["image_loss"], abs=1e-4)
        if first["step"]:
            assert second["train_loss"] == pytest.approx(first["train_loss"], rel=1e-4)
    changes = [point["val_loss"] - one.curve[0]["val_loss"] for point in one.curve[1:]]
    assert max(map(abs, changes)) > 1e-3, "nothing was learnt, so that nothing can differ"


def test_two_processes_train_as_one(base_overrides: list[str], tmp_path: Path) -> None:
    """Prior preservation, a trained text encoder, warm-up and decay; twice the batch alone equals the half in each."""
    classes = make_images(tmp_path / "classes", 5)
    common = [
        *base_overrides,
        "method=dreambooth",
        "captions.class_word=box",
        f"method.prior_folder={classes}",
        "method.prior_images=3",
        "method.prior_weight=0.7",
        "method.text_encoder=full",
        "optimizer.accumulation=2",
        "optimizer.lr=1e-3",
        "optimizer.text_encoder_lr=5e-4",
        "optimizer.schedule=cosine",
        "optimizer.warmup_steps=5",
        "loss.snr_gamma=5",
        "captions.dropout=0.3",
        "evaluation.class_images=2",
        "budget.max_steps=20",
    ]
    one, two = both(tmp_path, common, ["optimizer.batch_size=4"], ["optimizer.batch_size=2"])
    check_alike(one, two)
    assert len(one.batches) == 2 * 20 * 2 * 4  # halves, steps, micro-steps, images
    assert one.curve[-1]["images_seen"] == 20 * 2 * 4
    warm_up = [step / 5 for step in range(1, 6)]
    decay = [0.5 * (1 + math.cos(math.pi * done / 15)) for done in range(15)]
    for process in (*one.rates, *two.rates):
        denoiser, text = (list(rates) for rates in zip(*process, strict=True))
        assert denoiser == pytest.approx([1e-3 * share for share in warm_up + decay])
        assert text == pytest.approx([5e-4 * share for share in warm_up + decay])
    panels = [[point["class_panel_loss"] for point in run.curve] for run in (one, two)]
    assert panels[1] == pytest.approx(panels[0], abs=1e-5)


def test_two_processes_accumulate_as_one_does(base_overrides: list[str], tmp_path: Path) -> None:
    """An adapter with dropout, images of two shapes, drawn class images: two processes are two micro-steps of one."""
    photos = make_images(tmp_path / "photos", 12)
    wide = make_images(tmp_path / "wide", 13, pixels=64)
    for index, path in enumerate(sorted(wide.glob("*.png"))):
        with Image.open(path) as image:
            image.crop((0, 16, 64, 56)).save(photos / f"wide-{index}.png")
        (photos / f"wide-{index}.txt").write_text("wide box\n", encoding="utf-8")
    common = [
        *base_overrides,
        f"dataset.path={photos}",
        "dataset_size=n8",
        "method=dreambooth_lora",
        "captions=file",
        "captions.class_word=box",
        "method.text_encoder=lora",
        "method.dropout=0.3",
        "method.prior_images=3",
        "optimizer.batch_size=2",
        "optimizer.lr=1e-2",
        "optimizer.ema_decay=0.9",
        "resolution.buckets=true",
        "augmentation.flip=true",
        "budget.max_steps=8",
    ]
    one, two = both(tmp_path, common, ["optimizer.accumulation=2"], ["optimizer.accumulation=1"])
    check_alike(one, two)
    shapes = {tuple(drawn["latents"].shape) for drawn in one.batches.values()}
    assert len(shapes) > 1
