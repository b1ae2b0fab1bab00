"""Run folders with known truth that keep the file contract: analysis tested without a trainer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
import yaml

from curves.grid import evaluation_steps
from curves.likeness import Likeness, append_likeness
from curves.panel import paired_difference, standard_error
from curves.point import Point
from curves.run_folder import RunFacts, RunFolder, Status, Verdict, write_json

Array = NDArray[np.float64]
HELD_OUT = 8
BATCH = 4
STRATA = 8


@dataclass(frozen=True)
class Spec:
    """One simulated run; `best_time` is the sum of the learning rate at the minimum."""

    images: int = 4
    method: str = "lora"
    lr: float = 1e-3
    seed: int = 0
    horizon: int = 600
    last_step: int | None = None  # where it was cut, -1: before step 0; None: ran to the horizon
    best_time: float = 0.16
    gain: float = 0.012
    noise: float = 0.015  # scatter of an evaluation, in gain
    outcome: str = "complete"
    panel: str = "panel-a"
    schedule: str = "constant"
    captions: str = "file"
    dataset: str = "da7a0000da7a"
    base_model: str = "tiny"
    resolution: int = 64
    study: str | None = "demo"
    trial: int | None = None
    samples: bool = False
    beyond: bool = False  # also panels of training and class images, and the likeness of samples
    hyperparameters: dict[str, Any] = field(default_factory=dict)


def latent_regret(time: Array, best_time: float) -> Array:
    """A U with its minimum at best_time, 1 at time 0 and 0 at the minimum; not of the model's own family."""

    def shape(u: Array) -> Array:
        return 1 / (1 + u / 0.18) ** 1.3 + 0.1 * np.log1p(u) ** 2

    fine = np.geomspace(0.01, 20, 20_000)
    at = fine[np.argmin(shape(fine))]
    bottom = shape(np.array([at]))[0]
    return (shape(time / best_time * at) - bottom) / (1 - bottom)


def learning_rates(spec: Spec) -> Array:
    """Learning rate of every update, (horizon,)."""
    step = np.arange(spec.horizon)
    if spec.schedule == "cosine":
        return spec.lr * 0.5 * (1 + np.cos(np.pi * step / spec.horizon))
    return np.full(spec.horizon, spec.lr)


def lr_efficiency(lr: float, best_lr: float = 1e-3) -> float:
    """Share of the gain that a learning rate reaches."""
    return float(np.exp(-0.15 * np.log(lr / best_lr) ** 2))


def true_minimum(spec: Spec) -> int:
    """Steps at the latent minimum within the horizon."""
    lr_sum = np.cumsum(learning_rates(spec))
    return int(min(np.searchsorted(lr_sum, spec.best_time) + 1, spec.horizon))


def make_points(spec: Spec) -> list[Point]:
    """The curve of a run, all evaluations up to where it ended."""
    random = np.random.default_rng([spec.seed, int(spec.lr * 1e7), spec.images])
    panel = np.random.default_rng(sum(map(ord, spec.panel)))
    base = 0.2 + 0.05 * panel.standard_normal(HELD_OUT)
    share = 1 + 0.2 * panel.standard_normal(HELD_OUT)
    gain = spec.gain * lr_efficiency(spec.lr)
    last = spec.last_step or spec.horizon
    steps = [step for step in evaluation_steps(4, 2**0.25, spec.horizon) if step <= last]
    lr_sum = np.concatenate([[0.0], np.cumsum(learning_rates(spec))])
    regret = latent_regret(lr_sum, spec.best_time * (1 + 0.05 * random.standard_normal()))
    points = []
    for step in steps:
        noise = spec.noise * abs(spec.gain) * random.standard_normal() * (step > 0)
        losses = (
            base
            + share * gain * (regret[step] - 1)
            + noise
            + 0.2 * spec.noise * spec.gain * (random.standard_normal(HELD_OUT) * (step > 0))
        )
        delta, delta_se = paired_difference(losses, base)
        points.append(
            Point(
                step=step,
                images_seen=step * BATCH,
                wall_s=step * 0.1,
                lr=spec.lr,
                lr_sum=float(lr_sum[step]),
                train_loss=None if step == 0 else float(0.18 + 0.05 * random.standard_normal()),
                val_loss=float(losses.mean()),
                val_se=standard_error(losses),
                delta=delta,
                delta_se=delta_se,
                image_loss=[float(loss) for loss in losses],
                bins=[float(losses.mean())] * STRATA,
                panel=spec.panel,
                **(_other_panels(spec, float(lr_sum[step]), gain) if spec.beyond else {}),
            )
        )
    return points


def _other_panels(spec: Spec, time: float, gain: float) -> dict[str, float]:
    """Training images are learnt on and on, class images are forgotten in proportion to time."""
    share = time / spec.best_time
    return {
        "train_panel_loss": 0.19 - gain * 1.2 * (1 - 1 / (1 + 1.5 * share)),
        "class_panel_loss": 0.25 + 0.1 * gain * share,
    }


