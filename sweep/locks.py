"""The lock on a study: one supervisor at a time, and whoever asks learns which."""

import contextlib
import fcntl
import os
from typing import IO

from conf.errors import RequestError
from sweep.hints import command
from sweep.record import StudyFolder


def lock_study(folder: StudyFolder) -> IO[str]:
    """The study's lock, while the file is open: the kernel lets go of it when the process ends, however it ends.

    Raises:
        RequestError: another process holds it.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    file = folder.lock.open("a+", encoding="utf-8")
    file.seek(0)
    if not _try_lock(file):
        with file:
            raise RequestError(
                f"study={folder.name}: process {file.read().strip() or '?'} already runs it: "
                f"watch it with `{command('status', folder.path)}`"
            )
    try:
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError:
        with contextlib.suppress(OSError):  # what could not be written is tried again
            file.close()
        raise
    return file


def owner_of(folder: StudyFolder) -> int | None:
    """Process number of the supervisor that runs a study now; None where none does."""
    try:
        with folder.lock.open(encoding="utf-8") as file:
            if _try_lock(file):
                return None
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        return None


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
