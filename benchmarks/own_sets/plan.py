"""Which runs are recorded: cells of image set, dataset size, resolution and base model, and their seeds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import itertools
from pathlib import Path

from benchmarks.own_sets.sets import SETS

SIZES = ("n4", "n8", "n16")
AXES_SETS = ("tango", "symbola", "stamps")
AXES_SIZES = ("n4", "n8")
RESOLUTIONS = ("px48", "px64", "px96")
BASES = ("tiny", "tiny2")
CALIBRATION_SEEDS = (0, 1)
HELD_OUT_SEED = 1000
# Long enough for the loss to rise again by a fifth of the gain or more; twice as long where it turns late.
STEPS = {"n4": 54, "n8": 91, "n16": 128}
LATE = ("photographs", "shapes", "silhouettes", "tiny2")


@dataclass(frozen=True)
class Cell:
    """What is fixed in all runs that are compared."""

    image_set: str
    size: str
    resolution: str = "px64"
    base_model: str = "tiny"

    @property
    def name(self) -> str:
        return f"{self.image_set}-{self.size}-{self.resolution}-{self.base_model}"

    @property
    def steps(self) -> int:
        """The horizon."""
        return STEPS[self.size] * (2 if {self.image_set, self.base_model} & set(LATE) else 1)

    def overrides(self, sets: Path, seed: int) -> list[str]:
        """What `train.py` is told."""
        return [
            "experiment=own_sets",
            f"dataset.path={sets / self.image_set}",
            f"dataset_size={self.size}",
            f"resolution={self.resolution}",
            f"base_model={self.base_model}",
            f"budget.max_steps={self.steps}",
            f"seed={seed}",
        ]


def size_cells() -> list[Cell]:
    """Every set at every size."""
    return [Cell(item.name, size) for item in SETS for size in SIZES]


def axes_cells() -> list[Cell]:
    """Three sets at two sizes, three resolutions and two bases, without what `size_cells` has already."""
    levels = itertools.product(AXES_SETS, AXES_SIZES, RESOLUTIONS, BASES)
    return [cell for cell in itertools.starmap(Cell, levels) if cell not in size_cells()]


def runs(part: str) -> Iterator[tuple[Cell, int]]:
    """Cells with the seeds of `calibration` or `held_out`; of `axes_cells` calibration has one seed."""
    seeds = (HELD_OUT_SEED,) if part == "held_out" else CALIBRATION_SEEDS
    for seed in seeds:
        yield from ((cell, seed) for cell in size_cells())
    yield from ((cell, seeds[0]) for cell in axes_cells())
