"""Studies beside each other: which cells match, what of them may be compared, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np

from analysis import words
from analysis.recommend import Analysis, CellResult
from analysis.run import NO_PANEL
from conf.errors import RequestError
from curves.recommendation import IDENTITY, CellAnswer
from curves.run_folder import read_json

SCHEMA = 1
LEVEL = 0.9  # of the intervals that are held against each other
DEVIATIONS = 1.645  # standard errors to either side that LEVEL spans
LOOSE = ("method", "images", "resolution", "captions")  # what cells of other images or weights are matched on
PANEL_PARTS = {  # key of panel.json -> what it is, as a reason names it
    "base": "base model weights",
    "images": "held-out images",
    "captions": "captions",
    "resolution": "resolution",
    "timesteps": "timesteps",
    "noise_seed": "noise",
    "dtype": "precision",
    "shape": "shape of the images",
}


@dataclass(frozen=True)
class Difference:
    """A study differs from the first one in a cell: their intervals do not overlap.

    Attributes:
        field: minimum, window (of the recommended steps) or gain.
        study: label of the study that differs.
        direction: later or earlier, larger or smaller than in the first.
    """

    field: str
    study: str
    direction: str


@dataclass(frozen=True)
class Entry:
    """One study's answer in a cell."""

    study: str
    result: CellResult
    seconds: float | None  # of training up to the recommended steps, on that study's machine

    @property
    def answer(self) -> CellAnswer:
        return self.result.answer


@dataclass(frozen=True)
class ComparedCell:
    """A cell with the answers of the studies that have it, in the order of the studies.

    Attributes:
        name: of the cell.
        entries: of the studies.
        other: levels that are not the same behind the same name, in words; empty where the cell is the same.
        losses: why held-out losses are not compared; empty where they are.
        steps: why steps are not compared; empty where they are.
        differences: from the first entry.
    """

    name: str
    entries: tuple[Entry, ...]
    other: str
    losses: str
    steps: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison shows."""

    studies: tuple[str, ...]
    analyses: tuple[Analysis, ...]
    cells: tuple[ComparedCell, ...]


def compare(analyses: Sequence[Analysis]) -> Comparison:
    """Match the cells of several studies and look for differences.

    Raises:
        RequestError: fewer than two studies, or one of them twice.
    """
    roots = [analysis.study.root.resolve() for analysis in analyses]
    twice = next((root for root in roots if roots.count(root) > 1), None)
    if len(roots) < 2 or twice is not None:
        said = f"{twice} is given twice" if twice is not None else f"only {roots[0]} is given"
        raise RequestError(f"compare: {said}; name two studies or more, each once")
    labels = _labels(analyses)
    rows = _matched(analyses)
    every = [cell.answer for analysis in analyses for cell in analysis.cells]
    names = [_name(row, every) for row in rows]
    cells = [
        _compared(name if names.count(name) == 1 else f"{name}, {names[:index].count(name) + 1}", row, labels)
        for index, (name, row) in enumerate(zip(names, rows, strict=True))
    ]
    return Comparison(tuple(labels), tuple(analyses), tuple(cells))


def _labels(analyses: Sequence[Analysis]) -> list[str]:
    """The studies' names, or their paths where two have one name."""
    names = [analysis.study.name for analysis in analyses]
    return names if len(set(names)) == len(names) else [str(analysis.study.root) for analysis in analyses]


def _matched(analyses: Sequence[Analysis]) -> list[dict[int, CellResult]]:
    """Rows of cells by index of the study: cells of one identity.

    Cells of other images or weights stand in one row where no study has two of the same method, number of images,
    resolution and captions: their steps are worth seeing beside each other.
    """
    loose: dict[tuple[Any, ...], list[tuple[int, CellResult]]] = {}
    for index, analysis in enumerate(analyses):
        for cell in analysis.cells:
            loose.setdefault(_key(cell, LOOSE, index), []).append((index, cell))
    rows: list[dict[int, CellResult]] = []
    for members in loose.values():
        if len({index for index, _ in members}) == len(members):
            rows.append(dict(members))
            continue
        exact: dict[tuple[Any, ...], dict[int, CellResult]] = {}
        for index, cell in members:
            exact.setdefault(_key(cell, IDENTITY, index), {})[index] = cell
        rows.extend(exact.values())
    return rows


def _key(cell: CellResult, names: Sequence[str], study: int) -> tuple[Any, ...]:
    """What must be equal; a run whose levels are not all known is like no other."""
    if cell.answer.run is not None:
        return (study, cell.answer.run)
    return tuple(getattr(cell.answer, name) for name in names)


def _name(row: dict[int, CellResult], every: Sequence[CellAnswer]) -> str:
    first = next(iter(row.values())).answer
    if first.run is not None:
        return first.run
    shown = [name for name in ("resolution", "captions") if name in words.varying_levels(every)]
    return ", ".join([first.method, words.images(first), *(words.level(first, name) for name in shown)])


def _compared(name: str, row: dict[int, CellResult], labels: Sequence[str]) -> ComparedCell:
    entries = tuple(Entry(labels[index], cell, seconds_to_train(cell)) for index, cell in row.items())
    other, losses, steps = _other(entries), _other_panels(entries), _other_steps(entries)
    found = [
        difference
        for entry in entries[1:]
        for difference in _differences(entries[0], entry, not losses, not steps)
    ]
    return ComparedCell(name, entries, other, losses, steps, tuple(found))


