"""One run of another tool becomes a run folder of the file contract (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
import math
from pathlib import Path
import re
from typing import Any

import numpy as np

from analysis.importing.log import Log, Record, Series, in_order
from analysis.importing.settings import logged_accumulation, logged_settings
from analysis.importing.tags import IMAGES, MICRO_STEPS, UNKNOWN, UPDATES, Tags, Wanted, choose, listed
from curves.point import Point, format_point
from curves.run_folder import RunFacts, RunFolder, Status, write_atomically

IDENTITY = ("dataset", "dataset_size", "resolution", "method", "base_model")  # all known: a cell is shared
HYPERPARAMETERS = ("lr", "batch", "rank", "schedule", "optimizer")
LONGEST_NAME = 120  # characters of a folder's name
RATE_TOLERANCE = 0.02


@dataclass(frozen=True)
class Imported:
    """A run that is ready to be written."""

    name: str
    facts: RunFacts
    points: tuple[Point, ...]
    diverged: bool
    notes: tuple[str, ...]

    @property
    def evaluations(self) -> int:
        return sum(point.val_loss is not None for point in self.points)

    @property
    def has_base(self) -> bool:
        """Whether the untouched base was measured."""
        return self.points[0].step == 0 and self.points[0].val_loss is not None


@dataclass(frozen=True)
class Steps:
    """How logged steps become optimizer updates; `unit` is what they are afterwards."""

    unit: str
    per_update: int
    first: int


def convert(
    log: Log, wanted: Wanted, told: Mapping[str, Any], per_update: int | None, source: str
) -> Imported:
    """One log as a run.

    Args:
        wanted: tags that the user names.
        told: values of `--set`; they win over what the log says.
        per_update: logged steps an update; None where nobody said.
        source: tensorboard, wandb or csv.

    Raises:
        ValueError: there is no loss in it, or what was told contradicts it.
    """
    tags = choose(log.values, wanted)
    if tags.held_out is None and tags.training is None:
        said = f" ({'; '.join(log.notes)})" if log.notes else ""
        raise ValueError(
            f"no loss was found{said}; name it with --val TAG or --train TAG. Tags: {listed(log.values)}"
        )
    settings = {**_agreeing(logged_settings(log.settings), told), **told}
    steps = count_steps(log, tags, per_update, settings)
    series = {name: _series(log, tag, tags, steps, name) for name, tag in _chosen(tags).items()}
    points = make_points(series, settings, steps.unit)
    if not points:
        raise ValueError(
            f"no finite loss at a whole step ({'; '.join(_notes(log, series)) or 'the log is empty'})"
        )
    facts = make_facts(log, tags, steps, settings, points, source)
    diverged = any(item.diverged_from is not None for name, item in series.items() if name == "val_loss")
    return Imported(folder_name(log.name), facts, points, diverged, tuple(_notes(log, series)))


def _agreeing(logged: Mapping[str, Any], told: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the log says.

    Raises:
        ValueError: something else was told of a number.
    """
    for name in told.keys() & logged.keys():
        value = logged[name]
        if not isinstance(value, str) and not math.isclose(value, told[name], rel_tol=RATE_TOLERANCE):
            raise ValueError(f"--set {name}={told[name]}: the log says {value}")
    return logged


def _chosen(tags: Tags) -> dict[str, str]:
    """Name in a point -> tag, of those that there are."""
    chosen = {
        "val_loss": tags.held_out,
        "train_loss": tags.training,
        "lr": tags.learning_rate,
        "train_panel_loss": tags.probe,
    }
    return {name: tag for name, tag in chosen.items() if tag is not None}


def count_steps(log: Log, tags: Tags, per_update: int | None, settings: Mapping[str, Any]) -> Steps:
    """What one logged step is, and how many make an update."""
    tool = tags.tool
    if per_update is None and log.counts_calls and tool.logs_without_step:
        return Steps(UNKNOWN, 1, tool.first)
    known = per_update
    if known is None and tool.counts == IMAGES:
        known = settings.get("batch")
    elif known is None:
        known = logged_accumulation(log.settings) if tool.counts == MICRO_STEPS else None
    if known is None:
        return Steps(tool.counts, 1, tool.first)
    return Steps(UPDATES, known, tool.first)


