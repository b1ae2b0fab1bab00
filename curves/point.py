"""One record of a run, and the lines of curve.jsonl that hold it."""

from collections.abc import Iterable, Iterator
import contextlib
from dataclasses import dataclass, field, fields
import json
import math
from typing import Any

import orjson


@dataclass(frozen=True)
class Point:
    """What a run knew at one step. Missing values are None; keys of newer versions are kept in `extra`.

    Attributes:
        step: optimizer updates so far.
        images_seen: training images so far, over all processes.
        wall_s: seconds of training so far, interruptions not counted.
        lr: learning rate of the last update.
        lr_sum: sum of the learning rate over all updates so far, the curve's intrinsic time.
        train_loss: mean over all micro-batches and processes since the last point.
        val_loss: mean held-out loss over the panel.
        val_se: its standard error, clustered by image.
        delta: val_loss minus its value at step 0.
        delta_se: the paired standard error of delta, clustered by image.
        image_loss: one mean a panel image, in the panel's order.
        bins: one mean a timestep stratum.
        log_ratio: mean over the panel of log(loss / loss at step 0).
        train_panel_loss: the same measure on training images (the memorization gap).
        class_panel_loss: the same measure on class images (the drift from the prior).
        panel: name of the panel.
        averaged_loss, averaged_image_loss: as val_loss and image_loss, of an average of the weights.
    """

    step: int
    images_seen: int | None = None
    wall_s: float | None = None
    lr: float | None = None
    lr_sum: float | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    val_se: float | None = None
    delta: float | None = None
    delta_se: float | None = None
    image_loss: list[float] | None = None
    bins: list[float] | None = None
    log_ratio: float | None = None
    train_panel_loss: float | None = None
    class_panel_loss: float | None = None
    panel: str | None = None
    averaged_loss: float | None = None
    averaged_image_loss: list[float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


_NAMES = [item.name for item in fields(Point) if item.name != "extra"]
_KNOWN = frozenset(_NAMES)


def format_point(point: Point) -> str:
    """A point as one line of JSON with a newline. Non-finite numbers become null with the key `diverged` set."""
    record: dict[str, Any] = {}
    diverged = False
    for name in _NAMES:
        value = getattr(point, name)
        clean, bad = _finite(value)
        diverged = diverged or bad
        if value is not None:
            record[name] = clean
    record.update(point.extra)
    if diverged:
        record["diverged"] = True
    return json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"


def parse_points(lines: Iterable[str]) -> list[Point]:
    """Parse curve.jsonl. A torn last line is dropped; steps are strictly increasing in the result.

    A repeated or earlier step (a run that was resumed from a checkpoint) replaces what came at or after it.

    Raises:
        ValueError: a line that is not the last is no JSON object with a whole, non-negative `step`.
    """
    points: list[Point] = []
    pending: tuple[int, str] | None = None
    for number, (line, record) in enumerate(_records(list(lines)), start=1):
        if not line.strip():
            continue
        if pending is not None:
            raise ValueError(f"line {pending[0]}: {pending[1]}")
        try:
            point = _point(json.loads(line) if record is None else record)
        except ValueError as error:
            pending = (number, str(error))
            continue
        while points and points[-1].step >= point.step:
            points.pop()
        points.append(point)
    return points


def _records(lines: list[str]) -> Iterator[tuple[str, Any]]:
    """Every line with its value, None where it must be parsed alone: all at once takes a fifth off reading many runs."""
    values: list[Any] = []
    if all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        with contextlib.suppress(ValueError):
            values = orjson.loads(f"[{','.join(lines)}]")
    return zip(lines, values if len(values) == len(lines) else [None] * len(lines), strict=True)


def _point(record: Any) -> Point:
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    step = record.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise ValueError(f"step={step!r} is not a whole number of optimizer updates")
    if record.keys() <= _KNOWN:  # as nearly all are; thousands of runs are read
        return Point(**record)
    known = {name: record[name] for name in _NAMES if name in record}
    return Point(**known, extra={key: value for key, value in record.items() if key not in known})


def _finite(value: Any) -> tuple[Any, bool]:
    """The value with non-finite numbers replaced by None, and whether there were any."""
    if isinstance(value, float) and not math.isfinite(value):
        return None, True
    if isinstance(value, list):
        pairs = [_finite(item) for item in value]
        if any(bad for _, bad in pairs):
            return None, True
        return value, False
    return value, False
