"""The law across cells: time of the minimum against images, resolution, batch, lr and levels (method.md section 5).

    log S* = mu + rho_N log N + rho_R log R + rho_B log B + rho_lr log lr + levels + r_cell + noise

S* is the sum of the learning rate at the minimum, r_cell ~ N(0, tau^2) what the terms do not explain, noise the error
of a cell's own curves. Given tau all is normal and in closed form; tau is integrated on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtr

from curves.law import EXPONENT_PRIOR

Array = NDArray[np.float64]
FEWEST_SIZES = 3
LEVEL = 0.9
BETWEEN_CELLS_SD = 0.3  # half-normal prior scale of tau, natural log of time
TAU = np.linspace(0.0, 3 * BETWEEN_CELLS_SD, 46)
POWERS = ("images", "resolution", "batch", "lr")  # terms that are powers
LEVELS = ("method", "base_id", "captions", "dataset")  # terms that are steps between levels
# Mean and standard deviation of each power (docs/method.md, section 5).
PRIORS = {"images": EXPONENT_PRIOR, "resolution": (0.0, 1.5), "batch": (-0.5, 0.25), "lr": (0.0, 0.15)}
MEAN_SD, LEVEL_SD = 5.0, 2.0  # of mu, and of a level against the first


@dataclass(frozen=True)
class Place:
    """Where in the law a cell lies: the bases of POWERS, its level of each of LEVELS, and `base_model`, a name."""

    images: int
    resolution: int
    batch: int
    lr: float
    levels: Mapping[str, str]

    def logs(self) -> Array:
        """Natural logs of POWERS."""
        return np.log([float(getattr(self, name)) for name in POWERS])


@dataclass(frozen=True)
class Observation:
    """What a cell's own curves say: log S* of its typical run, and the variance of that."""

    place: Place
    log_time: float
    variance: float


@dataclass(frozen=True)
class Law:
    """The posterior: for each tau of a grid its weight and a normal of the coefficients.

    Attributes:
        observed: the cells that it is made from.
        columns: names of the coefficients: mu, POWERS, then NAME=LEVEL for all levels but the first of each.
        centre: logs at which mu is the value, (4,).
        weights: of TAU, sum 1.
        means, covariances: of the coefficients, (tau, columns) and (tau, columns, columns).
    """

    observed: tuple[Observation, ...]
    columns: tuple[str, ...]
    centre: Array
    weights: Array
    means: Array
    covariances: Array

    def draw(self, place: Place, count: int, seed: int = 0) -> Array:
        """log S* of the typical run of a cell there, (count,); a level that was not observed counts as the first."""
        random = np.random.default_rng(seed)
        at = random.choice(len(TAU), count, p=self.weights)
        row = _row(place, self.columns, self.centre)
        mean = self.means @ row
        variance = np.einsum("i,tij,j->t", row, self.covariances, row) + TAU**2
        return np.asarray(mean[at] + np.sqrt(variance[at]) * random.standard_normal(count))

    def moments(self, place: Place) -> tuple[float, float]:
        """Mean and variance of log S* of the typical run of a cell there."""
        row = _row(place, self.columns, self.centre)
        mean = self.means @ row
        variance = np.einsum("i,tij,j->t", row, self.covariances, row) + TAU**2
        centre = float(self.weights @ mean)
        return centre, float(self.weights @ (variance + (mean - centre) ** 2))

    def coefficient(self, column: str) -> tuple[float, float, float]:
        """Posterior quantiles (5, 50, 95 %) of one coefficient."""
        at = self.columns.index(column)
        mean, sd = self.means[:, at], np.sqrt(self.covariances[:, at, at])
        grid = np.linspace((mean - 6 * sd).min(), (mean + 6 * sd).max(), 4001)
        cumulative = self.weights @ ndtr((grid[None, :] - mean[:, None]) / np.maximum(sd[:, None], 1e-12))
        low, median, high = np.interp([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], cumulative, grid)
        return float(low), float(median), float(high)

    @property
    def between_cells(self) -> float:
        """Posterior mean of tau."""
        return float(self.weights @ TAU)


