"""Folds: the runs of one parameter set and seed, each with other images held out, become one curve over all images.

Source: docs/method.md, section 6. A fold's own curve is that of an image or two; only together they are a panel.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
import hashlib
import json

import numpy as np

from analysis.run import NO_PANEL, Run
from curves.panel import paired_difference, standard_error
from curves.point import Point
from curves.recommendation import IDENTITY

FEWEST_IMAGES = 4  # that a set with missing folds must still measure
FAILED = ("crashed", "out_of_memory", "config_error")  # outcomes after which a fold counts as missing
LeftOut = tuple[str, str]  # name of a run folder, and why


def join_folds(runs: Iterable[Run]) -> tuple[list[Run], list[LeftOut]]:
    """Every set of folds as one run, other runs as they are; and the sets that cannot be used, by their first run."""
    whole: list[Run] = []
    sets: dict[str, list[Run]] = {}
    for run in runs:
        if run.facts.folds is None:
            whole.append(run)
        else:
            sets.setdefault(_set_key(run), []).append(run)
    joined: list[Run] = []
    left_out: list[LeftOut] = []
    for members in sets.values():
        try:
            joined.append(join(members))
        except ValueError as error:
            left_out.append((members[0].name, str(error)))
    kept, others = _of_one_panel(joined)
    return whole + kept, left_out + others


def join(members: Sequence[Run]) -> Run:
    """One run over all images that the folds hold out: their losses side by side, at the steps that all have.

    Args:
        members: runs of one cell, parameter set, seed and number of folds. Of two runs of a fold the longer counts.

    Raises:
        ValueError: folds are missing and fewer than FEWEST_IMAGES images remain, or the folds share no step 0.
    """
    parts = _usable(members)
    images = sum(len(part.points[0].image_loss or ()) for part in parts)
    folds = members[0].facts.folds or 0
    if len(parts) < folds and images < FEWEST_IMAGES:
        raise ValueError(
            f"{len(parts)} of its {folds} folds can be used ({_missing(members, parts)}), which measure {images} "
            f"images; {FEWEST_IMAGES} are needed"
        )
    tables = [{point.step: point for point in part.points} for part in parts]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    if not steps or steps[0] != 0:
        raise ValueError("its folds have no common evaluation of the untouched base")
    names = sorted(name for part in parts for name in part.panels)
    panel = None if NO_PANEL in names else hashlib.sha256("|".join(names).encode()).hexdigest()[:12]
    start = _image_loss([table[0] for table in tables])
    points = tuple(_joined_point([table[step] for table in tables], start, panel) for step in steps)
    first = parts[0]
    facts = replace(first.facts, panel=panel, fold=None, folds=None)
    last_step = min(part.last_step for part in parts)
    return Run(first.folder, facts, points, last_step, _outcome(parts), folds=len(parts))


def _set_key(run: Run) -> str:
    facts = run.facts
    values = [[facts.cell[name] for name in IDENTITY], facts.hyperparameters, facts.seed, facts.folds]
    return json.dumps(values, sort_keys=True, default=str)


def _usable(members: Sequence[Run]) -> list[Run]:
    """One run a fold, in the order of the folds: those that did not fail and measure the same images at every point."""
    chosen: dict[int, Run] = {}
    for run in members:
        counts = {len(point.image_loss or ()) for point in run.points}
        if run.outcome in FAILED or len(counts) != 1 or 0 in counts:
            continue
        fold = run.facts.fold or 0
        if fold not in chosen or len(run.points) > len(chosen[fold].points):
            chosen[fold] = run
    return [chosen[fold] for fold in sorted(chosen)]


def _missing(members: Sequence[Run], parts: Sequence[Run]) -> str:
    """The folds that cannot be used, and what became of them."""
    there = {part.facts.fold for part in parts}
    said = {run.facts.fold: run.outcome or "without an evaluation" for run in members}
    folds = (fold for fold in range(members[0].facts.folds or 0) if fold not in there)
    return ", ".join(f"fold {fold} {said.get(fold, 'missing')}" for fold in folds)


def _joined_point(points: Sequence[Point], start: np.ndarray, panel: str | None) -> Point:
    """One step of all folds; the learning rate is the same in all of them, and time is spent in each."""
    losses = _image_loss(points)
    delta, delta_se = paired_difference(losses, start)
    first = points[0]
    return Point(
        step=first.step,
        images_seen=first.images_seen,
        wall_s=sum(point.wall_s or 0.0 for point in points),
        lr=first.lr,
        lr_sum=first.lr_sum,
        train_loss=_mean([point.train_loss for point in points]),
        val_loss=float(losses.mean()),
        val_se=standard_error(losses),
        delta=delta,
        delta_se=delta_se,
        image_loss=[float(loss) for loss in losses],
        train_panel_loss=_mean([point.train_panel_loss for point in points]),
        class_panel_loss=_mean([point.class_panel_loss for point in points]),
        panel=panel,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Over the folds; None where one has no value, for the mean would be of other images at every step."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _image_loss(points: Sequence[Point]) -> np.ndarray:
    """(images,) over all folds."""
    return np.concatenate([np.asarray(point.image_loss, dtype=float) for point in points])


def _outcome(parts: Sequence[Run]) -> str | None:
    """None while a fold runs; else what ended the first fold that is not complete."""
    outcomes = [part.outcome for part in parts]
    if None in outcomes:
        return None
    return next((outcome for outcome in outcomes if outcome != "complete"), "complete")


def _of_one_panel(joined: Sequence[Run]) -> tuple[list[Run], list[LeftOut]]:
    """Of every cell the runs on its largest panel, of equals the most common: others cannot be compared with them."""
    cells: dict[str, list[Run]] = {}
    for run in joined:
        cells.setdefault(json.dumps([run.facts.cell[name] for name in IDENTITY], default=str), []).append(run)
    kept: list[Run] = []
    left_out: list[LeftOut] = []
    for runs in cells.values():
        panels = [run.panels for run in runs]
        best = max(runs, key=lambda run: (len(run.points[0].image_loss or ()), panels.count(run.panels)))
        for run in runs:
            if run.panels == best.panels:
                kept.append(run)
            else:
                reason = f"its {run.folds} folds measure other images than the {best.folds} of {best.name}"
                left_out.append((run.name, reason))
    return kept, left_out
