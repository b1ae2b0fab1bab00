"""Which runs are recorded: cells of image set, dataset size, resolution and base model, and their seeds."""

from __future__ import annotations

from dataclasses import dataclass
import itertools
from pathlib import Path

from benchmarks.own_sets.sets import SETS

SIZES = ("n4", "n8", "n16")
AXES_SETS = ("tango", "symbola", "stamps")
AXES_SIZES = ("n4", "n8")
RESOLUTIONS = ("px48", "px64", "px96")
BASES = ("tiny", "tiny2")
CALIBRATION_RUNS = 2
FIRST_HELD_OUT_SEED = 1000
# Long enough for the loss to rise again by a fifth of the gain or more; so many times longer where it turns late.
STEPS = {"n4": 54, "n8": 91, "n16": 128}
LONGER = {"photographs": 3, "shapes": 2, "silhouettes": 2, "tiny2": 2}
# Where the base has little to gain the usual rate passes the minimum within ten steps.
RATES = {"papirus": 1e-4, "stamps": 1e-4}
USUAL_RATE = 3e-4


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
        return STEPS[self.size] * max(LONGER.get(name, 1) for name in (self.image_set, self.base_model))

    def overrides(self, sets: Path, seed: int) -> list[str]:
        """What `train.py` is told."""
        return [
            "experiment=own_sets",
            f"dataset.path={sets / self.image_set}",
            f"dataset_size={self.size}",
            f"resolution={self.resolution}",
            f"base_model={self.base_model}",
            f"optimizer.lr={RATES.get(self.image_set, USUAL_RATE)}",
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


def runs(part: str) -> list[tuple[Cell, int]]:
    """Cells with the seeds of `calibration` or `held_out`.

    No two runs share a seed: runs of one seed draw the same timesteps and noise, whatever their images are, and would
    err together.
    """
    cells = size_cells() + axes_cells()
    if part == "held_out":
        return [(cell, FIRST_HELD_OUT_SEED + index) for index, cell in enumerate(cells)]
    seeds = range(CALIBRATION_RUNS)
    return [(cell, seed * len(cells) + index) for seed in seeds for index, cell in enumerate(cells)]
