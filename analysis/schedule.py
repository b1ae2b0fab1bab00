"""The learning rate of a fresh run over its whole horizon, from the facts of a recorded one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.run import Run
from curves.answer import Schedule

Array = NDArray[np.float64]
TOLERANCE = 0.02  # relative disagreement with the recorded sum at which the formula is not trusted


def fresh_schedule(run: Run) -> Schedule:
    """lr_sum after every step of the run's horizon.

    By the formula of its schedule where that agrees with the recorded sum, else through its points, the last
    learning rate going on.
    """
    values = run.facts.hyperparameters
    horizon = max(int(run.facts.horizon), run.last_step, 1)
    rates = _rates(
        str(values.get("schedule", "constant")),
        run.time_rate,
        int(values.get("warmup_steps") or 0),
        horizon,
        float(values.get("decay_share") or 1.0),
    )
    if rates is not None:
        lr_sum = np.concatenate([[0.0], np.cumsum(rates)])
        if abs(lr_sum[-1] / run.facts.horizon_lr_sum - 1) < TOLERANCE:
            return Schedule(lr_sum)
    curve = run.curve()
    return Schedule.interpolated(curve.steps.astype(float), curve.lr_sum, horizon)


def schedule_over(run: Run, horizon: int, lr: float) -> Schedule:
    """The schedule of a fresh run like a recorded one, over another horizon and with another peak.

    By the formula of its schedule where it is known, else constant.
    """
    values = run.facts.hyperparameters
    name = str(values.get("schedule", "constant"))
    warmup, share = int(values.get("warmup_steps") or 0), float(values.get("decay_share") or 1.0)
    rates = _rates(name, lr, warmup, horizon, share)
    if rates is None:
        rates = np.full(horizon, lr)
    return Schedule(np.concatenate([[0.0], np.cumsum(rates)]))


def _rates(schedule: str, lr: float, warmup: int, horizon: int, decay_share: float) -> Array | None:
    """Learning rate of every update, (horizon,); None for a schedule that is not known here."""
    step = np.arange(horizon, dtype=float)
    ramp = np.minimum((step + 1) / warmup, 1.0) if warmup else np.ones(horizon)
    progress = np.clip((step - warmup) / max(horizon - warmup, 1), 0.0, 1.0)
    decay = {
        "constant": np.ones(horizon),
        "cosine": 0.5 * (1 + np.cos(np.pi * progress)),
        "linear": 1 - progress,
        "warmup_stable_decay": np.minimum((horizon - step) / (decay_share * horizon), 1.0),
    }.get(schedule)
    return None if decay is None else lr * ramp * decay
