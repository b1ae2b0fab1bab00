"""Whole sweeps of trainers that end at once: what the supervisor takes of time and memory."""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
import multiprocessing
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
        memory: peak of the supervisor, bytes.
    """

    first: float
    last: float
    memory: int


def supervisor_cost(sampler: str, trials: int, folder: Path) -> SupervisorCost:
    """Run a sweep of so many trials and read when each was started."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        memory = process.submit(_memory_of_sweep, sampler, trials, folder).result()
    runs = [RunFolder(path) for path in (folder / "overhead" / "trials").iterdir()]
    starts = sorted(read_attempts(run)[0].started for run in runs)
    window = window_of(trials)
    return SupervisorCost(
        first=(starts[window] - starts[0]) / window,
        last=(starts[-1] - starts[-1 - window]) / window,
        memory=memory,
    )


def _memory_of_sweep(sampler: str, trials: int, folder: Path) -> int:
    """The largest child of this process is the supervisor: a shell is small."""
    sweep(folder, trials, 1, ["/bin/sh", str(TRAINER)], {}, f"sweep.sampler.name={sampler}")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