def run_facts(spec: Spec) -> RunFacts:
    return RunFacts(
        cell={
            "dataset_size": f"n{spec.images}",
            "images": spec.images,
            "resolution": spec.resolution,
            "method": spec.method,
            "base_model": spec.base_model,
            "base_id": "b45e0000b45e",
            "dataset": spec.dataset,
            "captions": spec.captions,
        },
        hyperparameters={
            "lr": spec.lr,
            "optimizer": "adamw",
            "batch_size": BATCH,
            "accumulation": 1,
            "schedule": spec.schedule,
            "warmup_steps": 0,
            "batch": BATCH,
            **({"rank": 8} if spec.method == "lora" else {}),
            **spec.hyperparameters,
        },
        seed=spec.seed,
        horizon=spec.horizon,
        horizon_lr_sum=float(learning_rates(spec).sum()),
        panel=spec.panel,
        images=spec.images,
        study=spec.study,
        trial=spec.trial,
        stopping="none",
    )


def make_run(path: Path, spec: Spec) -> RunFolder:
    """Write one run folder."""
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.write_facts(run_facts(spec))
    points = make_points(spec)
    last_step = points[-1].step if points else 0
    for point in points:
        folder.append_point(point)
    folder.overrides.write_text(
        yaml.safe_dump([f"dataset_size=n{spec.images}", f"method={spec.method}", f"optimizer.lr={spec.lr!r}"])
    )
    folder.write_status(Status(state="ended", step=last_step, outcome=spec.outcome, seconds_per_step=0.1))
    if spec.trial is not None:
        folder.write_verdict(Verdict(outcome=spec.outcome))
    if spec.samples:
        make_samples(folder, spec, last_step)
    return folder


def make_samples(folder: RunFolder, spec: Spec, last_step: int) -> None:
    """Small pictures that get clearer up to the minimum and coarser after it."""
    folder.samples.mkdir()
    prompts = ["a line drawing of a cat", 'a line drawing of a house <with> a "chimney"', "a tree", "a fish"]
    write_json(folder.samples / "prompts.json", {"prompts": prompts, "seed": 0})
    for step in [step for step in evaluation_steps(16, 2.0, spec.horizon) if step <= last_step]:
        if spec.beyond:
            random = np.random.default_rng(step)
            nearest = [
                float(value) for value in 0.3 + 0.6 / (1 + step / 60) + 0.03 * random.random(len(prompts))
            ]
            append_likeness(
                folder.samples, Likeness(step, nearest, 0.62, "tiny-clip", [1 - value for value in nearest])
            )
        for index in range(len(prompts)):
            random = np.random.default_rng([step, index])
            image = Image.new("RGB", (64, 64), "white")
            pen = ImageDraw.Draw(image)
            wobble = 14 / (1 + step / 30)
            corners = np.array([[16, 48], [16, 26], [32, 12], [48, 26], [48, 48], [16, 48]], dtype=float)
            corners[:, 0] += 3 * index
            pen.line(
                [tuple(corner) for corner in corners + wobble * random.standard_normal(corners.shape)],
                "black",
                2,
            )
            image.save(folder.samples / f"step-{step:06d}-{index}.png")


def make_study(root: Path, specs: list[Spec], study_yaml: bool = True) -> Path:
    """Write a study folder whose trials are these, numbered in order."""
    for number, spec in enumerate(specs):
        name = f"{number:04d}-n{spec.images}-{spec.method}-native-tiny"
        make_run(root / "trials" / name, replace(spec, trial=number, study=root.name))
    if study_yaml:
        (root / "study.yaml").write_text(yaml.safe_dump(_study_record(root.name, specs), sort_keys=False))
    return root


def demo_specs(
    sizes: tuple[int, ...] = (4, 16), methods: tuple[str, ...] = ("lora", "text_to_image")
) -> list[Spec]:
    """Three learning rates in each cell; the minimum comes later with more images."""
    specs = []
    for method in methods:
        scale = 1.0 if method == "lora" else 0.25
        for images in sizes:
            for index, lr in enumerate((5e-4, 1e-3, 2.5e-3)):
                best_time = 0.12 * (images / 4) ** 0.6
                horizon = 600
                specs.append(
                    Spec(
                        images=images,
                        method=method,
                        lr=lr,
                        seed=index,
                        horizon=horizon,
                        best_time=best_time,
                        gain=0.012 * scale * (images / 4) ** 0.1,
                        samples=lr == 1e-3,
                    )
                )
    return specs


def _study_record(name: str, specs: list[Spec]) -> dict[str, Any]:
    return {
        "schema": 1,
        "study": name,
        "created": "2025-01-02T03:04:05+00:00",
        "overrides": ["experiment=demo"],
        "cells": [],
        "trials": 3,
        "seeds": {"runs": 0, "sampler": 0},
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": False},
        "python": "3.11.9",
        "versions": {"torch": "2.13.0", "numpy": "2.4.6"},
        "hardware": {"processor": "a processor", "cores": 2, "memory_gib": 15.6, "gpus": [], "slots": 2},
        "config": {"dataset": {"name": "line-drawings", "path": "assets/line-drawings"}, "study": name},
    }
