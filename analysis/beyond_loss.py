"""What the held-out loss does not say, on the same steps: memorization, drift from the prior, likeness of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis import words
from analysis.recommend import CellResult
from curves.likeness import Likeness, mean, read_likeness
from curves.point import Point
from curves.recommendation import CellAnswer

Array = NDArray[np.float64]
HELD_OUT, TRAINING, CLASSES = "held-out images", "training images", "class images"
FIELDS = {HELD_OUT: "val_loss", TRAINING: "train_panel_loss", CLASSES: "class_panel_loss"}


@dataclass(frozen=True)
class Series:
    """One measure by step."""

    name: str
    steps: Array
    values: Array


@dataclass(frozen=True)
class BeyondLoss:
    """What one run recorded beside its held-out loss; losses are minus their value at the first evaluation.

    Attributes:
        title: of the cell.
        run: whose records these are.
        answer: the cell's, for the window.
        losses: held-out images first, then those of training and class images that were measured; empty for neither.
        likeness: of the samples, by step; empty where none was recorded.
        step_unit: what the run counts as a step.
    """

    title: str
    run: str
    answer: CellAnswer
    losses: tuple[Series, ...]
    likeness: tuple[Likeness, ...]
    step_unit: str


def beyond_loss(cell: CellResult, cells: Sequence[CellAnswer]) -> BeyondLoss | None:
    """Of the cell's best run; None where it recorded nothing but its held-out loss."""
    if cell.shown is None:
        return None
    run = cell.shown.run
    series = [found for name in FIELDS if (found := loss_series(run.points, name)) is not None]
    losses = tuple(series) if len(series) > 1 else ()
    likeness = tuple(read_likeness(run.folder.samples))
    if not losses and not likeness:
        return None
    title = words.cell_name(cell.answer, cells)
    return BeyondLoss(title, run.name, cell.answer, losses, likeness, run.step_unit)


def loss_series(points: Sequence[Point], name: str) -> Series | None:
    """The change of one panel's loss since the first evaluation; None with fewer than two."""
    known = [(point.step, getattr(point, FIELDS[name])) for point in points]
    kept = [(step, value) for step, value in known if value is not None and np.isfinite(value)]
    if len(kept) < 2:
        return None
    steps, values = np.array(kept, dtype=float).T
    return Series(name, steps, values - values[0])


def at_step(series: Series, step: float) -> float:
    """The measure at a step, between its neighbours in proportion."""
    return float(np.interp(step, series.steps, series.values))


def memorization_gap(data: BeyondLoss, step: int) -> float | None:
    """How much more the loss has fallen on training images than on held-out ones: docs/method.md, section 7."""
    return _difference(data, HELD_OUT, TRAINING, step)


def prior_drift(data: BeyondLoss, step: int) -> float | None:
    """How much the loss on class images has risen: docs/method.md, section 7."""
    found = {series.name: series for series in data.losses}
    return at_step(found[CLASSES], step) if CLASSES in found else None


def _difference(data: BeyondLoss, first: str, second: str, step: int) -> float | None:
    found = {series.name: series for series in data.losses}
    if first not in found or second not in found:
        return None
    return at_step(found[first], step) - at_step(found[second], step)


def in_words(data: BeyondLoss) -> list[str]:
    """What the figure says at the recommended steps, or at the run's last evaluation."""
    step = data.answer.recommended_steps or _last_step(data)
    said = []
    gap, drift = memorization_gap(data, step), prior_drift(data, step)
    if gap is not None:
        said.append(f"memorization gap {words.number(gap)}{_in_gain(gap, data.answer)}")
    if drift is not None:
        said.append(f"prior drift {words.number(drift)}{_in_gain(drift, data.answer)}")
    nearest = min(data.likeness, key=lambda record: abs(record.step - step), default=None)
    if nearest is not None:
        said += _likeness_in_words(nearest)
    return [f"At {step} steps: {'; '.join(said)}."] if said else []


def _last_step(data: BeyondLoss) -> int:
    ends = [int(series.steps[-1]) for series in data.losses] + [record.step for record in data.likeness]
    return max(ends)


def _in_gain(value: float, answer: CellAnswer) -> str:
    """The same as a share of the gain, the unit of all thresholds."""
    if answer.gain is None or answer.gain <= 0:
        return ""
    return f" ({100 * value / answer.gain:.0f} % of the gain)"


def _likeness_in_words(record: Likeness) -> list[str]:
    said = []
    distance = mean(record.nearest)
    if distance is not None:
        new = "" if record.held_out is None else f", of held-out images {words.number(record.held_out)}"
        said.append(
            f"distance of the samples of step {record.step} to their nearest training image "
            f"{words.number(distance)}{new}"
        )
    similarity = mean(record.similarity)
    if similarity is not None:
        said.append(f"similarity to the training images by {record.encoder} {words.number(similarity)}")
    return said
