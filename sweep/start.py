"""Where a new cell starts: from the best values of the cells that are most like it, here or in an earlier study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from conf.errors import RequestError
from conf.secrets import has_mark
from sweep.cells import AXES, Cell, key_of
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
        self,
        start_from: str | None,
        cells: Sequence[Cell],
        studies: Mapping[str, CellStudy],
        database: str | None = None,
    ) -> None:
        """Read the earlier study, where one is named.

        Args:
            database: of this study, which may hold the earlier one too.

        Raises:
            RequestError: it does not exist, has no finished trial, or its database cannot be reached.
        """
        self._within = start_from == NEIGHBOURS
        self._cells = cells
        self._studies = studies
        earlier = start_from is not None and not self._within
        self._earlier = _read_study(str(start_from), database) if earlier else []

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


def _read_study(name: str, database: str | None) -> list[Candidate]:
    """The best complete trial of every cell of a study."""
    folder = StudyFolder(Path(name))
    record = folder.read()
    address = _database_of(name, record, database)
    own = {axis: str((record["config"].get(axis) or {}).get("name")) for axis in AXES}
    found = []
    with open_for_reading(address, folder.journal) as storage:
        for cell in record["cells"]:
            best = _best(storage, cell["label"] if address is None else f"{folder.name}/{cell['label']}")
            if best is not None:
                values = {key.split("[", 1)[0]: value for key, value in best.params.items()}
                axes = {**own, **cell["levels"]}
                found.append(Candidate(f"{name} {cell['label']}", axes, best.values[0], values))
    if not found:
        raise RequestError(
            f"sweep.start_from={name}: the study has no finished trial: finish one, or leave sweep.start_from out"
        )
    return found


def _best(storage: BaseStorage, study: str) -> FrozenTrial | None:
    """The complete trial with the lowest loss; None where there is none, or no such study."""
    if study not in optuna.get_all_study_names(storage):
        return None
    loaded = optuna.load_study(study_name=study, storage=storage)
    trials = loaded.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return min(trials, key=lambda trial: trial.values[0], default=None)


def _database_of(name: str, record: Mapping[str, Any], own: str | None) -> str | None:
    """The address of the database that holds an earlier study, or of this one's where the record kept no password;
    None where it has a journal.
    """
    recorded = (record["config"].get("sweep") or {}).get("storage")
    if recorded is None:
        return None
    given = [item.partition("=")[2] for item in record["overrides"] if key_of(item) == "sweep.storage"]
    address = (given or [recorded])[-1].strip("'\"")
    try:
        address = str(OmegaConf.create({"address": address})["address"])
    except OmegaConfBaseException as error:
        if own is None:
            missing = str(error).splitlines()[0]
            raise RequestError(f"sweep.start_from={name}: sweep.storage={address}: {missing}") from error
        return own
    if not has_mark(address):
        return address
    if own is None:
        raise RequestError(
            f"sweep.start_from={name}: sweep.storage={address}: the record keeps no secrets: give this sweep the "
            "same database with sweep.storage='${oc.env:NAME}'"
        )
    return own


def _axes(cell: Cell) -> dict[str, str]:
    own = {axis: str(getattr(cell.config, axis).name) for axis in AXES}
    return {**own, **cell.levels}


def _distance(one: Mapping[str, str], other: Mapping[str, str]) -> int:
    return sum(one.get(key) != other.get(key) for key in {**one, **other})
