"""What a sweep costs beside its training.

    python -m benchmarks.sweep_overhead --part storage [--trials 10000] [--samplers random qmc tpe]
    python -m benchmarks.sweep_overhead --part workers [--trials 100] [--workers 2 4]
    python -m benchmarks.sweep_overhead --part supervisor [--trials 10000] [--samplers random qmc tpe]

storage: asking for trials of one cell and telling what came of them. workers: how much of their time workers train, where
trials take different times. supervisor: whole sweeps of trainers that end at once, their time and the memory of the
process that leads them. On a machine that does nothing else.
"""

import argparse
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
import logging
import multiprocessing
from pathlib import Path
import tempfile

from benchmarks.storage_cost import EVALUATIONS, SAMPLERS, storage_cost, window_of
from benchmarks.supervisor_cost import supervisor_cost
from benchmarks.worker_use import MEDIAN_S, RUNNERS, SPREAD, durations, measure

MIB = 2**20


def print_storage(samplers: Sequence[str], trials: int) -> None:
    """A line a sampler, each measured in a process of its own."""
    window = window_of(trials)
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


def print_workers(workers: Sequence[int], trials: int) -> None:
    """A line a runner and number of workers, all with trials of the same durations."""
    seconds = durations(trials)
    print(f"{trials} trials, lognormal with median {MEDIAN_S:g} s, sigma {SPREAD:g}")
    print(
        f"{'runner':18} {'workers':>7} {'in use':>8} {'ideal':>8} {'of ideal':>9} {'overhead s a trial':>19}"
    )
    for number in workers:
        for name, run in RUNNERS.items():
            with tempfile.TemporaryDirectory() as folder:
                use = measure(run, Path(folder), seconds, number)
            print(
                f"{name:18} {number:7} {use.share:8.1%} {use.ideal:8.1%} {use.share / use.ideal:9.1%} "
                f"{use.overhead:19.3f}",
                flush=True,
            )


def print_supervisor(samplers: Sequence[str], trials: int) -> None:
    """A line a sampler."""
    window = window_of(trials)
    print(
        f"{trials} trials that end at once, one after another; milliseconds a trial, and those that the supervisor computes"
    )
    print(
        f"{'sampler':8} {f'first {window}':>12} {f'last {window}':>12} {'computed':>10} {'computed':>10} {'MiB':>6}"
    )
    for sampler in samplers:
        with tempfile.TemporaryDirectory() as folder:
            cost = supervisor_cost(sampler, trials, Path(folder))
        print(
            f"{sampler:8} {1000 * cost.first:12.1f} {1000 * cost.last:12.1f} {1000 * cost.first_computed:10.1f} "
            f"{1000 * cost.last_computed:10.1f} {cost.memory / MIB:6.0f}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print one part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=["storage", "workers", "supervisor"], required=True)
    parser.add_argument("--trials", type=int)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    parser.add_argument("--workers", nargs="+", type=int, default=[2, 4])
    chosen = parser.parse_args(arguments)
    logging.getLogger("optuna").setLevel(logging.WARNING)
    if chosen.part == "storage":
        print_storage(chosen.samplers, chosen.trials or 10_000)
    elif chosen.part == "workers":
        print_workers(chosen.workers, chosen.trials or 100)
    else:
        print_supervisor(chosen.samplers, chosen.trials or 10_000)


if __name__ == "__main__":
    main()
