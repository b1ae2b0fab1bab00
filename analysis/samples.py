"""The strip of samples: the same prompts and noise across steps, from the best run of a cell."""

from __future__ import annotations

import base64
from dataclasses import dataclass
import io
from pathlib import Path
import re

from analysis.run import Run
from curves.recommendation import CellAnswer
from curves.run_folder import read_json

NAME = re.compile(r"step-(\d+)-(\d+)\.png")
MOST_COLUMNS = 8
MOST_PROMPTS = 4
LARGEST_SIDE = 192  # pixels of an embedded picture; smaller ones are embedded as they are


@dataclass(frozen=True)
class Strip:
    """Rows are prompts, columns steps; pictures are data URIs, None where a file is missing or damaged."""

    run: str
    steps: list[int]
    nearest: int | None  # step of the column nearest to the recommended steps
    in_window: list[bool]
    rows: list[tuple[str, list[str | None]]]


def sample_strip(run: Run, cell: CellAnswer) -> Strip | None:
    """The samples of a run; None where it has none."""
    found: dict[int, dict[int, Path]] = {}
    for path in run.folder.samples.glob("step-*.png"):
        match = NAME.fullmatch(path.name)
        if match:
            found.setdefault(int(match[1]), {})[int(match[2])] = path
    if not found:
        return None
    steps = _columns(sorted(found), cell)
    prompts = _prompts(run, 1 + max(max(row) for row in found.values()))
    rows = [
        (prompt, [_embedded(found[step].get(index)) for step in steps])
        for index, prompt in enumerate(prompts[:MOST_PROMPTS])
    ]
    inside = [_inside(step, cell) for step in steps]
    return Strip(run.name, steps, _nearest(steps, cell.recommended_steps), inside, rows)


def _columns(steps: list[int], cell: CellAnswer) -> list[int]:
    """At most MOST_COLUMNS steps: first, last, nearest to the recommendation, those of the window, then others."""
    if len(steps) <= MOST_COLUMNS:
        return steps
    nearest = _nearest(steps, cell.recommended_steps)
    kept = {steps[0], steps[-1], *([] if nearest is None else [nearest])}
    for wanted in ([step for step in steps if _inside(step, cell)], steps):
        left = [step for step in wanted if step not in kept]
        kept |= set(_spread(left, MOST_COLUMNS - len(kept)))
    return sorted(kept)


def _spread(values: list[int], count: int) -> list[int]:
    """At most that many of the values, evenly over their order, the ends among them."""
    if len(values) <= count:
        return values
    return [values[round(index * (len(values) - 1) / max(count - 1, 1))] for index in range(count)]


def _inside(step: int, cell: CellAnswer) -> bool:
    return cell.window is not None and cell.window["low"] <= step <= cell.window["high"]


def _nearest(steps: list[int], recommended: int | None) -> int | None:
    """Nearest by ratio."""
    if recommended is None:
        return None
    return min(steps, key=lambda step: abs(step - recommended) / (step + recommended + 1))


def _prompts(run: Run, count: int) -> list[str]:
    try:
        prompts = read_json(run.folder.samples / "prompts.json").get("prompts", [])
    except ValueError:
        prompts = []
    texts = [str(prompt) for prompt in prompts] if isinstance(prompts, list) else []
    return (texts + [f"prompt {index + 1}" for index in range(len(texts), count)])[:count]


def _embedded(path: Path | None) -> str | None:
    """A picture as a data URI, made smaller where it is large."""
    if path is None:
        return None
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            if max(image.size) <= LARGEST_SIDE:
                return _data_uri(path.read_bytes(), "png")
            small = image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=88)
    return _data_uri(buffer.getvalue(), "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
