"""Where a new cell starts: from the best values of the cells that are most like it, here or in an earlier study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from conf.errors import RequestError
from sweep.cells import AXES, Cell
from sweep.inputs import NEIGHBOURS
from sweep.record import StudyFolder
from sweep.storage import open_for_reading
from sweep.study import CellStudy, Start


@dataclass(frozen=True)
class Candidate:
    """A cell that has a best trial: what it is, where it stands, and that trial's loss and values by name."""

    label: str
    axes: Mapping[str, str]
    loss: float
    values: dict[str, Any]


class Starts:
    """Answers from where a cell starts, as `sweep.start_from` asks."""

    def __init__(
        self, start_from: str | None, cells: Sequence[Cell], studies: Mapping[str, CellStudy]
    ) -> None:
        """Read the earlier study, where one is named.

        Raises:
            RequestError: it does not exist or has no finished trial.
        """
        self._within = start_from == NEIGHBOURS
        self._cells = cells
        self._studies = studies
        earlier = start_from is not None and not self._within
        self._earlier = _read_study(str(start_from)) if earlier else []

    def of(self, cell: Cell) -> Start | None:
        """The best values of the cells that differ in the fewest levels; None where none has finished a trial."""
        candidates = self._neighbours(cell) if self._within else self._earlier
        if not candidates:
            return None
        own = _axes(cell)
        best = min(candidates, key=lambda item: (_distance(own, item.axes), item.loss))
        return Start(best.values, f"starts from the best of {best.label}")

    def _neighbours(self, cell: Cell) -> list[Candidate]:
        found = []
        for other in self._cells:
            best = self._studies[other.label].best()
            if other.label != cell.label and best is not None:
                found.append(Candidate(other.label, _axes(other), best.loss, best.values))
        return found


def _read_study(name: str) -> list[Candidate]:
    """The best complete trial of every cell of a study."""
    folder = StudyFolder(Path(name))
    record = folder.read()
    storage = open_for_reading(folder.journal)
    own = {axis: str((record["config"].get(axis) or {}).get("name")) for axis in AXES}
    levels = {cell["label"]: cell["levels"] for cell in record["cells"]}
    found = []
    for label in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=label, storage=storage)
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if trials and label in levels:
            best = min(trials, key=lambda trial: trial.values[0])
            values = {key.split("[", 1)[0]: value for key, value in best.params.items()}
            found.append(Candidate(f"{name} {label}", {**own, **levels[label]}, best.values[0], values))
    if not found:
        raise RequestError(
            f"sweep.start_from={name}: the study has no finished trial: finish one, or leave sweep.start_from out"
        )
    return found


def _axes(cell: Cell) -> dict[str, str]:
    own = {axis: str(getattr(cell.config, axis).name) for axis in AXES}
    return {**own, **cell.levels}


def _distance(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    return sum(one.get(key) != other.get(key) for key in {**one, **other})
