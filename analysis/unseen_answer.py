"""A cell that was not run, answered from the law across cells or refused by rule (docs/method.md, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import replace
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.asked import Asked
from analysis.law_draws import LawDraws
from analysis.reach import pilot_of, refused_by_rule
from analysis.recommend import Analysis, kohya, longest
from analysis.schedule import schedule_over
from analysis.unseen import ASKED_LEVELS, Unseen, ask_unseen, asked_facts, law_cells
from curves.answer import DRAWS, TOLERATED_RISK, WIDEST_INTERVAL, Answer, Interval, Schedule, Window, answer
from curves.recommendation import CellAnswer

Array = NDArray[np.float64]
NEAR = 0.05  # of gain: what a step is said to be within, with which probability
LARGEST_REGRET = (
    0.2  # of gain: where more is expected a constant does as well (docs/LOG.md), and nothing is recommended
)
STEPS, REGRET_DRAWS = 200, 1000  # at which regret is looked at, and how often it is drawn
HORIZON_QUANTILE, HORIZON_FACTOR = 0.99, 1.5  # how far a constant schedule is looked at beyond the minimum


def with_asked(analysis: Analysis, asked: Asked, price: float | None = None) -> Analysis:
    """The analysis with the row of a cell that was asked for, unless that was run and has its own.

    Raises:
        RequestError: as of recommend_unseen.
    """
    row, known = recommend_unseen(analysis, asked, price), analysis.recommendation
    if row in known.cells:
        return analysis
    return replace(analysis, recommendation=replace(known, cells=[*known.cells, row]))


def recommend_unseen(analysis: Analysis, asked: Asked, price: float | None = None) -> CellAnswer:
    """The row of a cell that was asked for: its own where it was run, else from the law, or refused by rule.

    Raises:
        RequestError: a level that has to be said, or one that there is not.
    """
    cells = law_cells(analysis)
    facts = asked_facts(analysis, cells, asked)
    own = [cell.answer for cell in analysis.cells if _is_cell(cell.answer, facts)]
    if own:
        return own[0]
    unseen = ask_unseen(analysis, asked)
    reason = refused_by_rule(unseen)
    return row_of(unseen, Answer("refused", reason), price) if reason else answer_unseen(unseen, price)


def _is_cell(cell: CellAnswer, facts: dict[str, Any]) -> bool:
    return cell.run is None and all(
        getattr(cell, name) == facts[name] for name in ("images", "resolution", *ASKED_LEVELS)
    )


def answer_unseen(unseen: Unseen, price: float | None = None) -> CellAnswer:
    """The law's answer, or that it is too wide."""
    draws, schedule = unseen.draws(), _schedule(unseen)
    minimum = _minimum(draws, schedule)
    if minimum.high > WIDEST_INTERVAL * max(minimum.low, 1):
        ratio = minimum.high / max(minimum.low, 1)
        reason = (
            f"too wide: the law puts the minimum between {minimum.low} and {minimum.high} steps, "
            f"high/low {ratio:.1f} and {WIDEST_INTERVAL:g} are allowed; a pilot narrows it: {pilot_of(unseen)}"
        )
        return row_of(unseen, Answer("refused", reason), price)
    found = answer(draws, schedule, price=price)
    steps, regret = _regrets(draws, schedule)
    if found.status != "ok":  # no step is as safe as section 3 asks for
        found = _least_regret(found, minimum, steps, regret, price)
    expected = float(np.interp(found.recommended_steps or 0, steps, regret.mean(axis=0)))
    if expected > LARGEST_REGRET:
        return row_of(unseen, Answer("refused", _too_unsure(unseen, found, expected)), price)
    within = float(np.interp(found.recommended_steps or 0, steps, (regret <= NEAR).mean(axis=0)))
    reason = (
        f"from the law over {len(unseen.law.observed)} cells, none of its own runs: expected regret "
        f"{100 * expected:.0f} % of gain, within {100 * NEAR:.0f} % with P = {within:.2f}"
    )
    row = row_of(unseen, replace(found, status="ok", reason=reason), price)
    return replace(row, expected_regret=round(expected, 4))


def _too_unsure(unseen: Unseen, found: Answer, expected: float) -> str:
    return (
        f"too unsure: the best steps that the law knows, {found.recommended_steps}, are expected to lose "
        f"{100 * expected:.0f} % of gain, and {100 * LARGEST_REGRET:g} % are allowed; "
        f"a pilot narrows it: {pilot_of(unseen)}"
    )


