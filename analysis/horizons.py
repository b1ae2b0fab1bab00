"""Horizon and schedule together: the held-out losses that runs end at after a cooldown, over their budgets.

Runs that decay to zero at budgets b give a curve of its own kind, (b, cooled loss at b), which is a U like any other
(docs/method.md, section 8). Between two branches the trunk's weight average reads it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import json

import numpy as np
from numpy.typing import NDArray

from analysis.load import Cell
from analysis.run import Run
from curves.answer import Answer, Schedule, answer
from curves.cooldown import SCHEDULE, TRUNK_SCHEDULE, is_cooled
from curves.panel import paired_difference
from curves.point import Point
from curves.posterior import FEWEST_POINTS, Curve, fit

Array = NDArray[np.float64]
Averaged = tuple[float, Array | None]  # loss, and that of each image
FEWEST_BUDGETS = FEWEST_POINTS
FEWEST_OFFSETS = 2  # branches that the average's offset is fitted on
SLOPE_SD = 0.1  # of the offset, where nothing is known; 0.04 to 0.16 were seen (docs/LOG.md)
ERRORS = 2.0  # paired standard errors that a difference has to exceed


@dataclass(frozen=True)
class Cooled:
    """The held-out loss after a cooldown at the end of a budget.

    Attributes:
        steps: the budget.
        lr_sum: sum of the learning rate over it.
        loss, se: measured by branches: the mean, without an error; read from the average: with its standard error.
        image_loss: (images,) of branches.
    """

    steps: int
    lr_sum: float
    loss: float
    se: float | None = None
    image_loss: Array | None = None

    @property
    def source(self) -> str:
        return "branch" if self.se is None else "average"


@dataclass(frozen=True)
class Offset:
    """What cooled losses lie above the averaged ones at the same steps: a line over the averaged loss.

    Attributes:
        value: at `centre`, the mean of the averaged losses that it is fitted on.
        slope: what it grows by over one unit of loss: past the minimum a cooldown does not undo what an average does.
        se: standard error of a reading at a fitted loss.
        losses: averaged, that it is fitted on.
        fitted_on: their budgets.
    """

    value: float
    slope: float
    centre: float
    se: float
    losses: tuple[float, ...]
    fitted_on: tuple[int, ...]

    def read(self, averaged: float) -> tuple[float, float]:
        """The cooled loss and its standard error; away from the fitted losses the slope may be off by its own size
        (docs/method.md, section 8).
        """
        distance = min(abs(averaged - loss) for loss in self.losses)
        loss = averaged + self.value + self.slope * (averaged - self.centre)
        return loss, float(np.hypot(self.se, self.slope * distance))


@dataclass(frozen=True)
class Family:
    """Runs of one parameter set that are cooled down at several budgets, and their trunks."""

    branches: tuple[Run, ...]
    trunks: tuple[Run, ...]


@dataclass(frozen=True)
class Comparison:
    """What a family says.

    Attributes:
        cooled: by rising budget, measured and read.
        offset: of the average; None without one.
        answer: the horizon; refused with fewer than FEWEST_BUDGETS budgets.
        schedule: lr_sum at the end of a cooled run, by its budget.
        difference, difference_se: best loss at constant learning rate minus best cooled loss, paired over images.
        gain: of the better of the two.
    """

    family: Family
    cooled: tuple[Cooled, ...]
    offset: Offset | None
    answer: Answer
    schedule: Schedule | None
    difference: float | None
    difference_se: float | None
    gain: float | None

    @property
    def best(self) -> Cooled:
        """The branch with the lowest loss."""
        return min((item for item in self.cooled if item.image_loss is not None), key=lambda item: item.loss)

    @property
    def is_clear(self) -> bool:
        """Whether the difference exceeds ERRORS paired standard errors."""
        if self.difference is None or self.difference_se is None:
            return False
        return abs(self.difference) > ERRORS * self.difference_se

    @property
    def better(self) -> str | None:
        """The schedule with the lower loss; None where there is no trunk to compare with."""
        if self.difference is None:
            return None
        return SCHEDULE if self.difference > 0 else TRUNK_SCHEDULE


def without_branches(cell: Cell) -> Cell:
    """The cell as the table answers it: cooled runs of several horizons are no replicates, and end where they must."""
    families = find_families(cell)
    cooled = {run.name for family in families for run in family.branches}
    rest = tuple(run for run in cell.runs if run.name not in cooled)
    return Cell(cell.identity, rest) if rest else cell


def compare(cell: Cell, price: float | None = None) -> Comparison | None:
    """The best family of a cell; None where nothing was cooled down at several budgets. Price: of `answer`."""
    found = [_compare(family, price) for family in find_families(cell)]
    return min(found, key=lambda item: item.best.loss, default=None)


def find_families(cell: Cell) -> list[Family]:
    """Runs that were cooled down to the end of their horizons, by the parameters that they share, where these differ."""
    groups: dict[str, list[Run]] = {}
    for run in cell.runs:
        if is_cooled(run.facts.hyperparameters) and _reached_horizon(run):
            groups.setdefault(_shared(run), []).append(run)
    trunks: dict[str, list[Run]] = {}
    for run in cell.runs:
        if run.facts.hyperparameters.get("schedule", TRUNK_SCHEDULE) == TRUNK_SCHEDULE and run.points:
            trunks.setdefault(_shared(run), []).append(run)
    return [
        Family(tuple(runs), tuple(trunks.get(key, ())))
        for key, runs in groups.items()
        if len({run.facts.horizon for run in runs}) > 1
    ]


def _reached_horizon(run: Run) -> bool:
    return bool(run.points) and run.points[-1].step == run.facts.horizon


def _shared(run: Run) -> str:
    """What a trunk and its branches have in common."""
    own = ("schedule", "decay_share", "horizon")
    values = {key: value for key, value in run.facts.hyperparameters.items() if key not in own}
    return json.dumps([values, sorted(run.panels)], sort_keys=True, default=str)


def _compare(family: Family, price: float | None) -> Comparison:
    measured = measured_losses(family)
    offset = fit_offset(measured, family.trunks)
    read = [] if offset is None else read_losses(measured, family.trunks, offset)
    cooled = tuple(sorted([*measured, *read], key=lambda item: item.steps))
    found, schedule = _answer(measured, cooled, family, price)
    difference, se = _difference(measured, family.trunks)
    return Comparison(family, cooled, offset, found, schedule, difference, se, _gain(measured, family))


def measured_losses(family: Family) -> list[Cooled]:
    """The last evaluations of the branches, by rising budget; replicates of a budget as their mean."""
    ends: dict[int, list[Point]] = {}
    for run in family.branches:
        ends.setdefault(run.facts.horizon, []).append(run.points[-1])
    rate = family.branches[0].time_rate
    return [
        Cooled(
            steps,
            float(np.mean([rate * point.step if point.lr_sum is None else point.lr_sum for point in points])),
            float(np.mean([point.val_loss for point in points])),
            image_loss=_mean_images([point.image_loss for point in points]),
        )
        for steps, points in sorted(ends.items())
    ]


def fit_offset(measured: Sequence[Cooled], trunks: Sequence[Run]) -> Offset | None:
    """The line of cooled minus averaged loss, over the budgets that have both; None with fewer than FEWEST_OFFSETS.

    docs/method.md, section 8. Its slope has the prior N(0, SLOPE_SD^2): two losses of one height say nothing of it.
    """
    averaged = _averaged(trunks)
    last = max(averaged, default=0)
    pairs = [(item, _averaged_at(averaged, item.steps)) for item in measured if item.steps <= last]
    if len(pairs) < FEWEST_OFFSETS:
        return None
    losses = np.array([loss for _, (loss, _) in pairs])
    offsets = np.array([item.loss for item, _ in pairs]) - losses
    images = [
        paired_difference(item.image_loss, image_loss)[1]
        for item, (_, image_loss) in pairs
        if item.image_loss is not None and image_loss is not None
    ]
    paired = float(np.mean(images)) if images else float(offsets.std(ddof=1))
    centred = losses - losses.mean()
    slope = float(centred @ offsets) / (float(centred @ centred) + (paired / SLOPE_SD) ** 2 + 1e-300)
    residual = offsets - offsets.mean() - slope * centred
    scatter = float(np.sqrt(residual @ residual / max(len(pairs) - 2, 1)))
    return Offset(
        value=float(offsets.mean()),
        slope=slope,
        centre=float(losses.mean()),
        se=float(np.hypot(scatter, paired)),
        losses=tuple(losses.tolist()),
        fitted_on=tuple(item.steps for item, _ in pairs),
    )


def read_losses(measured: Sequence[Cooled], trunks: Sequence[Run], offset: Offset) -> list[Cooled]:
    """Cooled losses at the trunk's evaluations between the smallest and the largest budget that have no branch."""
    known = [item.steps for item in measured]
    sums = _schedule(measured).lr_sum
    return [
        Cooled(steps, float(sums[steps]), *offset.read(loss))
        for steps, (loss, _) in sorted(_averaged(trunks).items())
        if known[0] < steps < known[-1] and steps not in known
    ]