def _series(log: Log, tag: str, tags: Tags, steps: Steps, name: str) -> Series:
    records = log.values[tag]
    notes: tuple[str, ...] = ()
    if log.clock != "row" and tags.tool.counts_epochs(tag):
        clock = log.values.get(tags.training or "", []) if log.clock == "order" else []
        if not clock:
            raise ValueError(f"{tag} counts epochs, and nothing in the log says at which steps they ended")
        records, notes = (
            _at_steps(records, clock),
            (f"{tag} counts epochs: put at the step logged before it",),
        )
    found = in_order(records, per_update=steps.per_update, first=steps.first, mean=name == "train_loss")
    return replace(found, notes=(*notes, *found.notes))


def _at_steps(records: list[Record], clock: list[Record]) -> list[Record]:
    """Records whose step is an epoch, at the step of the training loss that was written before them."""
    orders = np.array([item.order for item in clock])
    before = np.searchsorted(orders, [item.order for item in records]) - 1
    return [
        item._replace(step=clock[place].step)
        for item, place in zip(records, before, strict=True)
        if place >= 0
    ]


def make_points(series: Mapping[str, Series], settings: Mapping[str, Any], unit: str) -> tuple[Point, ...]:
    """The curve: a point at every step of a loss, with the sum of the learning rate where its curve was logged.

    Raises:
        ValueError: a loss of the base was told, and the log has an evaluation at step 0 already.
    """
    losses = [item.values for name, item in series.items() if name != "lr"]
    grid = sorted(set().union(*losses))
    sums = _lr_sums(series.get("lr"), grid)
    held_out = dict(series["val_loss"].values) if "val_loss" in series else {}
    base = settings.get("base_loss")
    if base is not None and held_out:
        if 0 in held_out:
            raise ValueError(
                f"--set base_loss={base}: the log has a held-out loss at step 0, {held_out[0]:g}"
            )
        held_out[0] = base
        if not grid or grid[0] != 0:
            grid, sums = [0, *grid], None if sums is None else [0.0, *sums]
    batch = settings.get("batch") if unit == UPDATES else None
    points = [
        Point(
            step=step,
            images_seen=None if batch is None else step * int(batch),
            lr=_at(series, "lr", step),
            lr_sum=None if sums is None else sums[place],
            train_loss=_at(series, "train_loss", step),
            val_loss=held_out.get(step),
            delta=held_out[step] - held_out[0] if step in held_out and 0 in held_out else None,
            train_panel_loss=_at(series, "train_panel_loss", step),
        )
        for place, step in enumerate(grid)
    ]
    end = series["val_loss"].diverged_from if "val_loss" in series else None
    return tuple(points if end is None else [*(p for p in points if p.step < end), _diverged(end)])


def _diverged(step: int) -> Point:
    return Point(step=step, extra={"diverged": True})


def _at(series: Mapping[str, Series], name: str, step: int) -> float | None:
    return series[name].values.get(step) if name in series else None


def _lr_sums(rates: Series | None, grid: list[int]) -> list[float] | None:
    """Sum of the learning rate over the updates up to each step; between two records of it linear."""
    if rates is None or not rates.values or not grid or max(rates.values.values()) <= 0:
        return None
    steps = sorted(rates.values)
    knots = np.union1d([0], np.union1d(steps, grid))
    heights = np.interp(knots, steps, [max(rates.values[step], 0.0) for step in steps])
    areas = np.concatenate([[0.0], np.cumsum(np.diff(knots) * (heights[1:] + heights[:-1]) / 2)])
    sums = areas + (heights - heights[0]) / 2  # Euler and Maclaurin: exact, since the knots are whole steps
    return [float(value) for value in sums[np.searchsorted(knots, grid)]]


