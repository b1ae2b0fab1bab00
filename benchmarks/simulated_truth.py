"""Answers for curves of known truth from a family that is not the posterior's (benchmarks/random_features.py).

    python -m benchmarks.simulated_truth [WORLDS]

Every fine-tuning of WORLDS (8) worlds on 5 to 80 images is recorded with three scatters and two learning rates, 30 curves
a world, up to 0.5, 0.8, 1.5 and 3 times the step of its minimum, and answered as a run of its own. Beside them curves that
never improve. Prints one line a cut: statuses, whether bounds and 90 % intervals hold, their high/low, and the regret at
the recommended steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import sys
import time

import numpy as np

from benchmarks.random_features import Trainer, Truth, fine_tune
from curves.answer import Answer, answer
from curves.posterior import fit

WORLDS = 8
IMAGES = (5, 10, 20, 40, 80)
SCATTERS = (0.005, 0.015, 0.03)
TRAINERS = ((5e-5, 0), (4e-4, 50))  # learning rate, warm-up steps
CUTS = (0.5, 0.8, 1.5, 3.0)
HORIZONS = (2.0, 6.0)  # in minima: the run is planned for something between these


@dataclass(frozen=True)
class Case:
    """One simulated run, its truth, and what its curve was answered with."""

    truth: Truth
    trainer: Trainer
    cut: float
    said: Answer

    @property
    def best(self) -> int:
        return self.trainer.best_step(self.truth)

    @property
    def holds(self) -> bool:
        """Whether the interval of the minimum holds; no interval holds nothing."""
        interval = self.said.minimum or self.said.expected_minimum
        return interval is not None and interval.low <= self.best <= interval.high

    @property
    def width(self) -> float:
        """high/low of the interval; nan without one."""
        interval = self.said.minimum or self.said.expected_minimum
        return float("nan") if interval is None else interval.high / max(interval.low, 1)

    @property
    def bound_holds(self) -> bool:
        return self.said.lower_bound is not None and self.said.lower_bound <= self.best

    @property
    def regret(self) -> float:
        """Of the recommended steps, in gain; nan without an answer."""
        steps = self.said.recommended_steps
        if steps is None:
            return float("nan")
        return self.truth.regret(float(self.trainer.schedule(max(steps, 1)).lr_sum[-1]))


def settings(worlds: int) -> Iterator[tuple[int, int, Trainer]]:
    """World, number of images and trainer of every curve."""
    for world in range(worlds):
        for images in IMAGES:
            for place, scatter in enumerate(SCATTERS):
                for lr, warmup in TRAINERS:
                    yield world, images, Trainer(lr, scatter, warmup, seed=10 * world + place)


def answer_run(truth: Truth, trainer: Trainer, cut: float) -> Case:
    """A run that is recorded up to cut times the intrinsic time of its minimum, or of its early rise."""
    scale = max(round(truth.scale / trainer.lr + 0.5 * max(trainer.warmup - 1, 0)), 8)
    random = np.random.default_rng([trainer.seed, scale])
    horizon = int(scale * max(np.exp(random.uniform(*np.log(HORIZONS))), cut))
    schedule = trainer.schedule(horizon)
    posterior = fit(
        trainer.record(truth, max(int(cut * scale), 5)), horizon_lr_sum=float(schedule.lr_sum[-1])
    )
    return Case(truth, trainer, cut, answer(posterior, schedule))


def line(cases: Sequence[Case]) -> str:
    """Shares and medians of one group."""
    said = [case.said.status for case in cases]
    shares = ", ".join(
        f"{name} {100 * np.mean([s == name for s in said]):.0f} %" for name in sorted(set(said))
    )
    bounded = [case for case in cases if case.said.lower_bound is not None]
    wide = np.array([case.width for case in cases])
    given = [case for case, width in zip(cases, wide, strict=True) if np.isfinite(width)]
    regrets = np.array([case.regret for case in cases])
    parts = [f"{len(cases)} curves: {shares}"]
    if bounded:
        parts.append(f"bounds hold {100 * np.mean([case.bound_holds for case in bounded]):.0f} %")
    if given:
        parts.append(f"intervals hold {100 * np.mean([case.holds for case in given]):.0f} %")
        parts.append(f"high/low {np.nanmedian(wide):.2f}")
    if np.isfinite(regrets).any():
        parts.append(f"regret {np.nanmedian(regrets):.3f}, mean {np.nanmean(regrets):.3f}")
    return "; ".join(parts)


def never_improving(worlds: int) -> list[tuple[Truth, Trainer]]:
    """Fine-tunings measured on images that the base knows, where no step is better than the base."""
    pairs = ((fine_tune(world, images, useful=False), trainer) for world, images, trainer in settings(worlds))
    return [(truth, trainer) for truth, trainer in pairs if truth.best == 0]


def main(worlds: int) -> None:
    started = time.perf_counter()
    runs = [(fine_tune(world, images), trainer) for world, images, trainer in settings(worlds)]
    for cut in CUTS:
        cases = [answer_run(truth, trainer, cut) for truth, trainer in runs if truth.best > 0]
        print(f"cut at {cut} of the minimum: {line(cases)}", flush=True)
        for scatter in SCATTERS:
            print(f"    scatter {scatter}: {line([c for c in cases if c.trainer.scatter == scatter])}")
        for images in IMAGES:
            chosen = [c for c, (w, n, t) in zip(cases, settings(worlds), strict=False) if n == images]
            print(f"    {images} images: {line(chosen)}")
    cases = [answer_run(truth, trainer, 2.0) for truth, trainer in never_improving(worlds)]
    print(f"never improving: {line(cases)}")
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS)
