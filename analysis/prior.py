"""An answer before any run, from public facts alone, marked as such (docs/method.md, section 5).

The facts are of Stable Diffusion 1.5, the whole UNet, 512 pixels, batch 1, constant learning rate: lr x steps at the
lowest deterministic held-out loss was 6.7e-4 to 8.0e-4 for 20 images and rates of 1e-7 to 1e-6, and grew as N^0.81 from 10
to 270 images. They are of two image sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
import math
import shlex

import numpy as np
from numpy.typing import NDArray

from analysis import words
from analysis.asked import Asked
from analysis.law import PRIORS
from analysis.pilots import resolution_override, rounded_up, size_override
from analysis.recommend import kohya
from analysis.unseen_answer import NEAR
from conf.errors import RequestError
from curves.answer import DRAWS, TOLERATED_RISK, WIDEST_INTERVAL
from curves.law import LARGEST_FACTOR
from curves.pooling import SPREAD_MEDIAN
from curves.shapes import COORDINATES, quasi_normal, regret_within, shapes_from_normal

Array = NDArray[np.float64]

METHOD, BASES, RESOLUTION = "text_to_image", ("sd14", "sd15"), 512
LR_SUM, IMAGES = math.sqrt(6.7e-4 * 8.0e-4), 20
RATES, SIZES = (1e-7, 1e-6), (10, 270)
# 0.81 +- 0.07 from 10 to 270 images, 0.64 up to 100 of them: one power is not known better than to this.
POWER = (0.81, 0.12)
# Two image sets agree within a factor 1.2, and nothing public says how far others differ: assumed, not measured.
BETWEEN_SETS_SD = 0.4
LEVEL = 0.9
GRID = 300
UNKNOWN = (
    "how far your images differ from the two public sets",
    "your held-out loss: no run of yours was looked at",
    "how many steps look best: the minimum is a lower bound for likeness",
)


@dataclass(frozen=True)
class PriorAnswer:
    """What public facts say of a cell. Steps need a learning rate; without one only their product with it is known.

    Attributes:
        status: prior_only or refused; the reason says why or what is needed.
        lr_sum, steps: {low, median, high, level} of the minimum.
        first_guess: steps of least expected regret, the last checkpoint kept, with that regret in gain and the
            probability that it is within 5 % of gain.
        best_kept: steps by which a checkpoint within 5 % of gain has passed with P = 0.8.
        pilot: the command of the run that would replace this answer.
    """

    status: str
    reason: str
    cell: str
    lr_sum: dict[str, float] | None = None
    steps: dict[str, int] | None = None
    first_guess: int | None = None
    expected_regret: float | None = None
    within: float | None = None
    best_kept: int | None = None
    images_seen: int | None = None
    epochs: float | None = None
    kohya: dict[str, int] | None = None
    not_known: tuple[str, ...] = UNKNOWN
    pilot: str = ""


def prior_answer(asked: Asked) -> PriorAnswer:
    """The answer for a cell of which nothing was run.

    Raises:
        RequestError: neither method nor dataset_size may be left out.
    """
    reason = _refusal(asked)
    cell = (
        f"{asked.method}, {asked.dataset_size} images, {asked.resolution or RESOLUTION} px, "
        f"{asked.base_model or BASES[-1]}, batch {asked.batch or 1}"
    )
    if reason:
        return PriorAnswer("refused", reason, cell, pilot=_pilot(asked, None))
    assert asked.dataset_size is not None
    log_time = _log_times(asked.dataset_size, asked.batch or 1)
    lr_sum = _quantiles(np.exp(log_time))
    if lr_sum["high"] > WIDEST_INTERVAL * lr_sum["low"]:
        reason = f"too wide: high/low of the minimum would be {lr_sum['high'] / lr_sum['low']:.1f}"
        return PriorAnswer("refused", reason, cell, pilot=_pilot(asked, lr_sum))
    if asked.lr is None:
        reason = "say optimizer.lr=...: lr x steps is what is known, steps follow from it"
        return PriorAnswer("prior_only", reason, cell, lr_sum, pilot=_pilot(asked, lr_sum))
    return _with_steps(asked, asked.lr, cell, log_time, lr_sum)


def _refusal(asked: Asked) -> str:
    """Why public facts say nothing of the cell; empty where they do."""
    facts = f"public facts are of method={METHOD}, base_model={' or '.join(BASES)}, resolution={RESOLUTION}"
    if asked.method is None or asked.dataset_size is None:
        missing = "method" if asked.method is None else "dataset_size"
        raise RequestError(f"--prior: say {missing}=...; {facts}")
    if asked.method != METHOD:
        return f"method={asked.method}: nobody has published where its held-out loss is lowest; {facts}"
    if (asked.base_model or BASES[-1]) not in BASES:
        return f"base_model={asked.base_model}: {facts}"
    if (asked.resolution or RESOLUTION) != RESOLUTION:
        return f"resolution={asked.resolution}: nobody has published how the minimum moves with it; {facts}"
    if not SIZES[0] / LARGEST_FACTOR <= asked.dataset_size <= SIZES[1] * LARGEST_FACTOR:
        reach = f"more than a factor {LARGEST_FACTOR:g} outside of {SIZES[0]} to {SIZES[1]} images"
        return f"dataset_size={asked.dataset_size}: {reach}; {facts}"
    if asked.lr is not None and not RATES[0] / LARGEST_FACTOR <= asked.lr <= RATES[1] * LARGEST_FACTOR:
        return (
            f"optimizer.lr={asked.lr:g}: more than a factor {LARGEST_FACTOR:g} outside of {RATES[0]:g} to {RATES[1]:g}, "
            "beyond which lr x steps is not constant"
        )
    return ""


def _log_times(images: int, batch: int) -> Array:
    """Draws of log S* of a fresh run, (DRAWS,)."""
    power, of_batch, between, run = quasi_normal(DRAWS, 4).T
    return np.asarray(
        math.log(LR_SUM)
        + (POWER[0] + POWER[1] * power) * math.log(images / IMAGES)
        + (PRIORS["batch"][0] + PRIORS["batch"][1] * of_batch) * math.log(batch)
        + BETWEEN_SETS_SD * between
        + SPREAD_MEDIAN * run
    )


def _with_steps(asked: Asked, lr: float, cell: str, log_time: Array, lr_sum: dict[str, float]) -> PriorAnswer:
    """Section 3 on draws of time and shape; no step is within 5 % with P = 0.8 then, so the least regret is given."""
    assert asked.dataset_size is not None
    shapes = shapes_from_normal(quasi_normal(DRAWS, len(COORDINATES), skip=DRAWS), 0.0, 1.0)
    shapes = shapes.at_time(np.exp(log_time))
    horizon = math.ceil(4 * lr_sum["high"] / lr)
    steps = np.unique(np.geomspace(1, horizon, GRID).round())
    regret = regret_within(np.concatenate([[0.0], steps]) * lr, shapes)[:, 1:]
    regret = regret[np.isfinite(regret).all(axis=1)]  # shapes without a minimum below their start
    at = int(np.argmin(regret.mean(axis=0)))
    kept = (np.minimum.accumulate(regret, axis=1) <= NEAR).mean(axis=0)
    guess, batch = int(steps[at]), asked.batch or 1
    minimum = {name: round(lr_sum[name] / lr) for name in ("low", "median", "high")}
    return PriorAnswer(
        status="prior_only",
        reason=f"from public runs alone, at a constant learning rate of {words.rate(lr)}",
        cell=cell,
        lr_sum=lr_sum,
        steps=minimum,
        first_guess=guess,
        expected_regret=round(float(regret[:, at].mean()), 3),
        within=round(float((regret[:, at] <= NEAR).mean()), 2),
        best_kept=int(steps[np.argmax(kept >= 1 - TOLERATED_RISK)]),
        images_seen=guess * batch,
        epochs=round(guess * batch / asked.dataset_size, 2),
        kohya=kohya(guess, asked.dataset_size, batch),
        pilot=_pilot(asked, lr_sum),
    )


def _quantiles(draws: Array) -> dict[str, float]:
    low, median, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return {"low": float(low), "median": float(median), "high": float(high), "level": LEVEL}


def _pilot(asked: Asked, lr_sum: dict[str, float] | None) -> str:
    """The run that would replace the answer: it measures the cell, and goes on until its minimum is passed."""
    levels = [f"method={asked.method or METHOD}", f"base_model={asked.base_model or BASES[-1]}"]
    if asked.dataset_size is not None:
        levels += size_override(asked.dataset_size)
    levels += resolution_override(asked.resolution) if asked.resolution is not None else []
    levels += [f"optimizer.lr={asked.lr!r}"] if asked.lr is not None else []
    levels += [f"optimizer.batch_size={asked.batch}"] if asked.batch is not None else []
    if lr_sum is not None and asked.lr is not None:
        levels.append(f"budget.max_steps={rounded_up(1.5 * lr_sum['high'] / asked.lr)}")
    return shlex.join(
        ["python", "train.py", "dataset=folder", "dataset.path=photos", *levels, "stopping=evidence"]
    )


def prior_lines(found: PriorAnswer) -> list[str]:
    """The answer in words."""
    lines = [f"prior only, from no run: {found.cell}"]
    if found.status == "refused":
        return [*lines, f"refused: {found.reason}", f"a pilot run would tell: {found.pilot}"]
    assert found.lr_sum is not None
    low, median, high = (words.rate(found.lr_sum[name]) for name in ("low", "median", "high"))
    lines.append(f"lr x steps at the minimum: {median} ({low} to {high})")
    if found.steps is None:
        return [*lines, found.reason, *_not_known(found)]
    lines += [
        f"minimum: {found.steps['median']} steps ({found.steps['low']} to {found.steps['high']}); {found.reason}",
        f"a first guess, the last checkpoint kept: {found.first_guess} steps, {found.images_seen} images seen, "
        f"{words.number(found.epochs)} epochs; expected regret {100 * (found.expected_regret or 0):.0f} % of gain, "
        f"within 5 % with P = {found.within}",
        f"the best checkpoint kept: {found.best_kept} steps",
    ]
    if found.kohya is not None:
        lines.append(words.kohya(found.kohya))
    return [*lines, *_not_known(found)]


def _not_known(found: PriorAnswer) -> list[str]:
    return [f"not known: {'; '.join(found.not_known)}", f"a pilot run would tell: {found.pilot}"]


def print_prior(asked: Asked, as_json: bool) -> None:
    found = prior_answer(asked)
    lines: Sequence[str] = [json.dumps(asdict(found), indent=2)] if as_json else prior_lines(found)
    print("\n".join(lines))