def seconds_to_train(cell: CellResult) -> float | None:
    """What the best run had taken by the recommended steps; None where it did not say, or was not so long."""
    steps = cell.answer.recommended_steps
    if steps is None or cell.shown is None:
        return None
    known = [(point.step, point.wall_s) for point in cell.shown.run.points if point.wall_s is not None]
    if len(known) < 2 or known[-1][0] < steps:
        return None
    return float(np.interp(steps, *np.array(known, dtype=float).T))


def _other(entries: Sequence[Entry]) -> str:
    """What is not the same although the cells stand in one row."""
    said = []
    for key, text in (("dataset", "images or captions"), ("base_id", "base model weights")):
        values = {entry.study: str(getattr(entry.answer, key))[:8] for entry in entries}
        if len(set(values.values())) > 1:
            said.append(f"other {text} ({', '.join(f'{study}: {value}' for study, value in values.items())})")
    return "; ".join(said)


def _other_panels(entries: Sequence[Entry]) -> str:
    """Why the losses were not measured on one panel; empty where they were."""
    if len(entries) < 2:
        return ""
    panels = {entry.study: _panels(entry) for entry in entries}
    if any(not names or NO_PANEL in names for names in panels.values()):
        unknown = [study for study, names in panels.items() if not names or NO_PANEL in names]
        return f"what {', '.join(unknown)} measured the held-out loss on is not known"
    if len(set.union(*map(set, panels.values()))) == 1:
        bare = [entry.study for entry in entries if not all(item.run.has_base for item in entry.result.best)]
        return f"{', '.join(bare)} did not measure the untouched base" if bare else ""
    parts = _differing_parts(entries)
    return f"the held-out losses were measured on other {' and '.join(parts) if parts else 'panels'}"


def _panels(entry: Entry) -> frozenset[str]:
    """Of all runs that the answer is made from."""
    return frozenset(name for item in entry.result.runs if item.run.points for name in item.run.panels)


def _differing_parts(entries: Sequence[Entry]) -> list[str]:
    """Which parts of panel.json differ, where every study's best run has one of its own."""
    records = []
    for entry in entries:
        shown = entry.result.shown
        if shown is None or shown.run.folds > 1:
            return []
        try:
            records.append(read_json(shown.run.folder.panel))
        except ValueError:
            return []
    first, *others = records
    return [
        text for key, text in PANEL_PARTS.items() if any(item.get(key) != first.get(key) for item in others)
    ]


def _other_steps(entries: Sequence[Entry]) -> str:
    """Why the steps are not of one kind; empty where they are."""
    units = {entry.study: item.run.step_unit for entry in entries for item in entry.result.runs[:1]}
    if len(set(units.values())) < 2:
        return ""
    return f"a step is not the same: {', '.join(f'{study}: {unit}' for study, unit in units.items())}"


def _differences(first: Entry, other: Entry, losses: bool, steps: bool) -> list[Difference]:
    """Where the intervals do not overlap; of losses and steps only where those may be compared."""
    fields = []
    if steps:
        fields += [("minimum", ("earlier", "later")), ("window", ("earlier", "later"))]
    if losses:
        fields += [("gain", ("smaller", "larger"))]
    found = []
    for field, (below, above) in fields:
        one, two = interval(first.answer, field), interval(other.answer, field)
        if one is not None and two is not None and (two[1] < one[0] or one[1] < two[0]):
            found.append(Difference(field, other.study, below if two[1] < one[0] else above))
    return found


def interval(cell: CellAnswer, field: str) -> tuple[float, float] | None:
    """Low and high of a field: of the minimum and the gain at LEVEL; the window as it is, open where the horizon ends it."""
    if field == "gain":
        if cell.gain is None or cell.gain_se is None or cell.status == "not_reached":
            return None
        return cell.gain - DEVIATIONS * cell.gain_se, cell.gain + DEVIATIONS * cell.gain_se
    if field == "minimum" and cell.minimum is not None:
        return cell.minimum["low"], cell.minimum["high"]
    if field == "window" and cell.window is not None:
        return cell.window["low"], math.inf if cell.window_open else cell.window["high"]
    return None


def as_record(comparison: Comparison) -> dict[str, Any]:
    """comparison.json."""
    return {
        "schema": SCHEMA,
        "studies": [
            {"label": label, "name": analysis.study.name, "path": str(analysis.study.root)}
            for label, analysis in zip(comparison.studies, comparison.analyses, strict=True)
        ],
        "level": LEVEL,
        "cells": [_cell_record(cell) for cell in comparison.cells],
    }


def _cell_record(cell: ComparedCell) -> dict[str, Any]:
    return {
        "name": cell.name,
        "other_levels": cell.other or None,
        "losses_not_compared": cell.losses or None,
        "steps_not_compared": cell.steps or None,
        "answers": [
            {"study": entry.study, **vars(entry.answer), "seconds": entry.seconds} for entry in cell.entries
        ],
        "differences": [vars(difference) for difference in cell.differences],
    }