def _averaged(trunks: Sequence[Run]) -> dict[int, Averaged]:
    """Averaged loss, and that of each image, by step: means over the trunks that all have it."""
    found: dict[int, list[Point]] = {}
    for run in trunks:
        for point in run.points:
            if point.averaged_loss is not None:
                found.setdefault(point.step, []).append(point)
    return {
        step: (
            float(np.mean([point.averaged_loss for point in points])),
            _mean_images([point.averaged_image_loss for point in points]),
        )
        for step, points in found.items()
        if len(points) == len(trunks)
    }


def _averaged_at(averaged: Mapping[int, Averaged], step: int) -> Averaged:
    """The same at a step between two evaluations, on the line through both."""
    below, above = (max(s for s in averaged if s <= step), min(s for s in averaged if s >= step))
    share = 0.0 if above == below else (step - below) / (above - below)
    (loss, images), (later, later_images) = averaged[below], averaged[above]
    loss = (1 - share) * loss + share * later
    if images is None or later_images is None or images.shape != later_images.shape:
        return loss, None
    return loss, np.asarray((1 - share) * images + share * later_images)


def _mean_images(rows: Sequence[list[float] | None]) -> Array | None:
    """Mean over runs of the loss of each image, where all have the same number of them."""
    known = [row for row in rows if row]
    if len(known) < len(rows) or len({len(row) for row in known}) != 1:
        return None
    return np.asarray(np.mean(known, axis=0))


