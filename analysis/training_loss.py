"""What a log of the training loss alone can say, and why it cannot say when to stop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis import words
from curves.point import Point

FEWEST_VALUES = 10
SHARE = 5  # the first and the last part of so many are compared


def describe_training_loss(points: Sequence[Point]) -> str | None:
    """Steps, change and scatter of a run without a held-out loss, in a sentence; None where there is no training loss.

    The change is from the mean of the first fifth of the values to that of the last, with its standard error.
    """
    losses = np.array([point.train_loss for point in points if point.train_loss is not None], dtype=float)
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        return None
    said = (
        "only the training loss was logged, which cannot show a minimum: it goes on falling while a model memorizes. "
        f"What it shows: {points[-1].step} steps, {len(losses)} value{'' if len(losses) == 1 else 's'}"
    )
    if len(losses) < FEWEST_VALUES:
        return f"{said}, too few to tell a change from scatter"
    part = max(len(losses) // SHARE, 2)
    scatter = detrended_sd(list(losses))
    change = float(losses[-part:].mean() - losses[:part].mean())
    error = scatter * float(np.sqrt(2 / part))
    clear = "a clear change" if abs(change) > 2 * error else "no clear change"
    return (
        f"{said}; a single one scatters by {words.number(scatter)}, and from the first to the last fifth the mean moved "
        f"by {words.number(change)} ± {words.number(error)}, {clear}"
    )


def detrended_sd(values: Sequence[float]) -> float:
    """Standard deviation of one value from second differences, so that a slow trend does not count."""
    return float(np.sqrt(np.mean(np.diff(np.asarray(values, dtype=float), 2) ** 2) / 6))
