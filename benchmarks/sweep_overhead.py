"""What a sweep costs beside its training.

    python -m benchmarks.sweep_overhead --part storage [--trials 10000] [--samplers random qmc tpe]

Part `storage`: asking for trials of one cell and telling what came of them, in the journal that a sweep writes.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import multiprocessing
from pathlib import Path
import resource
import tempfile
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
MIB = 2**20


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


def storage_cost(sampler: str, trials: int, folder: Path) -> Cost:
    """Ask and tell so many trials, one at a time."""
    window = min(WINDOW, max(1, trials // 2))
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


def print_storage(samplers: Sequence[str], trials: int) -> None:
    """A line a sampler, each measured in a process of its own."""
    window = min(WINDOW, max(1, trials // 2))
    print(f"{trials} trials of one cell, {EVALUATIONS} evaluations each; milliseconds a trial")
    print(
        f"{'sampler':8} {f'first {window}':>12} {f'last {window}':>12} {'opening s':>10} {'MiB':>6} {'journal MiB':>12}"
    )
    for sampler in samplers:
        with (
            tempfile.TemporaryDirectory() as folder,
            ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process,
        ):
            cost = process.submit(storage_cost, sampler, trials, Path(folder)).result()
        print(
            f"{sampler:8} {1000 * cost.first:12.2f} {1000 * cost.last:12.2f} {cost.opening:10.2f} "
            f"{cost.memory / MIB:6.0f} {cost.journal / MIB:12.1f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["storage"], default="storage")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    chosen = parser.parse_args()
    print_storage(chosen.samplers, chosen.trials)


if __name__ == "__main__":
    main()
