"""Where a study's trials are kept: Optuna's journal in the study's folder, or a PostgreSQL database."""

from collections.abc import Iterator
import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import get_lock_file
import sqlalchemy
from sqlalchemy.exc import SQLAlchemyError

from conf.errors import RequestError, WorkError
from conf.secrets import redact_text

_DRIVER = "postgresql+psycopg"


@contextlib.contextmanager
def open_storage(url: str | None, journal: Path, study: str) -> Iterator[BaseStorage]:
    """The storage of a study, for the one supervisor that may write it; held until the context ends.

    Args:
        url: of a PostgreSQL database; None: the journal.
        study: its name.

    Raises:
        RequestError: the database cannot be used, or another supervisor has the study in it.
        WorkError: the journal is damaged, or the database went away.
    """
    if url is None:
        yield open_journal(journal)
        return
    try:
        storage = _open_database(url)
        try:
            with storage.engine.connect() as connection:
                _lock(connection, url, study)
                yield optuna.storages.get_storage(storage)  # with Optuna's cache of trials that have ended
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, StorageInternalError) as error:
        raise WorkError(
            f"sweep.storage={redact_text(url)}: {_first_line(error)}: once it can be reached, `resume` goes on"
        ) from error


def open_to_watch(url: str | None, journal: Path) -> BaseStorage:
    """The storage of a study that may be running, to look at.

    Raises:
        RequestError: the database cannot be used, or there is no journal yet.
    """
    if url is not None:
        return _open_database(url)
    if not journal.is_file():
        raise RequestError(
            f"study={journal.parent.name}: has no {journal.name} yet: start it with python -m sweep run"
        )
    return JournalStorage(_ReadOnlyJournal(str(journal)))


class _Journal(JournalFileBackend):
    """A journal that waits for the disk once a decision, not once a held-out loss.

    A run's curve holds its losses too, from which a study that lost them to a power failure is told them again.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        if not all("intermediate_value" in entry for entry in logs):
            super().append_logs(logs)
            return
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with get_lock_file(self._lock), Path(self._file_path).open("ab") as file:
            file.write(lines.encode("utf-8"))


class _ReadOnlyJournal(JournalFileBackend):
    """A journal of which every entry can be read and none written."""

    def append_logs(self, logs: list[dict[str, Any]]) -> NoReturn:
        raise PermissionError("a study is only watched here")


def _open_database(url: str) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return RDBStorage(_with_driver(url), engine_kwargs={"pool_pre_ping": True})
    except ImportError as error:
        raise RequestError(
            f"sweep.storage={redact_text(url)}: needs a driver: pip install 'stepbudget[postgresql]'"
        ) from error
    except (SQLAlchemyError, RuntimeError) as error:
        raise RequestError(
            f"sweep.storage={redact_text(url)}: {_first_line(error)}: start the server, mend the address, or leave "
            "sweep.storage out for a journal in the study's folder"
        ) from error


def _lock(connection: sqlalchemy.Connection, url: str, study: str) -> None:
    """An advisory lock on the study's name, which the server lets go of when the connection ends, however it ends."""
    number = int.from_bytes(hashlib.sha256(f"stepbudget/{study}".encode()).digest()[:8], "big", signed=True)
    # Outside of a transaction, which would stay open as long as the sweep lasts.
    connection.execution_options(isolation_level="AUTOCOMMIT")
    if not connection.scalar(sqlalchemy.select(sqlalchemy.func.pg_try_advisory_lock(number))):
        raise RequestError(
            f"study={study}: another sweep runs it in sweep.storage={redact_text(url)}: wait for its end, or take "
            "another name with study=NAME"
        )


def _with_driver(url: str) -> str:
    """PostgreSQL addresses name no driver, or one of several: ours is psycopg."""
    scheme, _, rest = url.partition("://")
    return f"{_DRIVER}://{rest}" if scheme in ("postgresql", "postgres") else url


def _first_line(error: BaseException) -> str:
    """What the server or its driver says, without SQL and without the address."""
    cause = error.__cause__ or getattr(error, "orig", None) or error
    lines = str(getattr(cause, "orig", None) or cause).strip().splitlines()
    return redact_text(lines[0]) if lines else type(error).__name__


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
    return JournalStorage(_Journal(str(path)))


@contextlib.contextmanager
def open_for_reading(url: str | None, journal: Path) -> Iterator[BaseStorage]:
    """The storage of another study, which may be running: nothing is cleared away or written.

    Raises:
        RequestError: the database cannot be used.
        WorkError: there is no journal, or a line of it is damaged.
    """
    if url is not None:
        storage = _open_database(url)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
        return
    if not journal.is_file():
        raise WorkError(f"{journal}: there is no such file: restore it from a copy, or name another study")
    content = journal.read_bytes()
    _check_lines(journal, content[: content.rfind(b"\n") + 1])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield JournalStorage(JournalFileBackend(str(journal)))


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
