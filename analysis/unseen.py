"""A cell that was not run, answered from the law across cells (method.md sections 5 and 6), or refused by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.asked import Asked
from analysis.comparable import outside_law
from analysis.law import SET, Law, Place, fit_law
from analysis.law_draws import LawDraws
from analysis.load import Study
from analysis.pilots import next_seed, pilot_command, rounded_up
from analysis.recommend import Analysis, CellResult, kohya, longest, observation, shows_minimum
from analysis.schedule import schedule_over
from conf.compose import options
from conf.errors import RequestError
from curves.answer import (
    DRAWS,
    TOLERATED_RISK,
    WIDEST_INTERVAL,
    Answer,
    Interval,
    Schedule,
    Window,
    answer,
)
from curves.law import LARGEST_FACTOR
from curves.recommendation import CellAnswer

Array = NDArray[np.float64]
NEAR = 0.05  # of gain: what a step is said to be within, with which probability
NEW = "new"  # dataset=new: images of which nothing was run
ASKED_LEVELS = ("method", "base_model", "captions", "dataset")
STEPS, REGRET_DRAWS = 200, 1000  # at which regret is looked at, and how often it is drawn
MOST_DONORS = 12  # of the shape; the law is made from all cells
OTHER_LEVEL = 2.0  # distance of a cell with another level, in natural logs of images or resolution
HORIZON_QUANTILE, HORIZON_FACTOR = 0.99, 1.5  # how far a constant schedule is looked at beyond the minimum


@dataclass(frozen=True)
class Unseen:
    """The cell that was asked for, with what answers it.

    Attributes:
        facts: its levels, as a cell's facts are.
        donors: cells whose minimum is known, nearest first, and their weights.
    """

    study: Study
    facts: dict[str, Any]
    place: Place
    law: Law
    donors: tuple[CellResult, ...]
    weights: Array

    @property
    def nearest(self) -> CellResult:
        return self.donors[0]

    def draws(self) -> LawDraws:
        pooled = tuple(donor.pooled for donor in self.donors if donor.pooled is not None)
        return LawDraws(self.law, self.place, pooled, self.weights)


def law_cells(analysis: Analysis) -> list[CellResult]:
    """The cells that the law is made from."""
    return [
        cell
        for cell, found in zip(analysis.cells, analysis.study.cells, strict=True)
        if cell.pooled is not None and shows_minimum(cell.pooled) and outside_law(found.runs) is None
    ]


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
    facts = _facts(analysis, cells, asked)
    own = [cell.answer for cell in analysis.cells if _is_cell(cell.answer, facts)]
    if own:
        return own[0]
    unseen = ask_unseen(analysis, asked)
    reason = refused_by_rule(unseen)
    return row_of(unseen, Answer("refused", reason), price) if reason else answer_unseen(unseen, price)


def ask_unseen(analysis: Analysis, asked: Asked) -> Unseen:
    """The cell that was asked for with the law and the cells that answer it, whether it was run or not.

    Raises:
        RequestError: a level that has to be said, or one that there is not; or no cell shows its minimum.
    """
    cells = law_cells(analysis)
    if not cells:
        raise RequestError(
            f"{analysis.study.root}: no cell of the study shows its minimum, so nothing is known of other cells: "
            "train longer, or ask for what needs no run with `python -m analysis recommend --prior ...`"
        )
    return _unseen(analysis.study, cells, _facts(analysis, cells, asked), asked)


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
    within = float(np.interp(found.recommended_steps or 0, steps, (regret <= NEAR).mean(axis=0)))
    reason = (
        f"from the law over {len(unseen.law.observed)} cells, none of its own runs: expected regret "
        f"{100 * expected:.0f} % of gain, within {100 * NEAR:.0f} % with P = {within:.2f}"
    )
    row = row_of(unseen, replace(found, status="ok", reason=reason), price)
    return replace(row, expected_regret=round(expected, 4))


def refused_by_rule(unseen: Unseen) -> str | None:
    """Why the law may not be asked about the cell, with the pilot that would lift that; None where it may."""
    observed = [item.place for item in unseen.law.observed]
    for name, unit in (("images", "images"), ("resolution", "px")):
        low, high = (pick(getattr(item, name) for item in observed) for pick in (min, max))
        value = getattr(unseen.place, name)
        if low / LARGEST_FACTOR <= value <= high * LARGEST_FACTOR:
            continue
        within = _within_reach(name, value)
        nearer = (
            replace(unseen.place, images=within)
            if name == "images"
            else replace(unseen.place, resolution=within)
        )
        return (
            f"{value} {unit}: more than a factor {LARGEST_FACTOR:g} outside of what was run ({low} to {high} {unit}); "
            f"a pilot lifts this: {pilot_of(unseen, nearer)}"
        )
    for name in ASKED_LEVELS:
        known = sorted({item.place.levels[name] for item in unseen.law.observed})
        if str(unseen.facts[name]) not in known and unseen.facts[name] != NEW:
            asked = f"{name}={unseen.facts[name]}: was not run ({', '.join(known)} were)"
            return f"{asked}; a pilot lifts this: {pilot_of(unseen)}"
    return None


def _facts(analysis: Analysis, cells: Sequence[CellResult], asked: Asked) -> dict[str, Any]:
    """All levels of the asked cell; what was not said is what all cells share."""
    known = [cell.answer for cell in cells or analysis.cells]
    facts: dict[str, Any] = {
        "images": _said("dataset_size", asked.dataset_size, [row.images for row in known])
    }
    facts["resolution"] = _said("resolution", asked.resolution, [row.resolution for row in known])
    for name in ASKED_LEVELS:
        facts[name] = _level(name, getattr(asked, name), [str(getattr(row, name)) for row in known])
    return facts | {"dataset_size": f"n{facts['images']}"}


def _said(key: str, said: Any, known: Sequence[Any]) -> Any:
    values = sorted(set(known), key=str)
    if said is None and len(values) != 1:
        others = ", and new for other images" if key == SET else ""
        raise RequestError(
            f"{key}: say which one is asked about: {key}=...; the study has {', '.join(map(str, values))}{others}"
        )
    return values[0] if said is None else said


def _level(name: str, said: str | None, known: Sequence[str]) -> str:
    """A level that was run, or one that there is; of image sets NEW, or the content id that begins so."""
    value = str(_said(name, said, known))
    if name == SET and value == NEW:
        return NEW
    if name == SET:
        begun = sorted({item for item in known if item.startswith(value)})
        if len(begun) != 1:
            valid = ", ".join(sorted(set(known)))
            raise RequestError(
                f"dataset={value}: is not the beginning of one content id; valid are {valid}, and new for other images"
            )
        return begun[0]
    if value not in known and value not in options(name):
        valid = ", ".join(sorted({*known, *options(name)}))
        raise RequestError(f"{name}={value}: there is no such option; valid are {valid}")
    return value


def _is_cell(cell: CellAnswer, facts: dict[str, Any]) -> bool:
    return cell.run is None and all(
        getattr(cell, name) == facts[name] for name in ("images", "resolution", *ASKED_LEVELS)
    )


def _unseen(study: Study, cells: Sequence[CellResult], facts: dict[str, Any], asked: Asked) -> Unseen:
    """Donors by distance: natural logs of images and resolution, and OTHER_LEVEL for each other level."""
    observed = [observation(cell, cell.pooled) for cell in cells if cell.pooled is not None]

    def distance(cell: CellResult) -> float:
        row = cell.answer
        logs = [math.log(float(getattr(row, name)) / facts[name]) for name in ("images", "resolution")]
        # A new image set is as far from all that were run.
        named = [name for name in ASKED_LEVELS if facts[name] != NEW]
        others = sum(str(getattr(row, name)) != str(facts[name]) for name in named)
        return float(math.hypot(*logs, OTHER_LEVEL * others))

    donors = sorted(cells, key=distance)[:MOST_DONORS]
    nearest = observed[list(cells).index(donors[0])].place
    levels = {**nearest.levels, **{name: str(facts[name]) for name in ASKED_LEVELS}}
    levels["base_id"] = next(
        (
            item.place.levels["base_id"]
            for item in observed
            if item.place.levels["base_model"] == facts["base_model"]
        ),
        "unknown",
    )
    place = Place(
        facts["images"], facts["resolution"], asked.batch or nearest.batch, asked.lr or nearest.lr, levels
    )
    weights = np.exp(-0.5 * np.array([distance(cell) for cell in donors]) ** 2) + 1e-12
    return Unseen(study, facts, place, fit_law(observed), tuple(donors), weights / weights.sum())


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


def _within_reach(name: str, value: int) -> int:
    """The smallest number of images or pixels from which the value is within reach; of the options where one fits."""
    least = math.ceil(value / LARGEST_FACTOR)
    group, prefix = ("dataset_size", "n") if name == "images" else ("resolution", "px")
    numbered = [int(item[len(prefix) :]) for item in options(group) if item[len(prefix) :].isdigit()]
    fitting = [number for number in sorted(numbered) if least <= number <= value]
    return fitting[0] if fitting else least


def pilot_of(unseen: Unseen, place: Place | None = None) -> str:
    """The command of the cheapest run that would let the law answer: there, or on the way there."""
    place = place or unseen.place
    mean, variance = unseen.law.moments(place)
    like = longest(unseen.nearest.best)
    known = all(
        unseen.facts[name] in (NEW, str(getattr(unseen.nearest.answer, name))) for name in ASKED_LEVELS
    )
    levels: dict[str, Any] = {
        "images": place.images,
        "resolution": place.resolution,
        "method": unseen.facts["method"],
        "base_model": unseen.facts["base_model"],
        "optimizer.lr": place.lr if known else None,  # of another method or base its own default
    }
    if unseen.facts[SET] == NEW:
        levels |= {"dataset": "folder", "dataset.path": "photos"}
    later = 2 * math.exp(mean + 1.645 * math.sqrt(variance)) / place.lr
    steps = later if known else like.facts.horizon
    return pilot_command(unseen.study, like, levels, next_seed(unseen.study.runs), rounded_up(steps))
