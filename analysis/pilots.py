"""Commands that make one more run of a study, so that the next analysis reads it."""

from __future__ import annotations

from collections.abc import Mapping
import math
from pathlib import Path
import re
import shlex
from typing import Any

import yaml

from analysis.load import PILOTS, Study
from analysis.run import Run
from conf.compose import options
from conf.quoting import override

# Said anew for each run, or of the sweep alone.
_OWN = (
    *(
        "dataset_size",
        "resolution",
        "method",
        "base_model",
        "seed",
        "study",
        "run_dir",
        "runs_dir",
        "stopping",
    ),
    *("budget", "experiment", "tracker", "sweep", "space", "launch", "dataset.fold", "dataset.folds"),
)


def pilot_command(study: Study, like: Run, levels: Mapping[str, Any], seed: int, max_steps: int) -> str:
    """`python train.py ...`: a run as `like`, but for its levels, its seed and its length.

    Args:
        like: the run whose overrides are taken over.
        levels: images, resolution (pixels), method, base_model, maybe dataset; what else is set, by key, None to its
            default.
        max_steps: at which it ends unless it has passed its minimum before.
    """
    own = {name: levels[name] for name in ("dataset", "method", "base_model") if name in levels}
    rest = {key: value for key, value in levels.items() if "." in key}
    name = f"n{levels['images']}-{levels['method']}-px{levels['resolution']}-seed{seed}"
    words = [
        *size_override(int(levels["images"])),
        *resolution_override(int(levels["resolution"])),
        *(override(key, value) for key, value in own.items()),
        *(item for item in _overrides(like) if _key(item) not in levels and not _is_own(item)),
        *(override(key, value) for key, value in rest.items() if value is not None),
        f"seed={seed}",
        "stopping=evidence",
        f"budget.max_steps={max_steps}",
        override("run_dir", str(_place(study) / re.sub(r"[^A-Za-z0-9_.-]+", "_", name))),
    ]
    return shlex.join(["python", "train.py", *words])


def next_seed(runs: list[Run]) -> int:
    """The lowest seed above those of the runs."""
    return 1 + max((run.facts.seed for run in runs if run.facts.seed is not None), default=-1)


def rounded_up(steps: float) -> int:
    """Two significant digits, no fewer steps."""
    unit = int(10 ** max(0, math.floor(math.log10(max(steps, 1))) - 1))
    return math.ceil(steps / unit) * unit


def _place(study: Study) -> Path:
    """Where analysis finds the run and a sweep does not look."""
    root = study.root
    return root / PILOTS if (root / "trials").is_dir() else root


def size_override(images: int) -> list[str]:
    """What asks for so many training images."""
    name = f"n{images}"
    return [f"dataset_size={name}"] if name in options("dataset_size") else [f"dataset_size.images={images}"]


def resolution_override(pixels: int) -> list[str]:
    """What asks for images of so many pixels a side."""
    name = f"px{pixels}"
    return [f"resolution={name}"] if name in options("resolution") else [f"resolution.pixels={pixels}"]


def _overrides(run: Run) -> list[str]:
    try:
        found = yaml.safe_load(run.folder.overrides.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def _key(item: str) -> str:
    return item.lstrip("+~").split("=", 1)[0]


def _is_own(item: str) -> bool:
    key = _key(item)
    return key in _OWN or key.split(".", 1)[0] in _OWN
