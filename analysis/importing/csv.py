"""Tables become logs: a column a tag, as wandb and TensorBoard export them or a script writes them."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from pathlib import Path
import re

from analysis.importing.log import Log
from analysis.importing.settings import ACCUMULATION, KEYS
from conf.errors import RequestError

STEP_NAMES = (
    "step",
    "global_step",
    "_step",
    "trainer/global_step",
    "train/global_step",
    "steps",
    "iteration",
    "iter",
)
RUN_NAMES = ("run", "run_name", "run_id", "name")
BOUNDS = ("__min", "__max")  # wandb's exports have both beside every column
TENSORBOARD = {
    "wall time",
    "step",
    "value",
}  # the columns of TensorBoard's download: one tag, named by the file
TENSORBOARD_FILE = re.compile(r"run-(?P<run>.+)-tag-(?P<tag>.+)")
NO_TAGS = ("wall time", "_timestamp", "_runtime", "relative time (process)", "relative time (wall)")

Rows = list[dict[str, str]]


def read(source: Path) -> list[Log]:
    """The runs of one table, or of all tables in a folder; downloads of several tags of a run are put together.

    Raises:
        RequestError: there is no table.
    """
    files = [source] if source.is_file() else sorted(source.rglob("*.csv"))
    if not files:
        raise RequestError(f"{source}: there is no *.csv in it")
    logs: dict[str, Log] = {}
    for path in files:
        for log in _read_file(path):
            if log.name in logs and not log.values.keys() & logs[log.name].values.keys():
                merge(logs[log.name], log)
            else:
                logs[log.name if log.name not in logs else f"{path.stem}/{log.name}"] = log
    for name, log in logs.items():
        log.name = name
    return list(logs.values())


def merge(log: Log, other: Log) -> None:
    """Append another log's tags to the first."""
    for tag, items in other.values.items():
        for item in items:
            log.add(tag, item.step, item.value)
    log.notes += other.notes


def _read_file(path: Path) -> list[Log]:
    try:
        columns, rows, notes = _table(path.read_text(encoding="utf-8-sig", errors="replace"))
    except (csv.Error, ValueError) as error:
        return [Log(path.stem, str(path), notes=[f"{path.name}: {error}"])]
    plain = {name.strip().lower(): name for name in columns}
    step = next((plain[name] for name in STEP_NAMES if name in plain), None)
    if step is None:
        reason = (
            f"{path.name}: no column of steps ({', '.join(STEP_NAMES[:4])}) among {', '.join(columns[:8])}"
        )
        return [Log(path.stem, str(path), notes=[reason])]
    if set(plain) >= TENSORBOARD and len(columns) == len(TENSORBOARD):
        logs = [_tensorboard(path, rows, step, plain["value"])]
    elif any(" - " in name for name in columns):
        logs = _wandb(path, columns, rows, step)
    else:
        logs = _long(
            path, columns, rows, step, next((plain[name] for name in RUN_NAMES if name in plain), None)
        )
    for log in logs:
        log.notes += notes
    return logs


def _table(text: str) -> tuple[list[str], Rows, list[str]]:
    """Column names, rows and what was wrong with them.

    Raises:
        ValueError: there is no table.
        csv.Error: it cannot be parsed.
    """
    lines = text.replace("\0", "").splitlines()
    if len(lines) < 2:
        raise ValueError("no rows")
    delimiter = max(",;\t", key=lines[0].count)
    parsed = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    columns = [name.strip() for name in parsed[0]]
    rows = [dict(zip(columns, row, strict=True)) for row in parsed[1:] if len(row) == len(columns)]
    torn = len(parsed) - 1 - len(rows)
    return columns, rows, [f"{torn} row{'' if torn == 1 else 's'} of another length left out"] if torn else []


def _long(path: Path, columns: Sequence[str], rows: Rows, step: str, run: str | None) -> list[Log]:
    """A row a step; a column may name the run, and columns named like settings hold them."""
    logs: dict[str, Log] = {}
    known = [
        name for name in columns if name in (*KEYS, *ACCUMULATION) and name != "lr"
    ]  # that one is a curve
    tags = [name for name in columns if name not in (step, run, "", *known) and name.lower() not in NO_TAGS]
    for row in rows:
        name = row[run] if run is not None else path.stem
        log = logs.setdefault(name, Log(name, str(path), clock="row", counts_calls=step.lower() == "_step"))
        log.settings.update({key: row[key] for key in known if row[key].strip()})
        for tag in tags:
            _add(log, tag, row[step], row[tag])
    return list(logs.values())


def _wandb(path: Path, columns: Sequence[str], rows: Rows, step: str) -> list[Log]:
    """A column a run: `RUN - TAG`."""
    logs: dict[str, Log] = {}
    for column in columns:
        run, dash, tag = column.rpartition(" - ")
        if not dash or tag.lower().endswith(BOUNDS) or tag.lower() in STEP_NAMES:
            continue
        log = logs.setdefault(run, Log(run, str(path), clock="row", counts_calls=True))
        for row in rows:
            _add(log, tag, row[step], row[column])
    return list(logs.values())


def _tensorboard(path: Path, rows: Rows, step: str, value: str) -> Log:
    """One tag of one run, both named by the file; without that name the tag is `Value`."""
    named = TENSORBOARD_FILE.fullmatch(path.stem)
    log = Log(named["run"] if named else path.stem, str(path), clock="none")
    for row in rows:
        _add(log, named["tag"] if named else value, row[step], row[value])
    return log


def _add(log: Log, tag: str, step: str, value: str) -> None:
    """A cell; an empty one is no value, one that is no number counts as not finite."""
    if not value.strip():
        return
    log.add(tag, _number(step), _number(value))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
