"""Recorded runs as one small file, and as run folders again.

A file is gzipped JSON: a list of runs, each with its folder's name, run.json, outcome, and its points as one column a
field. Numbers are rounded when they are packed; what is packed comes back as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
import gzip
import json
from pathlib import Path
from typing import Any

from curves.point import Point
from curves.run_folder import RunFolder, Status, read_json, write_json

DIGITS = 7  # significant, of a single number
LIST_DIGITS = 5  # of one of an image's or a stratum's losses
FIELDS = tuple(item.name for item in fields(Point))


@dataclass(frozen=True)
class RecordedRun:
    """What analysis needs of a run.

    Attributes:
        name: of its folder.
        facts: run.json as it stands there.
        outcome: complete, diverged, ...
        points: of its curve.
    """

    name: str
    facts: dict[str, Any]
    outcome: str
    points: tuple[Point, ...]


def read_run(folder: RunFolder) -> RecordedRun:
    """A finished run, its numbers rounded.

    Raises:
        ValueError: it has not ended, or a file is damaged.
    """
    outcome = folder.outcome()
    if outcome is None:
        raise ValueError(f"{folder.path}: the run has not ended")
    return RecordedRun(
        folder.path.name, read_json(folder.run), outcome, tuple(map(_rounded, folder.points()))
    )


def pack(runs: Sequence[RecordedRun], path: Path) -> None:
    """Write the file; the same runs give the same bytes."""
    record = [
        {"name": run.name, "facts": run.facts, "outcome": run.outcome, "points": _columns(run.points)}
        for run in runs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> list[RecordedRun]:
    """The runs of a file."""
    record = json.loads(gzip.decompress(path.read_bytes()))
    return [RecordedRun(**{**item, "points": _points(item["points"])}) for item in record]


def unpack(path: Path, to: Path) -> list[RunFolder]:
    """Lay the runs of a file out as run folders below a folder."""
    folders = []
    for run in load(path):
        folder = RunFolder(to / run.name)
        folder.path.mkdir(parents=True)  # never over another run
        write_json(folder.run, run.facts)
        for point in run.points:
            folder.append_point(point)
        last = run.points[-1].step if run.points else 0
        folder.write_status(Status("ended", step=last, outcome=run.outcome))
        folders.append(folder)
    return folders


def _columns(points: Sequence[Point]) -> dict[str, list[Any]]:
    """One list a field; fields that no point has are left out."""
    columns = {name: [getattr(point, name) for point in points] for name in FIELDS}
    return {
        name: column for name, column in columns.items() if any(value not in (None, {}) for value in column)
    }


def _points(columns: dict[str, list[Any]]) -> tuple[Point, ...]:
    rows = zip(*columns.values(), strict=True)
    return tuple(Point(**dict(zip(columns, row, strict=True))) for row in rows)


def _rounded(point: Point) -> Point:
    return Point(**{name: _round(getattr(point, name), DIGITS) for name in FIELDS})


def _round(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    return [_round(item, LIST_DIGITS) for item in value] if isinstance(value, list) else value
