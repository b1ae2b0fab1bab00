"""How well workers are used where trials take different times: by our supervisor, by a loop of batches, by Optuna."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
import heapq
import json
import os
from pathlib import Path
import random
import subprocess
import sys

from conf.compose import PROJECT_ROOT
from curves.run_folder import read_json

MEDIAN_S, SPREAD = 1.5, 0.8  # of the lognormal durations: median, and standard deviation of the logarithm
TRAINER = Path(__file__).with_name("timed_trainer.py")
SEARCHED = "space.parameters=[{name: optimizer.lr, low: 1e-4, high: 1e-2, log: true}]"


@dataclass(frozen=True)
class Use:
    """Of workers by a runner.

    Attributes:
        share: time in which workers trained, of all their time from the first trial's start to the last one's end.
        ideal: the same where each worker takes the next trial at once.
        overhead: seconds of a worker that each trial costs beside its own time and what even the ideal leaves idle.
    """

    share: float
    ideal: float
    overhead: float


Runner = Callable[[Path, Sequence[float], int], None]


def durations(trials: int, seed: int = 0) -> list[float]:
    """Seconds of each trial."""
    generator = random.Random(seed)
    return [MEDIAN_S * generator.lognormvariate(0, SPREAD) for _ in range(trials)]


def ideal_seconds(seconds: Sequence[float], workers: int) -> float:
    """Until all are done, where each worker takes the next at once, in their order."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one)
    return max(free)


def measure(run: Runner, folder: Path, seconds: Sequence[float], workers: int) -> Use:
    """Run trials of these durations and read when each trained."""
    run(folder, seconds, workers)
    spans = [read_json(path) for path in sorted(folder.rglob("span.json"))]
    assert len(spans) == len(seconds), f"{len(spans)} of {len(seconds)} trials have ended"
    own = [span["end"] - span["start"] for span in spans]
    took = max(span["end"] for span in spans) - min(span["start"] for span in spans)
    ideal = ideal_seconds(own, workers)
    return Use(
        share=sum(own) / (workers * took),
        ideal=sum(own) / (workers * ideal),
        overhead=workers * (took - ideal) / len(seconds),
    )


def supervised(folder: Path, seconds: Sequence[float], workers: int) -> None:
    """As a user sweeps: `python -m sweep run`."""
    sweep(folder, len(seconds), workers, [sys.executable, str(TRAINER)], {"DURATIONS_S": json.dumps(seconds)})


def sweep(
    folder: Path, trials: int, workers: int, command: Sequence[str], environment: dict[str, str], *more: str
) -> None:
    """Sweep one cell with another trainer."""
    launch = ",".join(f"'{word}'" for word in command)
    overrides = [
        f"runs_dir='{folder}'",
        "study=overhead",
        f"sweep.trials={trials}",
        f"launch.slots={workers}",
        f"launch.command=[{launch}]",
        "budget.max_steps=64",
        SEARCHED,
        "sweep.sampler.name=random",  # unless said otherwise
        *more,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "run", *overrides],
        cwd=PROJECT_ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    assert len(list((folder / "overhead" / "trials").iterdir())) == trials


def in_batches(folder: Path, seconds: Sequence[float], workers: int) -> None:
    """As Hydra's sweepers do: a batch of trials, and the next when all of it have ended."""
    for first in range(0, len(seconds), workers):
        batch = range(first, min(first + workers, len(seconds)))
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda number: train(folder, seconds, number), batch))


def by_optuna(folder: Path, seconds: Sequence[float], workers: int) -> None:
    """Optuna's `optimize(n_jobs)`, whose objective waits for the trainer; its journal on disk as ours."""
    import optuna
    from optuna.storages.journal import JournalFileBackend

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("optimizer.lr", 1e-4, 1e-2, log=True)
        train(folder, seconds, trial.number)
        return 0.8

    storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(objective, n_trials=len(seconds), n_jobs=workers)


def train(folder: Path, seconds: Sequence[float], number: int) -> None:
    """One trial without a supervisor."""
    told = {
        "STEPBUDGET_RUN_DIR": str(folder / str(number)),
        "STEPBUDGET_TRIAL": str(number),
        "DURATIONS_S": json.dumps(seconds),
    }
    subprocess.run([sys.executable, str(TRAINER)], env={**os.environ, **told}, check=True)


RUNNERS: dict[str, Runner] = {
    "python -m sweep": supervised,
    "loop of batches": in_batches,
    "optimize(n_jobs)": by_optuna,
}
