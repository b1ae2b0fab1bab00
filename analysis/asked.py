"""`dataset_size=n24 resolution=px96 ...`: a cell that is asked about on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
import difflib
import math
from typing import Any

from conf.errors import RequestError


@dataclass(frozen=True)
class Asked:
    """What was said of the cell; None where it was not."""

    dataset_size: int | None = None
    resolution: int | None = None
    method: str | None = None
    base_model: str | None = None
    captions: str | None = None
    dataset: str | None = None
    lr: float | None = None
    batch: int | None = None


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


# Key: the field, how its text is read, and what it takes.
KEYS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "dataset_size": (
        "dataset_size",
        lambda text: _count(text.removeprefix("n")),
        "training images: n24 or 24",
    ),
    "resolution": ("resolution", lambda text: _count(text.removeprefix("px")), "pixels: px512 or 512"),
    "method": ("method", _name, "lora, dreambooth, text_to_image, ..."),
    "base_model": ("base_model", _name, "sd15, sdxl, ..."),
    "captions": ("captions", _name, "file, short, instance, ..."),
    "dataset": (
        "dataset",
        _name,
        "the content id of a folder of images, or how it begins; new for other images",
    ),
    "optimizer.lr": ("lr", _rate, "a positive learning rate"),
    "optimizer.batch_size": ("batch", _count, "images an update, a whole number from 1"),
}


def parse_asked(texts: Sequence[str]) -> Asked:
    """KEY=VALUE texts as one cell.

    Raises:
        RequestError: an unknown key, one twice, or a value that it does not take.
    """
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in KEYS:
            near = difflib.get_close_matches(key, list(KEYS), n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise RequestError(
                f"{text}: a cell is asked for as dataset_size=n24; keys are {', '.join(KEYS)}{meant}"
            )
        name, read, takes = KEYS[key]
        if name in values:
            raise RequestError(f"{text}: {key} stands there twice: one cell is answered at a time")
        try:
            values[name] = read(value)
        except ValueError as error:
            raise RequestError(f"{text}: {key} takes {takes}") from error
    return Asked(**values)