def _schedule(measured: Sequence[Cooled]) -> Schedule:
    """lr_sum at the end of a cooled run, by its budget: it is recorded at the branches, and nearly straight."""
    steps = np.array([item.steps for item in measured])
    return Schedule.interpolated(steps, np.array([item.lr_sum for item in measured]), int(steps[-1]))


def _answer(
    measured: Sequence[Cooled], cooled: Sequence[Cooled], family: Family, price: float | None
) -> tuple[Answer, Schedule | None]:
    """The horizon whose cooled loss is lowest; the untouched base is the curve's first point."""
    if len(measured) < FEWEST_BUDGETS:
        return Answer(
            "refused", f"{len(measured)} budgets were cooled down, {FEWEST_BUDGETS} are needed"
        ), None
    schedule = _schedule(measured)
    base = [run.points[0] for run in family.branches if run.has_base]
    starts = [Cooled(0, 0.0, float(np.mean([point.val_loss for point in base])))] if base else []
    points = [*starts, *cooled]
    curve = Curve(
        np.array([item.steps for item in points], dtype=np.int64),
        np.array([item.lr_sum for item in points]),
        np.array([item.loss for item in points]),
    )
    posterior = fit(curve, horizon_lr_sum=float(schedule.lr_sum[-1]))
    return _from_smallest(answer(posterior, schedule, price=price), measured[0].steps), schedule


def _from_smallest(found: Answer, smallest: int) -> Answer:
    """An answer without horizons below the smallest budget: nothing was measured between the base and that."""
    if found.status != "ok" or found.recommended_steps is None or found.window is None:
        return found
    if found.window.high < smallest:
        reason = f"the best horizon lies below the smallest budget, {smallest} steps: add smaller ones"
        return replace(Answer("refused", reason), expected_minimum=found.minimum)
    best_kept, priced = found.recommended_steps_best_kept, found.priced_steps
    return replace(
        found,
        recommended_steps=max(found.recommended_steps, smallest),
        recommended_steps_best_kept=None if best_kept is None else max(best_kept, smallest),
        priced_steps=None if priced is None else max(priced, smallest),
        window=replace(found.window, low=max(found.window.low, smallest)),
    )


def _difference(measured: Sequence[Cooled], trunks: Sequence[Run]) -> tuple[float | None, float | None]:
    """Best observed loss at constant learning rate minus best cooled loss, and its paired error over images."""
    best = min(measured, key=lambda item: item.loss)
    points = [run.best for run in trunks if run.best is not None]
    if not points:
        return None, None
    constant = _mean_images([point.image_loss for point in points])
    loss = float(np.mean([point.val_loss for point in points]))
    if constant is None or best.image_loss is None or constant.shape != best.image_loss.shape:
        return loss - best.loss, None
    return paired_difference(constant, best.image_loss)


def _gain(measured: Sequence[Cooled], family: Family) -> float | None:
    """From the base to the lowest loss of either schedule."""
    runs = [*family.branches, *family.trunks]
    starts = [run.points[0].val_loss for run in runs if run.has_base]
    if not starts:
        return None
    lowest = [item.loss for item in measured]
    best = [run.best.val_loss for run in family.trunks if run.best is not None]
    constant = [loss for loss in best if loss is not None]
    if constant:
        lowest.append(float(np.mean(constant)))
    return float(np.mean([loss for loss in starts if loss is not None])) - min(lowest)