def make_facts(
    log: Log, tags: Tags, steps: Steps, settings: Mapping[str, Any], points: tuple[Point, ...], source: str
) -> RunFacts:
    """run.json. What is not known is null.

    Raises:
        ValueError: the learning rate that was told is not the logged one.
    """
    last = points[-1].step
    rates = [point.lr for point in points if point.lr is not None and point.lr > 0]
    lr = settings.get("lr") or (max(rates) if rates else None)
    if lr is not None and rates and not abs(max(rates) / lr - 1) < RATE_TOLERANCE:
        raise ValueError(f"lr={lr:g}: its curve in the log, {tags.learning_rate}, peaks at {max(rates):g}")
    horizon = max(last, 1)
    if steps.unit == UPDATES:
        horizon = max(horizon, int(settings.get("horizon") or 1))
    known = {"lr": lr, **{name: settings[name] for name in HYPERPARAMETERS if settings.get(name) is not None}}
    images = settings.get("dataset_size")
    panel = settings.get("panel")
    return RunFacts(
        cell={
            "dataset_size": None if images is None else f"n{images}",
            "images": images,
            "base_id": settings.get("base_model"),
            **{
                name: settings.get(name)
                for name in ("resolution", "method", "base_model", "dataset", "captions")
            },
        },
        hyperparameters={name: value for name, value in known.items() if value is not None},
        seed=settings.get("seed"),
        horizon=horizon,
        horizon_lr_sum=_horizon_lr_sum(points, horizon, lr),
        # Another trainer measures with other timesteps and noise, whatever the images are called.
        panel=None if panel is None else f"{panel} ({tags.tool.name})",
        images=images,
        extra={"imported": _provenance(log, tags, steps, source)},
    )


def _provenance(log: Log, tags: Tags, steps: Steps, source: str) -> dict[str, Any]:
    """Where a run comes from and what was understood of it."""
    return {
        "source": source,
        "path": log.source,
        "run": log.name,
        "tool": tags.tool.name,
        "tags": _chosen(tags),
        "steps": steps.unit,
        "steps_per_update": steps.per_update,
        "logged": logged_settings(log.settings),
        "notes": log.notes,
    }


def _horizon_lr_sum(points: tuple[Point, ...], horizon: int, lr: float | None) -> float:
    """Up to the horizon, the last learning rate going on; without a learning rate, time is counted in steps."""
    last = points[-1]
    summed = next((point for point in reversed(points) if point.lr_sum), None)
    if summed is None or not summed.lr_sum:
        return horizon * (lr or 1.0)
    rate = next((point.lr for point in reversed(points) if point.lr), lr or 0.0)
    return summed.lr_sum + (horizon - last.step) * rate


def folder_name(name: str) -> str:
    """A run's name as the name of one folder."""
    plain = re.sub(r"[^\w.+=@]+", "-", name).strip("-.") or "run"
    return plain[:LONGEST_NAME]


def _notes(log: Log, series: Mapping[str, Series]) -> list[str]:
    found = [f"{name}: {note}" for name, item in series.items() for note in item.notes]
    found += [f"{name}: not finite from step {item.diverged_from} on" for name, item in series.items()
              if item.diverged_from is not None]  # fmt: skip
    return list(dict.fromkeys([*log.notes, *found]))


def write(run: Imported, to: Path) -> RunFolder:
    """Write the run folder; run.json last, so that a folder that has it is whole."""
    folder = RunFolder(to / run.name)
    folder.path.mkdir(parents=True)
    write_atomically(folder.curve, "".join(map(format_point, run.points)))
    last, horizon = run.points[-1].step, run.facts.horizon
    outcome = "diverged" if run.diverged else "complete" if last >= horizon else "stopped"
    reason = "" if outcome == "complete" else f"the imported log ends at step {last}"
    folder.write_status(Status(state="ended", step=last, outcome=outcome, reason=reason, max_steps=horizon))
    folder.write_facts(run.facts)
    return folder
