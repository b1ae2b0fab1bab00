"""What became of a trainer that did not say it itself: told from its exit status and its log."""

import os
from pathlib import Path
import re
import signal

from curves.run_folder import RunFolder

_LOG_TAIL_BYTES = 16384
_CHILD_SIGNAL = re.compile(r"died with <Signals\.\w+: (\d+)>")  # of subprocess.CalledProcessError
_CHILD_STATUS = re.compile(
    r"returned non-zero exit status (\d+)|exitcode *: (-?\d+)"
)  # the latter is torchrun's
_COMPLAINT = re.compile(r"(\S+: )?error: ")
_EXCEPTION = re.compile(r"(?!subprocess\.|torch\.distributed\.elastic)[\w.]*(Error|Exception|Exit)\b")


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where it is not there."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def log_tail(folder: RunFolder, start: int = 0) -> list[str]:
    """The last lines of a run's log that are not blank, of what was written after byte `start`."""
    try:
        with folder.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(min(start, size), size - _LOG_TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]


def explain_exit(exit_status: int, log: list[str]) -> tuple[str, str]:
    """Outcome and reason of a trainer that ended without saying how, from exit status and log.

    `accelerate launch` ends with 1 whatever happened to its child; how that ended stands in its traceback.
    """
    status = _child_status(log) if exit_status == 1 else exit_status
    if status < 0:
        name = signal.Signals(-status).name
        hint = " (the kernel does this when memory runs out)" if name == "SIGKILL" else ""
        return "crashed", f"ended by {name}{hint}"
    if status == 0:
        return "crashed", "ended with exit status 0 without an outcome in status.json"
    if status == 2:
        complaint = _last(_COMPLAINT, log) or (log[-1] if log else "the trainer refused its configuration")
        return "config_error", complaint.removeprefix("error: ")
    exception = _last(_EXCEPTION, log)
    return "crashed", f"exit status {status}" + (f": {exception}" if exception else "")


def _child_status(log: list[str]) -> int:
    """Exit status of the launcher's child, negative for a signal; 1 where the log does not tell."""
    for line in reversed(log):
        if match := _CHILD_SIGNAL.search(line):
            return -int(match[1])
        if match := _CHILD_STATUS.search(line):
            return int(match[1] or match[2])
    return 1


def _last(pattern: re.Pattern[str], log: list[str]) -> str | None:
    return next((line for line in reversed(log) if pattern.match(line)), None)
