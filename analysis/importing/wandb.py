"""Weights & Biases runs become logs: offline run folders, or what the web page exports as CSV.

A .wandb file is a LevelDB log: blocks of 32 KiB, in them chunks with checksum, length and kind; the chunks of a record
joined are a protobuf message of wandb's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import json
from pathlib import Path
import struct
from typing import Any
import zlib

from analysis.importing import csv
from analysis.importing.log import Log
from conf.errors import RequestError

MAGIC = b":W&B"
FILE_HEADER, BLOCK, CHUNK_HEADER = 7, 32 * 1024, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4
STEP_KEYS = ("global_step", "trainer/global_step", "train/global_step")  # where a row has one it is the step
LOG_CALLS = "_step"  # counts calls of wandb.log where no step was given


def read(source: Path) -> list[Log]:
    """The runs of a wandb folder, of one run folder or .wandb file; a CSV export is read as one.

    Raises:
        RequestError: there is neither.
    """
    if source.is_file():
        files = [source] if source.suffix == ".wandb" else []
    else:
        files = sorted(path for path in source.rglob("*.wandb") if path.is_file())
    # latest-run is a link to one of the others.
    unique = (
        list({path.resolve(): path for path in files if "latest-run" not in path.parts}.values()) or files[:1]
    )
    if unique:
        return [_read_file(path) for path in unique]
    if source.suffix == ".csv" or (source.is_dir() and any(source.rglob("*.csv"))):
        return csv.read(source)
    raise RequestError(f"{source}: there is no offline run (*.wandb) and no CSV export in it")


def _read_file(path: Path) -> Log:
    """One run, up to where its file is damaged."""
    from wandb.proto.wandb_internal_pb2 import Record

    log = Log(path.stem.removeprefix("run-"), str(path), clock="row")
    rows: list[dict[str, Any]] = []
    try:
        for data in records(path.read_bytes()):
            record = Record.FromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                log.name = record.run.display_name or record.run.run_id or log.name
                log.settings.update(_items(record.run.config.update))
            elif kind == "config":
                log.settings.update(_items(record.config.update))
            elif kind == "history":
                rows.append({LOG_CALLS: record.history.step.num, **_items(record.history.item)})
    except Exception as error:  # protobuf's own errors; a damaged file keeps what stands before
        log.notes.append(f"{path.name}: damaged or cut: {str(error).splitlines()[0] or type(error).__name__}")
    _add_rows(log, rows)
    return log


def records(content: bytes) -> Iterator[bytes]:
    """The records of a .wandb file.

    Raises:
        ValueError: no .wandb file, a checksum is wrong, or it ends within a record.
    """
    if content[:4] != MAGIC:
        raise ValueError("not a .wandb file")
    position, parts = FILE_HEADER, b""
    while position < len(content):
        left = BLOCK - position % BLOCK
        if left < CHUNK_HEADER:
            position += left
            continue
        header = content[position : position + CHUNK_HEADER]
        if len(header) < CHUNK_HEADER:
            raise ValueError("it ends within a record")
        checksum, length, kind = struct.unpack("<IHB", header)
        data = content[position + CHUNK_HEADER : position + CHUNK_HEADER + length]
        if len(data) < length:
            raise ValueError("it ends within a record")
        if kind not in (FULL, FIRST, MIDDLE, LAST) or zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
            raise ValueError(f"a wrong checksum at byte {position}")
        position += CHUNK_HEADER + length
        parts = data if kind in (FULL, FIRST) else parts + data
        if kind in (FULL, LAST):
            yield parts


def _items(items: Any) -> dict[str, Any]:
    """Keys and values of a config or of a row; a nested key is joined with dots."""
    found: dict[str, Any] = {}
    for item in items:
        try:
            value = json.loads(item.value_json)
        except ValueError:
            continue
        found[item.key or ".".join(item.nested_key)] = value
    return found


def _add_rows(log: Log, rows: list[dict[str, Any]]) -> None:
    """Values by the step of their row."""
    key = next((name for name in STEP_KEYS if any(name in row for row in rows)), LOG_CALLS)
    log.counts_calls = key == LOG_CALLS
    for row in rows:
        step = row.get(key)
        if step is None or not _is_number(step):
            continue
        for tag, value in row.items():
            if not tag.startswith("_") and tag != key and _is_number(value):
                log.add(tag, float(step), float(value))
    log.settings = _flat(log.settings)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without wandb's own entry."""
    return {name: value for name, value in settings.items() if name != "_wandb"}


def _is_number(value: Any) -> bool:
    """wandb writes NaN and infinities as JSON numbers of Python, or as their names."""
    if isinstance(value, str):
        return value in ("NaN", "Infinity", "-Infinity")
    return isinstance(value, int | float) and not isinstance(value, bool)
