"""How near the samples of a step come to the training images: the lines of samples/likeness.jsonl.

Source: docs/method.md, section 7.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
import json
from pathlib import Path

FILE_NAME = "likeness.jsonl"  # in the folder of the samples


@dataclass(frozen=True)
class Likeness:
    """What is measured of the samples of one step, one value a prompt; None where a sample is not finite.

    Attributes:
        step: optimizer updates.
        nearest: root mean square difference of latents to the nearest training image; 0 is a copy.
        held_out: the same of held-out images, their mean: what new images have; None without held-out images.
        encoder: name of the image encoder, None without one.
        similarity: cosine similarity to the training images in the encoder's space, their mean; 1 is the same.
    """

    step: int
    nearest: list[float | None]
    held_out: float | None = None
    encoder: str | None = None
    similarity: list[float | None] | None = None


def append_likeness(samples: Path, record: Likeness) -> None:
    """Add a line to the file in the folder of the samples."""
    line = {key: value for key, value in asdict(record).items() if value is not None}
    with (samples / FILE_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False, separators=(",", ":")) + "\n")


def read_likeness(samples: Path) -> list[Likeness]:
    """By step; of a step that was drawn twice, as a resumed run does, the last. Damaged lines are left out."""
    try:
        lines = (samples / FILE_NAME).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = {record.step: record for record in _parsed(lines)}
    return [found[step] for step in sorted(found)]


def copy_likeness(samples: Path, to: Path, last_step: int) -> None:
    """Put the lines up to and including a step into another run's folder of samples, in place of what it has."""
    (to / FILE_NAME).unlink(missing_ok=True)
    for record in read_likeness(samples):
        if record.step <= last_step:
            append_likeness(to, record)


def mean(values: Iterable[float | None] | None) -> float | None:
    """Over the samples that have a value."""
    known = [value for value in values or () if value is not None]
    return sum(known) / len(known) if known else None


def _parsed(lines: Iterable[str]) -> Iterable[Likeness]:
    for line in lines:
        try:
            record = json.loads(line)
            found = Likeness(**{key: record[key] for key in Likeness.__dataclass_fields__ if key in record})
        except (ValueError, TypeError):
            continue
        if _is_sound(found):
            yield found


def _is_sound(record: Likeness) -> bool:
    lists = (record.nearest, record.similarity or [])
    values = [record.held_out, *(item for values in lists if isinstance(values, list) for item in values)]
    return (
        isinstance(record.step, int)
        and not isinstance(record.step, bool)
        and record.step >= 0
        and all(isinstance(values, list) for values in lists)
        and isinstance(record.encoder, str | None)
        and all(item is None or (isinstance(item, int | float) and item == item) for item in values)
    )
