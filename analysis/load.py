"""From folders to cells: which runs there are, which can be read, and what of their curves may be used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
import contextlib
from dataclasses import dataclass
import difflib
import gc
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from analysis.folds import join_folds
from analysis.run import Run
from conf.errors import RequestError, WorkError
from curves.point import Point
from curves.posterior import Curve
from curves.recommendation import IDENTITY
from curves.run_folder import RunFacts, RunFolder, find_runs

PROJECT_ROOT = Path(__file__).resolve().parents[1]
TRACES = (
    "run.json",
    "config.yaml",
    "curve.jsonl",
    "status.json",
    "verdict.json",
)  # files that make a folder a run's
PILOTS = "pilots"  # runs of a study that its sweep did not make: analysis reads them, the sweep does not
POINT_KINDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    *((name, (int, float), "number") for name in ("val_loss", "lr_sum", "delta", "train_loss")),
    ("image_loss", (list,), "list"),
    ("panel", (str,), "str"),
)  # of what is computed with later
LEVELS = ("dataset_size", "base_model")  # of a cell beside its identity


@dataclass(frozen=True)
class Cell:
    """The runs of one combination of levels."""

    identity: dict[str, Any]  # curves.recommendation.IDENTITY
    runs: tuple[Run, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """All levels of the cell, as its first run has them."""
        return self.runs[0].facts.cell


@dataclass(frozen=True)
class Study:
    """What was found below one path."""

    root: Path
    name: str
    cells: tuple[Cell, ...]
    damaged: tuple[tuple[str, str], ...]  # name of a run folder that was left out, and why

    @property
    def runs(self) -> list[Run]:
        return [run for cell in self.cells for run in cell.runs]


def load_study(request: str | Path) -> Study:
    """Read a study, a folder of run folders or one run folder; `demo` also finds `runs/demo`.

    Raises:
        RequestError: no such folder, or no run in it.
        WorkError: there are runs and none can be used.
    """
    root = find_root(request)
    folders = find_runs(root)
    damaged = _without_facts(root, {folder.path for folder in folders})
    if (root / "trials").is_dir():
        folders += find_runs(root / PILOTS)
    runs: list[Run] = []
    with _nothing_to_collect():
        for folder in folders:
            try:
                runs.append(read_run(folder))
            except (ValueError, OSError) as error:
                damaged.append((folder.path.name, _shortened(str(error), folder.path)))
    if not runs and not damaged:
        raise RequestError(f"{request}: there are no runs in this folder{_neighbours(root.name)}")
    name = _study_name(root, runs) if runs else ""
    runs, incomplete = join_folds(runs)
    damaged += incomplete
    if not runs:
        listed = "; ".join(f"{name}: {reason}" for name, reason in damaged[:5])
        raise WorkError(f"{request}: none of {len(damaged)} run folders can be used: {listed}")
    return Study(root, name, tuple(group_cells(runs)), tuple(sorted(damaged)))


@contextlib.contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Points hold no cycles: looking for some among those of thousands of runs is a tenth of reading them."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def find_root(request: str | Path) -> Path:
    """The folder that is meant: as given, or below the project's runs folder.

    Raises:
        RequestError: there is none; the nearest names are listed.
    """
    given = Path(request).expanduser()
    candidates = [given, Path("runs") / given, PROJECT_ROOT / given, PROJECT_ROOT / "runs" / given]
    for path in candidates:
        if path.is_dir():
            return path
    if given.is_file():
        raise RequestError(f"{request}: is a file; give the folder of a study or of a run")
    raise RequestError(f"{request}: there is no such folder{_neighbours(given.name)}")


def read_run(folder: RunFolder) -> Run:
    """One run folder.

    Raises:
        ValueError: run.json or curve.jsonl is damaged; the message names file and fault.
    """
    facts = folder.read_facts()
    try:
        _check_facts(facts)
    except ValueError as error:
        raise ValueError(f"{folder.run}: {error}") from error
    points = folder.points()
    last = points[-1].step if points else 0
    try:
        _check_points(points)
        run = Run(folder, facts, tuple(_evaluations(points)), last, folder.outcome())
        _check_curve(run.curve())
    except (ValueError, TypeError) as error:
        raise ValueError(f"{folder.curve}: {error}") from error
    return run


def _check_facts(facts: RunFacts) -> None:
    """Everything of run.json that is computed with later, so that damage costs this run and no other."""
    for name in ("cell", "hyperparameters"):
        if not isinstance(getattr(facts, name), dict):
            raise ValueError(f"{name}={getattr(facts, name)!r} is no mapping")
    for name in (*IDENTITY, *LEVELS):
        if name not in facts.cell:
            raise ValueError(f"the cell has no '{name}'")
    imported = (
        "imported" in facts.extra
    )  # of another tool's log the learning rate and the levels may be unknown
    if not (imported and facts.hyperparameters.get("lr") is None):
        _check_positive("lr", facts.hyperparameters.get("lr"))
    _check_positive("horizon_lr_sum", facts.horizon_lr_sum)
    _check_count("horizon", facts.horizon)
    for name, count in (
        ("images", facts.images),
        ("images", facts.cell["images"]),
        ("resolution", facts.cell["resolution"]),
    ):
        if not (imported and count is None):
            _check_count(name, count)
    for name, least in (("batch", 1), ("warmup_steps", 0)):
        if facts.hyperparameters.get(name) is not None:
            _check_count(name, facts.hyperparameters[name], least)
    _check_fold(facts)
    for name in ("study", "panel"):
        if not isinstance(getattr(facts, name), str | None):
            raise ValueError(f"{name}={getattr(facts, name)!r} is no text")


def _check_fold(facts: RunFacts) -> None:
    if facts.fold is None and facts.folds is None:
        return
    _check_count("folds", facts.folds, 2)
    _check_count("fold", facts.fold, 0)
    if (facts.fold or 0) >= (facts.folds or 0):
        raise ValueError(f"fold={facts.fold} is none of {facts.folds} folds")


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"{name}={value!r} is no positive number")


def _check_count(name: str, value: object, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}={value!r} is no whole number from {least}")


def _check_points(points: list[Point]) -> None:
    for point in points:
        for name, kind, text in POINT_KINDS:
            value = getattr(point, name)
            if value is not None and (not isinstance(value, kind) or value is True or value is False):
                raise ValueError(f"step {point.step}: {name}={value!r} is no {text}")


def _check_curve(curve: Curve) -> None:
    """The intrinsic time never runs backwards: a schedule is read from it."""
    if not np.isfinite(curve.lr_sum).all() or (curve.lr_sum < 0).any() or (np.diff(curve.lr_sum) < 0).any():
        raise ValueError("lr_sum is not finite, or falls")


def group_cells(runs: Iterable[Run]) -> list[Cell]:
    """Runs by cell identity; cells by method, base, resolution and number of images.

    A run whose identity is not fully known, from another tool's log, is a cell of its own.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        identity = [run.facts.cell[name] for name in IDENTITY]
        key = json.dumps([*identity, run.name if run.unknown else None], sort_keys=True, default=str)
        groups.setdefault(key, []).append(run)
    cells = [
        Cell({name: group[0].facts.cell[name] for name in IDENTITY}, tuple(group))
        for group in groups.values()
    ]
    return sorted(cells, key=_cell_order)


