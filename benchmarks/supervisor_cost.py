"""Whole sweeps of trainers that end at once: what the supervisor takes of time and memory."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import multiprocessing
import os
from pathlib import Path
import resource

from benchmarks.storage_cost import window_of
from benchmarks.worker_use import sweep
from curves.run_folder import RunFolder
from sweep.attempts import read_attempts

TRAINER = Path(__file__).with_name("instant_trainer.sh")


@dataclass(frozen=True)
class SupervisorCost:
    """Of one sweep with one slot.

    Attributes:
        first, last: seconds from a trial's start to the next one's, mean over the first and the last of them.
        first_computed, last_computed: of these, seconds in which the supervisor itself computed, the kernel for it included.
        memory: peak of the supervisor, bytes.
    """

    first: float
    last: float
    first_computed: float
    last_computed: float
    memory: int


def supervisor_cost(sampler: str, trials: int, folder: Path) -> SupervisorCost:
    """Run a sweep of so many trials and read when each was started."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        memory = process.submit(_memory_of_sweep, sampler, trials, folder).result()
    paths = sorted((folder / "overhead" / "trials").iterdir(), key=lambda path: int(path.name.split("-")[0]))
    starts = sorted(read_attempts(RunFolder(path))[0].started for path in paths)
    computed = [_computed(path) for path in paths]
    window = window_of(trials)
    return SupervisorCost(
        first=(starts[window] - starts[0]) / window,
        last=(starts[-1] - starts[-1 - window]) / window,
        first_computed=(computed[window] - computed[0]) / window,
        last_computed=(computed[-1] - computed[-1 - window]) / window,
        memory=memory,
    )


def _computed(run: Path) -> float:
    """Seconds that the supervisor had computed as this trial ran: fields 14 and 15 of /proc/PID/stat."""
    fields = (run / "supervisor.stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_of_sweep(sampler: str, trials: int, folder: Path) -> int:
    """The largest child of this process is the supervisor: a shell is small."""
    sweep(folder, trials, 1, ["/bin/sh", str(TRAINER)], {}, f"sweep.sampler.name={sampler}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
