"""Where a study's trials are kept: Optuna's journal in the study's folder."""

import json
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from conf.errors import WorkError


def open_journal(path: Path) -> JournalStorage:
    """The study's journal, for the supervisor that holds the study's lock and hence is its only writer.

    A supervisor that was killed may leave a lock file and a torn last line behind; both are cleared away.

    Raises:
        WorkError: another line is damaged.
    """
    for stale in path.parent.glob(f"{path.name}.lock*"):
        stale.unlink(missing_ok=True)
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
        _check_lines(path, content[:whole])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(path)))


def open_for_reading(path: Path) -> JournalStorage:
    """The journal of another study, which may be running: nothing is cleared away or written.

    Raises:
        WorkError: a line is damaged.
    """
    if not path.is_file():
        raise WorkError(f"{path}: there is no such file: restore it from a copy, or name another study")
    content = path.read_bytes()
    _check_lines(path, content[: content.rfind(b"\n") + 1])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(path)))


def _check_lines(path: Path, content: bytes) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            damaged = not isinstance(json.loads(line), dict)
        except ValueError:
            damaged = True
        if damaged:
            raise WorkError(
                f"{path}: line {number} is damaged: restore the file from a copy, "
                "or start another study with study=NAME"
            )
