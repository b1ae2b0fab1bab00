"""The schedule that a cell's row recommends, with its horizon, and what the other one would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from analysis.horizons import Comparison, Offset
from analysis.run import Run
from curves.cooldown import SCHEDULE, TRUNK_SCHEDULE
from curves.panel import paired_difference
from curves.recommendation import CellAnswer


def with_better_schedule(row: CellAnswer, found: Comparison, price: float | None) -> CellAnswer:
    """A cell's row with the comparison.

    It recommends the cooldown where that has an answer and is clearly better, or where the constant learning rate has
    no answer and is not clearly better; else what it recommended before.
    """
    row = replace(row, reason=f"{row.reason}; {in_words(found)}", schedules=record(found, row))
    chosen = found.answer
    cooled_better = found.better != TRUNK_SCHEDULE
    takes = (cooled_better and found.is_clear) or (
        row.status != "ok" and (cooled_better or not found.is_clear)
    )
    if chosen.status != "ok" or chosen.minimum is None or chosen.window is None or not takes:
        return row
    assert chosen.recommended_steps is not None
    best = _best_run(found)
    batch, images = best.facts.hyperparameters.get("batch") or 1, row.images
    seen = chosen.recommended_steps * int(batch)
    minimum = {"low": chosen.minimum.low, "median": chosen.minimum.median, "high": chosen.minimum.high}
    gain, gain_se = _gain(best)
    return replace(
        row,
        hyperparameters={**best.facts.hyperparameters, "horizon": chosen.recommended_steps},
        status="ok",
        recommended_steps=chosen.recommended_steps,
        recommended_steps_best_kept=chosen.recommended_steps,  # the end of a cooldown is its best
        priced=None if price is None else {"price": price, "steps": float(chosen.priced_steps or 0)},
        minimum={**minimum, "level": chosen.minimum.level},
        window={"low": chosen.window.low, "high": chosen.window.high},
        window_open=chosen.window.open,
        lower_bound=None,
        images_seen=seen,
        epochs=round(seen / images, 2) if images else None,
        gain=gain,
        gain_se=gain_se,
        best_step_observed=found.best.steps,
        stopping="none",
        path=best.name,
        kohya=None,  # their repeats and epochs say nothing of a cooldown
    )


def _best_run(found: Comparison) -> Run:
    """Of the branches of the best budget the one with the lowest loss."""
    runs = [run for run in found.family.branches if run.facts.horizon == found.best.steps]
    return min(runs, key=lambda run: run.points[-1].val_loss or np.inf)


def _gain(run: Run) -> tuple[float | None, float | None]:
    """From the base to the end of a branch, with the paired error over images."""
    curve = run.curve()
    if not run.has_base:
        return None, None
    if curve.image_loss is None:
        return float(curve.loss[0] - curve.loss[-1]), None
    return paired_difference(curve.image_loss[0], curve.image_loss[-1])


def in_words(found: Comparison) -> str:
    """Which schedule is better, by how much, and whether that can be told."""
    budgets = sum(item.image_loss is not None for item in found.cooled)
    if found.better is None or found.difference is None:
        return f"{SCHEDULE} at {budgets} budgets; there is no trunk at constant learning rate to compare with"
    share = (
        ""
        if not found.gain or found.gain <= 0
        else f" by {100 * abs(found.difference) / found.gain:.1f} % of the gain"
    )
    errors = "of unknown error"
    if found.difference_se:
        errors = f"{abs(found.difference) / found.difference_se:.1f} paired errors"
    clear = "" if found.is_clear else ", which is no clear difference"
    return f"best {found.better}{share} ({errors}{clear}); {_horizon_words(found)}"


def _horizon_words(found: Comparison) -> str:
    if found.answer.status == "ok" and found.answer.minimum is not None:
        return (
            f"{SCHEDULE} is best over {found.answer.minimum.median} steps ({found.answer.minimum.low} to "
            f"{found.answer.minimum.high}), within 5 % from {found.answer.recommended_steps}"
        )
    return f"no horizon: {found.answer.status}, {found.answer.reason}"


def record(found: Comparison, constant: CellAnswer) -> dict[str, Any]:
    """The field `schedules` of a cell in recommendation.json; `constant` is the row without them."""
    chosen = found.answer
    minimum = chosen.minimum
    return {
        "better": found.better,
        "clear": found.is_clear,
        "difference": found.difference,
        "difference_se": found.difference_se,
        "share_of_gain": found.difference / found.gain
        if found.difference is not None and found.gain
        else None,
        TRUNK_SCHEDULE: {"status": constant.status, "recommended_steps": constant.recommended_steps},
        SCHEDULE: {
            "status": chosen.status,
            "reason": chosen.reason,
            "horizon": chosen.recommended_steps,
            "minimum": None
            if minimum is None
            else {"low": minimum.low, "median": minimum.median, "high": minimum.high, "level": minimum.level},
            "lower_bound": chosen.lower_bound,
            "losses": [
                {"steps": item.steps, "loss": item.loss, "se": item.se, "source": item.source}
                for item in found.cooled
            ],
        },
        "average": None if found.offset is None else _offset_record(found.offset),
    }


def _offset_record(offset: Offset) -> dict[str, Any]:
    return {
        "offset": offset.value,
        "slope": offset.slope,
        "se": offset.se,
        "fitted_on": list(offset.fitted_on),
    }