def fit_law(observed: Sequence[Observation]) -> Law:
    """The posterior of the law. Raises ValueError without an observation."""
    if not observed:
        raise ValueError("a law needs at least one cell whose minimum is known")
    centre = np.mean([item.place.logs() for item in observed], axis=0)
    columns = ("mu", *POWERS, *_levels(observed))
    rows = np.array([_row(item.place, columns, centre) for item in observed])
    times = np.array([item.log_time for item in observed])
    offset = float(times.mean())
    prior_mean = np.array([offset if name == "mu" else PRIORS.get(name, (0.0,))[0] for name in columns])
    prior_sd = np.array([_prior_sd(name) for name in columns])
    spread = rows * prior_sd**2  # cov(coefficients, times) is its transpose
    residual = times - rows @ prior_mean
    noise = np.array([item.variance for item in observed])
    score, means, covariances = [], [], []
    for tau in TAU:
        factor = cho_factor(spread @ rows.T + np.diag(noise + tau**2 + 1e-9), lower=True)
        solved = cho_solve(factor, residual)
        means.append(prior_mean + spread.T @ solved)
        covariances.append(np.diag(prior_sd**2) - spread.T @ cho_solve(factor, spread))
        evidence = -0.5 * residual @ solved - np.log(np.diag(factor[0])).sum()
        score.append(evidence - 0.5 * (tau / BETWEEN_CELLS_SD) ** 2)
    weights = np.exp(np.array(score) - max(score))
    return Law(
        tuple(observed), columns, centre, weights / weights.sum(), np.array(means), np.array(covariances)
    )


def _levels(observed: Sequence[Observation]) -> list[str]:
    """NAME=LEVEL of every level but the first of each name, in the order of their names."""
    found = {name: sorted({item.place.levels[name] for item in observed}) for name in LEVELS}
    return [f"{name}={level}" for name, levels in found.items() for level in levels[1:]]


def _prior_sd(column: str) -> float:
    if column == "mu":
        return MEAN_SD
    return PRIORS[column][1] if column in PRIORS else LEVEL_SD


def _row(place: Place, columns: Sequence[str], centre: Array) -> Array:
    steps = [float(place.levels[name] == level) for name, _, level in (c.partition("=") for c in columns[5:])]
    return np.array([1.0, *(place.logs() - centre), *steps])


def exponent(images: Array, time: Array, log_sd: Array) -> tuple[float, float, float]:
    """Posterior quantiles (5, 50, 95 %) of the power of the images alone; all arrays are (cells,)."""
    levels = dict.fromkeys(LEVELS, "")
    cells = zip(images, time, log_sd, strict=True)
    observed = [
        Observation(Place(int(n), 1, 1, 1.0, levels), float(np.log(t)), float(s) ** 2) for n, t, s in cells
    ]
    return fit_law(observed).coefficient("images")


def law_record(
    observed: Sequence[Observation], left_out: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """`law` of recommendation.json; None with fewer than three sizes and one resolution, where nothing is left out.

    left_out: cells that may not be used, and why.
    """
    groups = _groups(observed)
    terms = _terms(observed) if groups or _values(observed, "resolution") > 1 else None
    if not groups and not left_out and terms is None:
        return None
    law: dict[str, Any] = {"quantity": "sum of the learning rate at the minimum", "groups": groups}
    if terms is not None:
        law |= terms
    return law | {"left_out": dict(left_out)} if left_out else law


def _groups(observed: Sequence[Observation]) -> list[dict[str, Any]]:
    """The exponent of the images, for each method, base, resolution, captions and images with three sizes or more."""
    groups: dict[tuple[Any, ...], list[Observation]] = {}
    for item in observed:
        levels = {name: item.place.levels[name] for name in (*LEVELS, "base_model")}
        key = (*levels.items(), ("resolution", item.place.resolution))
        groups.setdefault(key, []).append(item)
    return [
        {
            **dict(key),
            "images": sorted(item.place.images for item in group),
            "exponent": _interval(fit_law(group).coefficient("images")),
        }
        for key, group in groups.items()
        if _values(group, "images") >= FEWEST_SIZES
    ]


def _terms(observed: Sequence[Observation]) -> dict[str, Any]:
    """The joint law of all cells: the powers that were swept, the scatter between cells, and of how many."""
    law = fit_law(observed)
    swept = [name for name in POWERS if _values(observed, name) > 1]
    return {
        "powers": {name: _interval(law.coefficient(name)) for name in swept},
        "between_cells": round(law.between_cells, 3),
        "cells": len(observed),
    }


def _values(observed: Sequence[Observation], name: str) -> int:
    return len({getattr(item.place, name) for item in observed})


def _interval(quantiles: tuple[float, float, float]) -> dict[str, float]:
    low, median, high = (round(value, 3) for value in quantiles)
    return {"low": low, "median": median, "high": high, "level": LEVEL}
