"""attempts.jsonl in a run folder: every trainer process that a trial had, one line at its start, one at its end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import time
from typing import Any

from conf.secrets import redact_arguments
from curves.run_folder import RunFolder

FILE = "attempts.jsonl"


@dataclass(frozen=True)
class Attempt:
    """One trainer process of a trial.

    Attributes:
        start: Unix time.
        changes: overrides that differ from the trial's own, for example half the batch.
        overrides: that it was started with, without secrets.
        devices: GPUs, or without GPUs processes, that it had; shares where trials share one.
        end: None where nobody saw its end.
        first_step: where it began, above 0 for one that went on from a checkpoint.
    """

    start: float
    changes: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[str] = ()
    devices: float | None = None
    end: float | None = None
    outcome: str | None = None
    seconds: float | None = None
    step: int | None = None
    first_step: int | None = None


def record_start(
    folder: RunFolder, overrides: Sequence[str], devices: float, changes: Mapping[str, Any]
) -> None:
    """Note that a trainer is about to be started."""
    record = {"changes": dict(changes), "overrides": list(redact_arguments(overrides)), "devices": devices}
    _append(folder, {"event": "start", "time": time.time(), **record})


def record_end(folder: RunFolder, outcome: str, seconds: float, step: int, first_step: int | None) -> None:
    """Note that it has ended."""
    record = {"outcome": outcome, "seconds": seconds, "step": step, "first_step": first_step}
    _append(folder, {"event": "end", "time": time.time(), **record})


def read_attempts(folder: RunFolder) -> list[Attempt]:
    """A trial's attempts, in order; damaged lines are passed over."""
    attempts: list[Attempt] = []
    for record in _records(folder.path / FILE):
        known = {key: value for key, value in record.items() if key in Attempt.__dataclass_fields__}
        if record.get("event") == "start" and isinstance(record.get("time"), int | float):
            attempts.append(Attempt(start=float(record["time"]), **known))
        elif record.get("event") == "end" and attempts and attempts[-1].end is None:
            attempts[-1] = Attempt(**{**vars(attempts[-1]), **known, "end": record.get("time")})
    return attempts


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    records = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def _append(folder: RunFolder, record: Mapping[str, Any]) -> None:
    path = folder.path / FILE
    with path.open("ab+") as file:
        # The line of a supervisor that was killed may be torn: ours starts on a line of its own.
        if file.seek(0, os.SEEK_END) and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
