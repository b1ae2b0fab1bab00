"""attempts.jsonl: every trainer process that a trial has had, written by the supervisor, a line at start and end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
import json
import os
import time
from typing import Any

from conf.secrets import redact_arguments
from curves.run_folder import RunFolder, Status, Verdict


@dataclass(frozen=True)
class Attempt:
    """One trainer process of a trial.

    Attributes:
        started, ended: Unix time; `ended` is None where no supervisor has seen the end.
        changes: values that this attempt has otherwise than the trial's first, by key.
        overrides: that it was started with, without secrets.
        devices: GPUs, or without GPUs processes, that it had; a share where trials share one.
        after: `updated` of the status.json that it found: while it stands there, the trainer has said nothing.
        outcome, reason: as in verdict.json.
        step: the last one that was seen, optimizer updates.
        first_step: where it began, above 0 for one that went on from a checkpoint; None where it did not say.
        seconds: that it ran.
    """

    started: float
    changes: dict[str, Any] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    devices: float | None = None
    after: float | None = None
    ended: float | None = None
    outcome: str | None = None
    reason: str = ""
    step: int = 0
    first_step: int | None = None
    seconds: float = 0.0


def note_start(
    folder: RunFolder, overrides: Sequence[str], devices: float, changes: Mapping[str, Any]
) -> None:
    """To be written before the process starts: one that is never seen to end has been tried all the same."""
    status = folder.read_status()
    record = {
        "changes": dict(changes),
        "overrides": list(redact_arguments(overrides)),
        "devices": devices,
        "after": status.updated if status is not None else None,
    }
    _append(folder, {"event": "start", "time": time.time(), **record})


def note_end(folder: RunFolder, verdict: Verdict, step: int, seconds: float, first_step: int | None) -> None:
    """How the last attempt ended."""
    record = {
        "outcome": verdict.outcome,
        "reason": verdict.reason,
        "step": step,
        "first_step": first_step,
        "seconds": round(seconds, 3),
    }
    _append(folder, {"event": "end", "time": verdict.ended, **record})


def note_missed_end(folder: RunFolder, verdict: Verdict) -> None:
    """The end of a last attempt that its supervisor did not live to write; its length by the trainer's last word."""
    attempts = read_attempts(folder)
    if attempts and attempts[-1].ended is None:
        status = last_word(folder, attempts)
        seconds = max(0.0, status.updated - attempts[-1].started) if status else 0.0
        note_end(folder, verdict, status.step if status else 0, seconds, None)


def last_word(folder: RunFolder, attempts: Sequence[Attempt]) -> Status | None:
    """status.json, unless it is of an attempt before the last one."""
    status = folder.read_status()
    if (
        status is not None
        and attempts
        and attempts[-1].ended is None
        and status.updated == attempts[-1].after
    ):
        return None
    return status


def read_attempts(folder: RunFolder) -> list[Attempt]:
    """In the order of their starts; a torn line counts as not written."""
    try:
        lines = folder.attempts.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    attempts: list[Attempt] = []
    for line in lines:
        try:
            record = json.loads(line)
            if record["event"] == "start":
                attempts.append(_started(record))
            elif attempts:
                attempts[-1] = _ended(attempts[-1], record)
        except (ValueError, KeyError, TypeError):
            continue
    return attempts


def failures_in_vain(attempts: Sequence[Attempt]) -> int:
    """Ended attempts in a row, from the last one back, that got no further than one before them.

    The first that got further counts as one: it has ended too early as well.
    """
    reached, count = -1, 0
    for attempt in attempts:
        if attempt.ended is None:
            continue
        count = 1 if attempt.step > reached else count + 1
        reached = max(reached, attempt.step)
    return count


def _started(record: Mapping[str, Any]) -> Attempt:
    return Attempt(
        float(record["time"]),
        dict(record["changes"]),
        tuple(record["overrides"]),
        record["devices"],
        record["after"],
    )


def _ended(attempt: Attempt, record: Mapping[str, Any]) -> Attempt:
    return replace(
        attempt,
        ended=float(record["time"]),
        outcome=str(record["outcome"]),
        reason=str(record["reason"]),
        step=int(record["step"]),
        first_step=record["first_step"],
        seconds=float(record["seconds"]),
    )


def _append(folder: RunFolder, record: Mapping[str, Any]) -> None:
    """A line of its own, also after one that a crash has torn."""
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.attempts.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
        torn = end and file.read(1) != b"\n"
        file.write(b"\n" * bool(torn) + json.dumps(record, ensure_ascii=False).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
