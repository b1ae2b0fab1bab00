"""Logs as other trainers leave them, by the real writers, of curves whose minimum is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import csv
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from tests.analysis.make_runs import Spec, make_points
from tests.finetune.wandb_file import is_whole
from tests.sweep.harness import wait_until

LR = 1e-3
Values = list[tuple[int, Mapping[str, float]]]  # step and the tags logged there, in order of writing
HPARAMS = {
    "learning_rate": LR,
    "pretrained_model_name_or_path": "stabilityai/sd-turbo",
    "resolution": 512,
    "train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "seed": 7,
    "max_train_steps": 600,
}


def u_curve(spec: Spec | None = None, base: bool = True) -> dict[int, float]:
    """Held-out loss by step, a U with its minimum at 160 steps of 600."""
    points = make_points(spec or Spec(lr=LR))
    return {point.step: float(point.val_loss or 0) for point in points if base or point.step > 0}


def training_losses(steps: int, every: int = 10, seed: int = 0) -> dict[int, float]:
    """Falling by less than it scatters."""
    random = np.random.default_rng(seed)
    return {
        step: float(0.15 - 1e-5 * step + 0.05 * random.standard_normal())
        for step in range(every, steps + 1, every)
    }


def together(*tags: tuple[str, Mapping[int, float]]) -> Values:
    """Tags as one log, step by step."""
    steps = sorted(set().union(*(values for _, values in tags)))
    return [(step, {tag: values[step] for tag, values in tags if step in values}) for step in steps]


def write_events(folder: Path, values: Values, hparams: Mapping[str, Any] | None = None) -> Path:
    """By torch.utils.tensorboard, hyperparameters as accelerate's tracker puts them: in a folder of their own."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        if hparams is not None:
            writer.add_hparams(dict(hparams), metric_dict={})
        for step, tags in values:
            for tag, value in tags.items():
                writer.add_scalar(tag, value, step)
    return folder


def write_wandb(
    folder: Path, values: Values, config: Mapping[str, Any], name: str, step: bool = True
) -> Path:
    """An offline run; without `step` wandb counts the calls itself, as sd-scripts has it."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(silent=True, console="off", x_disable_stats=True)
    run = wandb.init(
        project="p", name=name, mode="offline", dir=str(folder), config=dict(config), settings=settings
    )
    for at, tags in values:
        run.log(dict(tags), step=at) if step else run.log({**tags, "global_step": at})
    run.finish()
    files = list(folder.glob("wandb/*/*.wandb"))
    wait_until(lambda: all(map(is_whole, files)), "the tracker's service to write the end of its files")
    return folder


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_val_csv(path: Path, curve: Mapping[int, float], column: str = "val_loss") -> Path:
    return write_csv(path, ["step", column], list(curve.items()))


Command = Callable[..., tuple[int, str, str]]
