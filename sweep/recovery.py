"""What an earlier supervisor left of a study: told to Optuna what had ended, lined up what goes on."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
import math
import time

from conf.errors import RequestError
from curves.run_folder import RunFolder, Verdict, find_runs
from sweep.attempts import last_word, note_missed_end, read_attempts
from sweep.cells import Cell, Request
from sweep.extension import can_be_lengthened, falls_short
from sweep.hints import shown
from sweep.policy import FAILED, UNFINISHED, changes_of_next, sizes_of
from sweep.record import StudyFolder
from sweep.rows import row_of
from sweep.study import Asked, CellStudy
from sweep.table import Row
from sweep.tail import CurveTail
from sweep.trial import await_end_of_earlier

Studies = Mapping[str, CellStudy]  # by the cell's label


@dataclass
class Recovered:
    """An earlier supervisor's estate.

    Attributes:
        waiting: trials to be continued.
        rows: of the trials that have ended, by run folder.
        lost: trials by cell whose run folder is gone: others take their place.
    """

    waiting: list[tuple[Cell, Asked]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)


def recover(
    request: Request, folder: StudyFolder, studies: Studies, announce: Callable[[str], None]
) -> Recovered:
    """Take over a study; nothing is there where it is new.

    Raises:
        RequestError: there are runs that the journal does not know.
    """
    _refuse_strangers(request, folder, studies)
    recovered = Recovered()
    for cell in request.cells:
        study = studies[cell.label]
        running = study.running()
        going_on = {asked.folder for asked in running}
        for told in study.ended():
            if told.folder is not None and told.folder not in going_on:
                _remember(recovered, RunFolder(folder.trials / told.folder), cell, told, announce)
        for asked in running:
            if asked.folder is not None:
                await_end_of_earlier(RunFolder(folder.trials / asked.folder))
            _take_over(recovered, folder, study, cell, study.complete(asked))
    return recovered


def tell(study: CellStudy, asked: Asked, values: Sequence[float], outcome: str) -> None:
    """Tell Optuna the objectives' values, however the run ended, unless it failed or goes on later.

    A trial that was trained further keeps the values of its first end: Optuna takes no second ones.
    """
    if outcome in UNFINISHED or asked.told:
        return
    if outcome == "pruned":
        study.tell(asked.number, "pruned")
    elif outcome == "diverged":
        study.tell(asked.number, "diverged")
    elif outcome in FAILED or not values or not all(map(math.isfinite, values)):
        study.tell(asked.number, "failed")
    else:
        study.tell(asked.number, "complete", values)


def _place(folder: StudyFolder, request: Request) -> str:
    """Where the trials are kept, in words."""
    return shown(folder.journal) if request.config.sweep.storage is None else "the database sweep.storage"


def _refuse_strangers(request: Request, folder: StudyFolder, studies: Studies) -> None:
    """Without its journal a study would run everything again, and count what it has as a second result."""
    known = {name for study in studies.values() for name in study.folders()}
    strangers = [run.path.name for run in find_runs(folder.path) if run.path.name not in known]
    if strangers:
        more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
        raise RequestError(
            f"{shown(folder.trials / strangers[0])}{more}: {_place(folder, request)} does not know this run: restore it, "
            "move the run elsewhere, or start another study with study=NAME"
        )


def _remember(
    recovered: Recovered, run: RunFolder, cell: Cell, told: Asked, announce: Callable[[str], None]
) -> None:
    """A trial that Optuna knows as ended: it has ended, or is to be trained further, or its folder is gone."""
    if not run.run.exists() and run.outcome() is None:
        recovered.lost[cell.label] += 1
        announce(f"{run.path.name}: its run folder is gone; another trial takes its place")
        return
    if falls_short(run, cell.config) and not can_be_lengthened(run):
        announce(f"{run.path.name}: kept no training state, so it cannot be trained further")
    elif falls_short(run, cell.config) or run.outcome() in (None, *UNFINISHED):
        recovered.waiting.append((cell, replace(told, told=True)))
        return
    recovered.rows[run.path.name] = _row(run, cell)


def _take_over(recovered: Recovered, folder: StudyFolder, study: CellStudy, cell: Cell, asked: Asked) -> None:
    """A trial without an end in Optuna: its run had ended, or it goes on in the same folder."""
    run = RunFolder(folder.trials / asked.folder) if asked.folder is not None else None
    verdict = _verdict(run) if run is not None else None
    if run is None or verdict is None or _goes_on(run, verdict, cell, asked):
        recovered.waiting.append((cell, asked))
        return
    run.write_verdict(verdict)
    row = _row(run, cell)
    row.values = asked.values
    recovered.rows[run.path.name] = row
    tail = CurveTail(run.curve)
    tail.read()
    study.report(asked.number, tail.losses)
    tell(study, asked, row.objectives, verdict.outcome)


def _row(run: RunFolder, cell: Cell) -> Row:
    return row_of(run, cell.label, cell.config.evaluation, cell.config.sweep.objectives)


def _verdict(run: RunFolder) -> Verdict | None:
    """How a run had ended: the supervisor's word, the trainer's, or that it was being pruned."""
    verdict = run.read_verdict()
    if verdict is not None:
        return verdict
    status = last_word(run, read_attempts(run))
    if status is not None and status.outcome is not None:
        return Verdict(status.outcome, status.reason, None, time.time())
    try:
        being_pruned = '"pruned"' in run.stop_request.read_text(encoding="utf-8")
    except OSError:
        return None
    return Verdict("pruned", "pruned before an interruption", None, time.time()) if being_pruned else None


def _goes_on(run: RunFolder, verdict: Verdict, cell: Cell, asked: Asked) -> bool:
    """Whether its supervisor would have tried it again."""
    if verdict.outcome in UNFINISHED:
        return True
    note_missed_end(run, verdict)
    attempts = read_attempts(run)
    sizes = sizes_of(cell.config, asked.values)
    return bool(attempts) and changes_of_next(attempts, sizes, cell.config.launch.retries) is not None
