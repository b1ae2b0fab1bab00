"""What an offline run of wandb holds: its protobuf records in LevelDB's log format."""

from collections.abc import Iterator
import json
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record, RunRecord

HEADER = 7  # bytes of the file's, and of a piece's: checksum (4), length (2), kind (1)
BLOCK = 32768  # bytes; a record that does not fit goes on in the next one
FULL, LAST = 1, 4  # kinds of pieces that end a record


def read_records(file: Path) -> Iterator[Record]:
    """All records of a `.wandb` file."""
    data, at, whole = file.read_bytes(), HEADER, b""
    assert data.startswith(b":W&B")
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # too little for a piece: padding
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def is_whole(file: Path) -> bool:
    """Whether the record of the run's end is there: the service may write it after the run has finished."""
    try:
        return any(record.HasField("exit") for record in read_records(file))
    except (AssertionError, DecodeError):  # cut in the middle
        return False


def read_run(file: Path) -> RunRecord:
    """The record of the run itself: its id, group, job type and configuration."""
    return next(record.run for record in read_records(file) if record.HasField("run"))


def read_history(file: Path) -> list[dict[str, Any]]:
    """What was logged, one mapping a call; nested keys joined by slashes."""
    return [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in read_records(file)
        if record.HasField("history")
    ]
