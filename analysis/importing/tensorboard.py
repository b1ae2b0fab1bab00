"""TensorBoard event files become logs: one run a folder, as TensorBoard itself counts them."""

from __future__ import annotations

from collections.abc import Iterator
import logging
from pathlib import Path
from typing import Any

from analysis.importing.log import Log
from conf.errors import RequestError

EVENTS = "*tfevents*"
FRAME = 16  # bytes that frame a record: its length and two checksums
SESSION = "_hparams_/session_start_info"


def read(source: Path) -> list[Log]:
    """Every run below a folder, or of one event file.

    A folder that holds hyperparameters alone belongs to the run above it: that is where accelerate puts them.

    Raises:
        RequestError: there is no event file, or the reader is not installed.
    """
    files = [source] if source.is_file() else sorted(path for path in source.rglob(EVENTS) if path.is_file())
    if not files:
        raise RequestError(f"{source}: there is no TensorBoard event file ({EVENTS}) in it")
    _require_reader()
    folders: dict[Path, Log] = {}
    for path in files:
        folder = path.parent
        name = source.stem if source.is_file() else _run_name(folder, source)
        log = folders.setdefault(folder, Log(name, str(folder)))
        _read_file(path, log)
    return _with_settings(folders)


def _run_name(folder: Path, source: Path) -> str:
    relative = folder.relative_to(source)
    return source.resolve().name if relative == Path() else relative.as_posix()


def _with_settings(folders: dict[Path, Log]) -> list[Log]:
    """Logs with values, or damage to speak of; settings of a folder without values go to the nearest one above."""
    empty = {folder for folder, log in folders.items() if not log.values and not log.notes}
    for folder in empty:
        above = next((parent for parent in folder.parents if parent in folders and parent not in empty), None)
        if above is not None:
            folders[above].settings = {**folders[folder].settings, **folders[above].settings}
    kept = [log for folder, log in folders.items() if folder not in empty]
    return kept or [Log(log.name, log.source, notes=["holds no value"]) for log in folders.values()]


def _read_file(path: Path, log: Log) -> None:
    """Append the values of one event file to its run's log."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.data_compat import migrate_event

    read = 0
    for record in _records(path):
        read += len(record) + FRAME
        try:
            event = migrate_event(event_pb2.Event.FromString(record))
        except Exception:  # protobuf's own errors, and an odd tensor of a damaged event
            log.notes.append(f"{path.name}: an event that cannot be read")
            continue
        for value in event.summary.value:
            if value.tag == SESSION:
                log.settings.update(_hyperparameters(value))
            elif value.metadata.plugin_data.plugin_name == "scalars" or not value.HasField("metadata"):
                _add(log, value, event.step)
    size = path.stat().st_size
    if read < size:
        log.notes.append(f"{path.name}: damaged or cut, {size - read} of {size} bytes cannot be read")


def _records(path: Path) -> Iterator[bytes]:
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader

    yield from RawEventFileLoader(str(path)).Load()


def _add(log: Log, value: Any, step: int) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    try:
        array = make_ndarray(value.tensor)
    except (TypeError, ValueError):
        return
    if array.size == 1 and array.dtype.kind in "fiu":
        log.add(value.tag, float(step), float(array.item()))


def _hyperparameters(value: Any) -> dict[str, Any]:
    """Of an hparams session, as SummaryWriter.add_hparams writes it."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(value.metadata.plugin_data.content)
    found = data.session_start_info.hparams
    return {name: getattr(item, item.WhichOneof("kind") or "string_value") for name, item in found.items()}


def _require_reader() -> None:
    """Raises:
    RequestError: tensorboard is not installed; the message names the extra.
    """
    try:
        from tensorboard.util import tb_logging
    except ImportError as error:
        raise RequestError(
            "reading event files needs TensorBoard: pip install 'stepbudget[tensorboard]'; or download the run's "
            "scalars as CSV in TensorBoard and use: python -m analysis import csv"
        ) from error
    tb_logging.get_logger().setLevel(logging.ERROR)
