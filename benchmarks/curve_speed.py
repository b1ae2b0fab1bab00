"""How long reading and answering takes, and how it grows with runs and evaluations.

    OMP_NUM_THREADS=1 python -m benchmarks.curve_speed            1,000 curves of 50 evaluations, and how that grows
    OMP_NUM_THREADS=1 python -m benchmarks.curve_speed load       reading 10,000 run folders

Curves are those of benchmarks/random_features.py, each a run folder of its own, four runs a cell. Prints seconds of
processor time and of the clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
import json
from pathlib import Path
import sys
import tempfile
import time
from typing import TypeVar

import numpy as np

from analysis.load import load_study
from analysis.recommend import analyse
from benchmarks.random_features import Trainer, fine_tune
from curves.point import Point, format_point
from curves.run_folder import RunFacts, RunFolder, Status

RUNS, POINTS = 1000, 50
MANY = 10_000  # folders to read
OTHERS = ((250, 50), (1000, 25), (250, 100), (250, 200))  # runs, evaluations
RUNS_A_CELL = 4
LAST, FIRST = 3.0, 0.02  # of the minimum

Result = TypeVar("Result")


def write_run(folder: RunFolder, number: int, points: int) -> None:
    """One run folder with that many evaluations of a curve that passes its minimum."""
    images = (5, 10, 20, 40)[number // RUNS_A_CELL % 4]
    truth, trainer = fine_tune(number // RUNS_A_CELL % 3, images), Trainer(4e-4, 0.015, seed=number)
    best = 10 * trainer.best_step(truth)
    steps = np.unique(np.round(np.geomspace(FIRST * best, LAST * best, points - 1))).astype(int)
    losses = truth.at(trainer.lr / 10 * steps)
    noisy = losses + trainer.scatter * truth.gain * np.random.default_rng(number).standard_normal(len(steps))
    recorded = zip([0, *steps.tolist()], [truth.loss[0], *noisy.tolist()], strict=True)
    cell = {"dataset_size": f"n{images}", "images": images, "resolution": 64 + number // RUNS_A_CELL}
    cell |= {"method": "lora", "base_model": "tiny", "base_id": "b", "dataset": "d", "captions": "file"}
    facts = RunFacts(
        cell=cell,
        hyperparameters={"lr": trainer.lr / 10, "batch": 1, "schedule": "constant", "warmup_steps": 0},
        seed=number,
        images=images,
        horizon=int(steps[-1]),
        horizon_lr_sum=float(trainer.lr / 10 * steps[-1]),
        panel="p",
    )
    folder.path.mkdir(parents=True)
    record = asdict(facts)
    folder.run.write_text(json.dumps({**record, **record.pop("extra")}, indent=2))
    rate = trainer.lr / 10
    lines = [
        format_point(
            Point(
                step=step,
                images_seen=step,
                wall_s=0.1 * step,
                lr=rate,
                lr_sum=rate * step,
                val_loss=float(loss),
                image_loss=[float(loss)] * 8,
                bins=[float(loss)] * 8,
                panel="p",
            )
        )
        for step, loss in recorded
    ]
    folder.curve.write_text("".join(lines))
    folder.status.write_text(json.dumps(asdict(Status("ended", outcome="complete"))))


def write_runs(root: Path, runs: int, points: int) -> Path:
    for number in range(runs):
        write_run(RunFolder(root / f"{number:05d}"), number, points)
    return root


def timed(work: Callable[[], Result]) -> tuple[Result, str]:
    """What it gives, and its seconds."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    spent = time.process_time() - processor
    return result, f"{spent:.1f} s ({time.perf_counter() - clock:.1f} s by the clock)"


def measure(runs: int, points: int) -> str:
    """One line: reading and answering so many runs."""
    with tempfile.TemporaryDirectory() as folder:
        root = write_runs(Path(folder), runs, points)
        study, reading = timed(lambda: load_study(root))
        analysis, answering = timed(lambda: analyse(study))
    said = [cell.answer.status for cell in analysis.cells]
    return f"{runs} curves of {points} points: read {reading}, answered {answering}; {said.count('ok')} of {len(said)} ok"


def measure_reading(runs: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        root = write_runs(Path(folder), runs, 20)
        study, reading = timed(lambda: load_study(root))
    return f"{len(study.runs)} run folders of 20 points: read {reading}"


if __name__ == "__main__":
    if sys.argv[1:] == ["load"]:
        print(measure_reading(MANY))
    else:
        for count, evaluations in ((RUNS, POINTS), *OTHERS):
            print(measure(count, evaluations), flush=True)
