"""A cell that was not run, as a question: its place in the law across cells, and the cells that are like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.asked import Asked
from analysis.comparable import outside_law
from analysis.law import SET, Law, Place, fit_law
from analysis.law_draws import LawDraws
from analysis.load import Study
from analysis.recommend import Analysis, CellResult, observation, shows_minimum
from conf.compose import options
from conf.errors import RequestError

Array = NDArray[np.float64]
NEW = "new"  # dataset=new: images of which nothing was run
ASKED_LEVELS = ("method", "base_model", "captions", "dataset")
MOST_DONORS = 12  # of the shape; the law is made from all cells
OTHER_LEVEL = 2.0  # distance of a cell with another level, in natural logs of images or resolution


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
    return _unseen(analysis.study, cells, asked_facts(analysis, cells, asked), asked)


def asked_facts(analysis: Analysis, cells: Sequence[CellResult], asked: Asked) -> dict[str, Any]:
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
