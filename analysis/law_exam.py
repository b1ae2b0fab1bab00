"""The law's exam: every number of images, every resolution, every image set left out and recommended from the rest.

A left-out cell is asked for at its own best learning rate and batch, so that the regret is that of the steps alone.
Regrets are against the left-out cell's own runs there, in gain, beside those of the one number of steps that is best for
the cells that stay, and of 100 steps per image over the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math

import numpy as np

from analysis import words
from analysis.asked import Asked
from analysis.law import POWERS, SET, Law, fit_law
from analysis.recommend import Analysis, CellResult, longest, observation
from analysis.table import Table, print_table
from analysis.unseen import ASKED_LEVELS, NEW, law_cells
from analysis.unseen_answer import recommend_unseen
from analysis.verify import RULE_OF_THUMB, Truth, best_constant, truth_of_fitted
from conf.errors import RequestError
from curves.law import LARGEST_FACTOR
from curves.recommendation import CellAnswer

AXES = ("images", "resolution", SET)


@dataclass(frozen=True)
class Question:
    """One left-out cell. Regrets in gain, means over its runs; None where the law refused.

    Attributes:
        beyond: whether it lies more than a factor 2 outside of what stayed, and so has to be refused.
        log_ratio: log of the predicted minimum's median over the true one.
        covered: whether the predicted interval holds the true minimum.
    """

    axis: str
    cell: CellAnswer
    row: CellAnswer
    beyond: bool
    minimum: float
    regret: float | None
    log_ratio: float | None
    covered: bool | None
    constant_regret: float
    rule_of_thumb_regret: float


@dataclass(frozen=True)
class Marks:
    """What an axis comes to; means over the answered questions, nan where there is none."""

    asked: int
    answered: int
    beyond: int
    beyond_refused: int
    regret: float
    ratio: float  # exp of the mean |log ratio|
    coverage: float
    constant_regret: float
    rule_of_thumb_regret: float


def sit_exam(analysis: Analysis, axis: str) -> list[Question]:
    """Every value of an axis left out in turn; none where the study has one value."""
    cells = law_cells(analysis)
    truths = {id(cell): _truths(cell) for cell in cells}
    questions = []
    for value in sorted({getattr(cell.answer, axis) for cell in cells}):
        kept = [cell for cell in cells if getattr(cell.answer, axis) != value]
        if not kept:
            continue
        known = _only(analysis, kept)
        constant, _ = best_constant([truth for cell in kept for truth in truths[id(cell)]])
        for cell in cells:
            if getattr(cell.answer, axis) == value and truths[id(cell)] and _levels_stay(axis, cell, kept):
                questions.append(_question(axis, known, kept, cell, truths[id(cell)], constant or 0))
    return questions


def _levels_stay(axis: str, cell: CellResult, kept: Sequence[CellResult]) -> bool:
    """Whether its method, base, captions and, unless that is left out, image set were run elsewhere."""
    return all(
        getattr(cell.answer, name) in {getattr(item.answer, name) for item in kept}
        for name in ASKED_LEVELS
        if name != axis
    )


def _truths(cell: CellResult) -> list[Truth]:
    """Of the cell's runs at its best hyperparameters."""
    found = [truth_of_fitted(item) for item in cell.best]
    return [truth for truth in found if truth is not None]


def _only(analysis: Analysis, kept: Sequence[CellResult]) -> Analysis:
    """The analysis as if the other cells had not been run."""
    pairs = zip(analysis.study.cells, analysis.cells, strict=True)
    stay = [found for found, cell in pairs if any(cell is item for item in kept)]
    return replace(analysis, study=replace(analysis.study, cells=tuple(stay)), cells=tuple(kept))


def _question(
    axis: str,
    known: Analysis,
    kept: Sequence[CellResult],
    cell: CellResult,
    truths: list[Truth],
    constant: int,
) -> Question:
    answer, run = cell.answer, longest(cell.best)
    batch = int(run.facts.hyperparameters.get("batch") or 1)
    levels = (answer.images, answer.resolution, answer.method, answer.base_model, answer.captions)
    image_set = NEW if axis == SET else answer.dataset
    row = recommend_unseen(known, Asked(*levels, image_set, run.time_rate, batch))
    minimum = float(np.exp(np.mean([math.log(max(truth.minimum, 1)) for truth in truths])))
    interval, steps = row.minimum, row.recommended_steps
    return Question(
        axis=axis,
        cell=answer,
        row=row,
        beyond=axis != SET and _beyond(getattr(answer, axis), [getattr(item.answer, axis) for item in kept]),
        minimum=minimum,
        regret=None if steps is None else _regret(truths, steps),
        log_ratio=None if interval is None else math.log(max(interval["median"], 1) / minimum),
        covered=None if interval is None else interval["low"] <= minimum <= interval["high"],
        constant_regret=_regret(truths, constant),
        rule_of_thumb_regret=_regret(truths, RULE_OF_THUMB * (answer.images or 0) / batch),
    )