def _cell_order(cell: Cell) -> tuple[str, str, int, str, str, int, str]:
    facts = cell.facts
    order = (str(facts["method"]), str(facts["base_model"]), int(facts["resolution"] or 0))
    images = int(facts["images"] or 0)
    return (*order, str(facts["dataset"]), str(facts["captions"]), images, cell.runs[0].name)


def _evaluations(points: list[Point]) -> list[Point]:
    """Points with a held-out loss, up to the first one that diverged."""
    kept: list[Point] = []
    for point in points:
        if point.extra.get("diverged"):
            break
        if point.val_loss is not None and math.isfinite(point.val_loss):
            kept.append(point)
    return kept


def _without_facts(root: Path, known: set[Path]) -> list[tuple[str, str]]:
    """Folders that look like a run's and have no run.json."""
    parent = root / "trials" if (root / "trials").is_dir() else root
    missing = []
    for path in sorted(item for item in parent.iterdir() if item.is_dir()):
        if path not in known and any((path / name).exists() for name in TRACES):
            status = RunFolder(path).read_status()
            outcome = RunFolder(path).outcome()
            said = (
                f" ({outcome}{f': {status.reason}' if status and status.reason else ''})" if outcome else ""
            )
            missing.append((path.name, f"no run.json{said}"))
    return missing


def _study_name(root: Path, runs: list[Run]) -> str:
    """The study that all runs say they belong to, else the folder's name."""
    named = {run.facts.study for run in runs}
    only = named.pop() if len(named) == 1 else None
    return Path(only).name if only else root.resolve().name


def _neighbours(name: str) -> str:
    """What could have been meant, for an error message."""
    valid: list[str] = []
    for parent in (Path("runs"), PROJECT_ROOT / "runs"):
        if parent.is_dir():
            valid.extend(item.name for item in sorted(parent.iterdir()) if item.is_dir() and find_runs(item))
    valid = list(dict.fromkeys(valid))
    if not valid:
        return "; runs/ holds no runs yet: make some with `python -m sweep run experiment=demo`"
    near = difflib.get_close_matches(name, valid, n=3, cutoff=0.5)
    ordered = near + [item for item in valid if item not in near]
    return f"; with runs: {', '.join(f'runs/{item}' for item in ordered[:8])}"


def _shortened(message: str, folder: Path) -> str:
    """The message with paths relative to the run folder."""
    return message.replace(f"{folder}/", "")