def _schedule(unseen: Unseen) -> Schedule:
    """The nearest cell's schedule for a minimum that comes earlier or later: its horizon grows by the same factor.

    A constant one has no horizon that matters: it is looked at to well beyond the minimum.
    """
    run = longest(unseen.nearest.best)
    assert unseen.nearest.pooled is not None
    if str(run.facts.hyperparameters.get("schedule", "constant")) == "constant":
        last = float(np.quantile(unseen.draws().minimum_draws(count=DRAWS), HORIZON_QUANTILE))
        return schedule_over(run, math.ceil(HORIZON_FACTOR * last / unseen.place.lr), unseen.place.lr)
    later = unseen.law.moments(unseen.place)[0] - unseen.nearest.pooled.log_time()[0]
    rate = run.time_rate / unseen.place.lr
    return schedule_over(run, max(1, round(run.facts.horizon * rate * math.exp(later))), unseen.place.lr)


def _minimum(draws: LawDraws, schedule: Schedule) -> Interval:
    steps = schedule.steps_at(draws.minimum_draws(float(schedule.lr_sum[-1]), DRAWS))
    low, median, high = np.quantile(steps, [0.05, 0.5, 0.95])
    return Interval(math.floor(low), round(median), math.ceil(high))


def _regrets(draws: LawDraws, schedule: Schedule) -> tuple[NDArray[np.int64], Array]:
    """Whole steps (grid,) up to the horizon, and draws of the regret there (draws, grid)."""
    horizon = schedule.horizon_steps
    spread = np.geomspace(max(1.0, horizon / 2000), horizon, STEPS).round()
    steps = np.unique(np.concatenate([[0], spread])).astype(np.int64)
    return steps, draws.regret_draws(schedule.lr_sum[steps], REGRET_DRAWS)


def _least_regret(
    found: Answer, minimum: Interval, steps: NDArray[np.int64], regret: Array, price: float | None
) -> Answer:
    """The steps of least expected regret where none is within 5 % of gain with P = 0.8."""
    within = (regret <= NEAR).mean(axis=0)
    kept = (np.minimum.accumulate(regret, axis=1) <= NEAR).mean(axis=0)
    likely, sure = steps[within >= 0.5], steps[kept >= 1 - TOLERATED_RISK]
    cost = regret.mean(axis=0) + (price or 0.0) * steps / steps[-1]
    return replace(
        found,
        recommended_steps=int(steps[np.argmin(regret.mean(axis=0))]),
        recommended_steps_best_kept=int(sure[0]) if len(sure) else None,
        minimum=minimum,
        window=Window(int(likely[0]), int(likely[-1]), bool(likely[-1] == steps[-1]))
        if len(likely)
        else None,
        priced_steps=None if price is None else int(steps[np.argmin(cost)]),
    )


def row_of(unseen: Unseen, found: Answer, price: float | None) -> CellAnswer:
    """The row of the table; without steps where the answer has none."""
    place, facts = unseen.place, unseen.facts
    values = {**unseen.nearest.answer.hyperparameters, "lr": place.lr, "batch": place.batch}
    ok = found.status == "ok" and found.recommended_steps is not None and found.minimum is not None
    steps, minimum = found.recommended_steps, found.minimum
    seen = steps * place.batch if ok and steps is not None else None
    if ok and "horizon" in values:
        values["horizon"] = _schedule(unseen).horizon_steps
    return CellAnswer(
        dataset_size=facts["dataset_size"],
        resolution=place.resolution,
        method=facts["method"],
        base_model=facts["base_model"],
        captions=facts["captions"],
        images=place.images,
        dataset=place.levels["dataset"],
        base_id=place.levels["base_id"],
        hyperparameters=values if ok else {},
        status=found.status,
        reason=found.reason,
        recommended_steps=steps if ok else None,
        recommended_steps_best_kept=found.recommended_steps_best_kept if ok else None,
        minimum=_interval(minimum) if ok and minimum is not None else None,
        window={"low": found.window.low, "high": found.window.high} if ok and found.window else None,
        window_open=bool(ok and found.window and found.window.open),
        priced=None if price is None or not ok else {"price": price, "steps": found.priced_steps or 0},
        images_seen=seen,
        epochs=None if seen is None else round(seen / place.images, 2),
        stopping="posterior" if ok else "evidence",
        evidence={
            "runs": 0,
            "evaluations": 0,
            "censored_runs": 0,
            "runs_found": 0,
            "cells": len(unseen.law.observed),
        },
        source="law",
        kohya=kohya(steps, place.images, place.batch) if ok else None,
    )


def _interval(minimum: Interval) -> dict[str, float]:
    return {"low": minimum.low, "median": minimum.median, "high": minimum.high, "level": minimum.level}