def _beyond(value: int, values: Sequence[int]) -> bool:
    return not min(values) / LARGEST_FACTOR <= value <= max(values) * LARGEST_FACTOR


def _regret(truths: Sequence[Truth], steps: float) -> float:
    """Mean over runs; a budget beyond a run's end counts as one up to it."""
    return float(np.mean([truth.at(min(steps, truth.steps[-1])) for truth in truths]))


def mark(questions: Sequence[Question]) -> Marks:
    """The marks of one axis."""
    answered = [item for item in questions if item.regret is not None]
    beyond = [item for item in questions if item.beyond]
    log_ratios = [abs(item.log_ratio) for item in answered if item.log_ratio is not None]
    return Marks(
        asked=len(questions),
        answered=len(answered),
        beyond=len(beyond),
        beyond_refused=sum(item.regret is None for item in beyond),
        regret=_mean([item.regret for item in answered if item.regret is not None]),
        ratio=math.exp(_mean(log_ratios)),
        coverage=_mean([float(bool(item.covered)) for item in answered]),
        constant_regret=_mean([item.constant_regret for item in answered]),
        rule_of_thumb_regret=_mean([item.rule_of_thumb_regret for item in answered]),
    )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def law_lines(law: Law) -> list[str]:
    """The powers that were swept, with their intervals, and the scatter between cells."""
    names = {"images": "N", "resolution": "R", "batch": "batch", "lr": "lr"}
    lines = []
    for name in POWERS:
        values = sorted({getattr(item.place, name) for item in law.observed})
        if len(values) > 1:
            low, median, high = law.coefficient(name)
            lines.append(
                f"lr x steps at the minimum goes with {names[name]}^{median:.2f} ({low:.2f} to {high:.2f}) over "
                f"{len(values)} values from {values[0]:g} to {values[-1]:g}"
            )
    if len({item.place.levels[SET] for item in law.observed}) > 1:
        lines.append(f"between image sets: a factor e^{law.between_sets:.2f}")
    if law.between_kinds is not None:
        lines.append(
            f"between bases, methods and captions of one image set: a factor e^{law.between_kinds:.2f}"
        )
    return [
        *lines,
        f"what is left between cells: a factor e^{law.between_cells:.2f}; {len(law.observed)} cells",
    ]


def exam_table(questions: Sequence[Question]) -> Table:
    """One row a left-out cell; regrets in per cent of gain."""
    titles = ["left out", "method", "images", "resolution", "steps", "predicted minimum", "minimum"]
    titles += ["regret %", "constant %", "100/image %"]
    rows = [
        [
            item.axis,
            item.cell.method,
            words.count(item.cell.images),
            words.count(item.cell.resolution),
            words.steps_or_status(item.row),
            words.minimum(item.row),
            words.count(item.minimum),
            words.NONE if item.regret is None else f"{100 * item.regret:.1f}",
            f"{100 * item.constant_regret:.1f}",
            f"{100 * item.rule_of_thumb_regret:.1f}",
        ]
        for item in questions
    ]
    return Table(titles, rows, frozenset({"left out", "method"}))


def print_law(analysis: Analysis) -> None:
    """Print the law and its exam.

    Raises:
        RequestError: no cell shows its minimum.
    """
    cells = law_cells(analysis)
    if not cells:
        raise RequestError(
            f"{analysis.study.root}: no cell shows its minimum, so there is no law across cells"
        )
    for line in law_lines(
        fit_law([observation(cell, cell.pooled) for cell in cells if cell.pooled is not None])
    ):
        print(line)
    questions = {axis: sit_exam(analysis, axis) for axis in AXES}
    asked = [item for items in questions.values() for item in items]
    if not asked:
        print("\nno exam: with one number of images and one resolution nothing can be left out")
        return
    print()
    print_table(exam_table(asked))
    print()
    for axis, items in questions.items():
        if items:
            print(_marks_line(axis, items))


def _marks_line(axis: str, questions: Sequence[Question]) -> str:
    marks = mark(questions)
    text = f"{axis} left out: {marks.answered} of {marks.asked} cells answered"
    if marks.beyond:
        text += f"; {marks.beyond_refused} of {marks.beyond} beyond a factor {LARGEST_FACTOR:g} refused"
    if marks.answered:
        text += (
            f"; mean regret {100 * marks.regret:.1f} % of gain, of a constant {100 * marks.constant_regret:.1f} %, of 100 "
            f"steps per image {100 * marks.rule_of_thumb_regret:.1f} %; minimum off by a factor {marks.ratio:.2f}, its "
            f"interval holds {100 * marks.coverage:.0f} %"
        )
    return text
