"""The law across cells: time of the minimum against images, resolution, batch, lr and levels (docs/method.md, section 5).

    log S* = mu + rho_N log N + rho_R log R + rho_B log B + rho_lr log lr + levels + r_set + r_kind + r_cell + noise

S* is the sum of the learning rate at the minimum, r_set ~ N(0, omega^2) of an image set, r_kind ~ N(0, phi^2) of an image
set on a base with a method and captions, where sets and those were crossed, r_cell ~ N(0, tau^2) what the terms do not
explain, noise the error of a cell's own curves. Given omega, phi and tau all is normal and in closed form; they are
integrated on a grid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from curves.law import EXPONENT_PRIOR

Array = NDArray[np.float64]
FEWEST_SIZES = 3
LEVEL = 0.9
BETWEEN_CELLS_SD = 0.3  # half-normal prior scale of tau, natural log of time
BETWEEN_SETS_SD = 0.5  # the same of image sets
BETWEEN_KINDS_SD = 0.3  # the same of an image set on one base against the others
POWERS = ("images", "resolution", "batch", "lr")  # terms that are powers
STEPS = ("method", "base_id", "captions")  # terms that are steps between levels
SET = "dataset"  # the term of image sets, each a draw from all that there are
KIND = "kind"  # the term of an image set on one base, with one method and captions
LEVELS = (*STEPS, SET)
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
    """The posterior: for each node of a grid of (tau, omega, phi) its weight and a normal of the coefficients.

    Attributes:
        observed: the cells that it is made from.
        columns: names of the coefficients: mu, POWERS, NAME=LEVEL for all levels but the first of each of STEPS,
            dataset=ID of every image set, and kind=LEVELS of every kind where they are told from sets and levels.
        centre: logs at which mu is the value, (4,).
        nodes: tau, omega, phi, (nodes, 3).
        weights: of the nodes, sum 1.
        means, covariances: of the coefficients, (nodes, columns) and (nodes, columns, columns).
    """

    observed: tuple[Observation, ...]
    columns: tuple[str, ...]
    centre: Array
    nodes: Array
    weights: Array
    means: Array
    covariances: Array

    def draw(self, place: Place, count: int, seed: int = 0) -> Array:
        """log S* of the typical run of a cell there, (count,); see `moments` of levels that were not observed."""
        random = np.random.default_rng(seed)
        at = random.choice(len(self.nodes), count, p=self.weights)
        mean, variance = self._predicted(place)
        return np.asarray(mean[at] + np.sqrt(variance[at]) * random.standard_normal(count))

    def moments(self, place: Place) -> tuple[float, float]:
        """Mean and variance of log S* of the typical run of a cell there.

        An image set or a kind that was not observed is a new draw; another level that was not counts as the first.
        """
        mean, variance = self._predicted(place)
        centre = float(self.weights @ mean)
        return centre, float(self.weights @ (variance + (mean - centre) ** 2))

    def _predicted(self, place: Place) -> tuple[Array, Array]:
        """Mean and variance at each node, (nodes,)."""
        row = _row(place, self.columns, self.centre)
        tau, omega, phi = self.nodes.T
        variance = np.einsum("i,nij,j->n", row, self.covariances, row) + tau**2
        for name, spread in ((SET, omega), (KIND, phi)):
            if f"{name}={_level(place, name)}" not in self.columns:
                variance = variance + spread**2
        return self.means @ row, variance

    def coefficient(self, column: str) -> tuple[float, float, float]:
        """Posterior quantiles (5, 50, 95 %) of one coefficient."""
        at = self.columns.index(column)
        mean, sd = self.means[:, at], np.sqrt(np.maximum(self.covariances[:, at, at], 0.0))
        grid = np.linspace((mean - 6 * sd).min(), (mean + 6 * sd).max(), 2001)
        cumulative = self.weights @ ndtr((grid[None, :] - mean[:, None]) / np.maximum(sd[:, None], 1e-12))
        low, median, high = np.interp([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], cumulative, grid)
        return float(low), float(median), float(high)

    @property
    def between_cells(self) -> float:
        """Posterior mean of tau."""
        return float(self.weights @ self.nodes[:, 0])

    @property
    def between_sets(self) -> float:
        """Posterior mean of omega; with one image set that of its prior."""
        return float(self.weights @ self.nodes[:, 1])

    @property
    def between_kinds(self) -> float | None:
        """Posterior mean of phi; None where image sets were not crossed with bases, methods or captions."""
        return float(self.weights @ self.nodes[:, 2]) if self.nodes[:, 2].any() else None


def fit_law(observed: Sequence[Observation]) -> Law:
    """The posterior of the law (docs/method.md, section 5). Raises ValueError without an observation."""
    if not observed:
        raise ValueError("a law needs at least one cell whose minimum is known")
    centre = np.mean([item.place.logs() for item in observed], axis=0)
    columns = ("mu", *POWERS, *_levels(observed))
    nodes = _nodes(any(name.startswith(f"{KIND}=") for name in columns))
    rows = np.array([_row(item.place, columns, centre) for item in observed])
    times = np.array([item.log_time for item in observed])
    noise = np.array([item.variance for item in observed])
    offset = float(times.mean())
    prior_mean = np.array([offset if name == "mu" else PRIORS.get(name, (0.0,))[0] for name in columns])
    residual = times - rows @ prior_mean
    scales = np.array([[_prior_sd(name, omega, phi) for name in columns] for _, omega, phi in nodes])
    precision = 1 / (noise + nodes[:, :1] ** 2 + 1e-9)  # of each cell, (nodes, cells)
    # In units of the priors' standard deviations, which may be 0: few coefficients, however many cells.
    weighted = precision @ (rows[:, :, None] * rows[:, None, :]).reshape(len(rows), -1)
    weighted = weighted.reshape(len(nodes), len(columns), len(columns))
    information = scales[:, :, None] * weighted * scales[:, None, :] + np.eye(len(columns))
    pulled = scales * ((precision * residual) @ rows)
    found = np.linalg.solve(information, pulled[:, :, None])[..., 0]
    score = -0.5 * (precision @ residual**2 - (pulled * found).sum(axis=1))
    score += 0.5 * np.log(precision).sum(axis=1) - 0.5 * np.linalg.slogdet(information)[1]
    score -= 0.5 * ((nodes / (BETWEEN_CELLS_SD, BETWEEN_SETS_SD, BETWEEN_KINDS_SD)) ** 2).sum(axis=1)
    weights = np.exp(score - score.max())
    return Law(
        observed=tuple(observed),
        columns=columns,
        centre=centre,
        nodes=nodes,
        weights=weights / weights.sum(),
        means=prior_mean + scales * found,
        covariances=scales[:, :, None] * np.linalg.inv(information) * scales[:, None, :],
    )


def _levels(observed: Sequence[Observation]) -> list[str]:
    """NAME=LEVEL in the order of their names: of STEPS all but the first, of SET and KIND all."""
    found = {name: sorted({_level(item.place, name) for item in observed}) for name in (*LEVELS, KIND)}
    if len(found[SET]) in (1, len(found[KIND])):  # crossed with nothing
        del found[KIND]
    return [f"{name}={level}" for name, levels in found.items() for level in levels[name in STEPS :]]


def _level(place: Place, name: str) -> str:
    """The level that a cell has of one of LEVELS or of KIND."""
    return "/".join(place.levels[item] for item in LEVELS) if name == KIND else place.levels[name]


def _nodes(kinds: bool) -> Array:
    """The grid of tau, omega and, where there are kinds, phi, (nodes, 3)."""
    tau, omega, phi = (
        np.linspace(0.0, 3 * scale, count)
        for scale, count in (
            (BETWEEN_CELLS_SD, 13 if kinds else 25),
            (BETWEEN_SETS_SD, 9 if kinds else 13),
            (BETWEEN_KINDS_SD if kinds else 0.0, 9 if kinds else 1),
        )
    )
    return np.stack(np.meshgrid(tau, omega, phi, indexing="ij"), axis=-1).reshape(-1, 3)


def _prior_sd(column: str, omega: float, phi: float) -> float:
    if column == "mu":
        return MEAN_SD
    if column.startswith(f"{SET}="):
        return omega
    if column.startswith(f"{KIND}="):
        return phi
    return PRIORS[column][1] if column in PRIORS else LEVEL_SD


def _row(place: Place, columns: Sequence[str], centre: Array) -> Array:
    named = columns[1 + len(POWERS) :]
    steps = [float(_level(place, name) == level) for name, _, level in (c.partition("=") for c in named)]
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
        "between_sets": round(law.between_sets, 3)
        if len({item.place.levels[SET] for item in observed}) > 1
        else None,
        "between_kinds": None if law.between_kinds is None else round(law.between_kinds, 3),
        "cells": len(observed),
    }


def _values(observed: Sequence[Observation], name: str) -> int:
    return len({getattr(item.place, name) for item in observed})


def _interval(quantiles: tuple[float, float, float]) -> dict[str, float]:
    low, median, high = (round(value, 3) for value in quantiles)
    return {"low": low, "median": median, "high": high, "level": LEVEL}
