"""Asking for the trials of one cell and telling what came of them, in the journal that a sweep writes."""

from dataclasses import dataclass
from pathlib import Path
import resource
import time

from conf.schema import Sampler, Sweep
from curves.grid import evaluation_steps
from sweep.cells import make_request
from sweep.storage import open_journal
from sweep.study import CellStudy

SAMPLERS = ("random", "qmc", "tpe")
SPACE = (
    "space.parameters=["
    "{name: optimizer.lr, low: 1e-4, high: 1e-2, log: true},"
    "{name: optimizer.batch_size, low: 1, high: 8, integer: true},"
    "{name: method, choices: [lora, text_to_image]},"
    "{name: method.rank, choices: [4, 8, 16, 32], when: {method: lora}}]",
    "space.constraints=['optimizer.lr * optimizer.batch_size <= 0.04']",
)
EVALUATIONS = 8  # reported by a trial
WINDOW = 1000  # trials whose mean time is compared


@dataclass(frozen=True)
class Cost:
    """Of one study.

    Attributes:
        first, last: seconds a trial, over the first and the last WINDOW trials.
        opening: seconds to open the finished study anew.
        memory: peak of the process, bytes.
        journal: size, bytes.
    """

    first: float
    last: float
    opening: float
    memory: int
    journal: int


def window_of(trials: int) -> int:
    """How many of them the first and the last are."""
    return min(WINDOW, max(1, trials // 2))


def storage_cost(sampler: str, trials: int, folder: Path) -> Cost:
    """Ask and tell so many trials, one at a time."""
    window = window_of(trials)
    journal = folder / "journal.log"
    study = open_study(sampler, trials, journal)
    ends = [time.perf_counter()]
    for _ in range(trials):
        asked = study.ask()
        study.assign(asked.number, f"{asked.number:04d}-cell")
        loss = 1 - asked.values["optimizer.lr"] * asked.values["optimizer.batch_size"]
        for step in evaluation_steps(4, 2.0, 2**EVALUATIONS):
            study.report(asked.number, {step: loss})
        study.tell(asked.number, "complete", [loss])
        ends.append(time.perf_counter())
    reopened = time.perf_counter()
    assert open_study(sampler, trials, journal).asked() == trials
    return Cost(
        first=(ends[window] - ends[0]) / window,
        last=(ends[-1] - ends[-1 - window]) / window,
        opening=time.perf_counter() - reopened,
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        journal=journal.stat().st_size,
    )


def open_study(sampler: str, trials: int, journal: Path) -> CellStudy:
    """The study of one cell, as the supervisor opens it."""
    (cell,) = make_request([*SPACE, f"sweep.trials={trials}"]).cells
    return CellStudy(
        storage=open_journal(journal),
        label=cell.label,
        space=cell.space,
        sweep=Sweep(sampler=Sampler(sampler)),
        trials=trials,
        grid=evaluation_steps(4, 2.0, 2**EVALUATIONS),
    )
