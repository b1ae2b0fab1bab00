"""Records whole U-curves of the project's own image sets with the real trainer.

    python -m benchmarks.own_sets.record calibration|held_out --sets FOLDER --to RUNS [--processes N] [--only TEXT]

Every process does one run after the other, on one thread. Runs that are complete are left as they are, so the command
goes on where it was ended.
"""

from __future__ import annotations

import argparse
from functools import partial
import multiprocessing
import os
from pathlib import Path
import shutil
import sys
import time

from benchmarks.own_sets import plan
from curves.run_folder import RunFolder

Task = tuple[plan.Cell, int]


def folder_of(task: Task, to: Path) -> RunFolder:
    """The run folder of a cell's seed."""
    return RunFolder(to / f"{task[0].name}-seed{task[1]}")


def record(task: Task, sets: Path, to: Path) -> str:
    """One run; a line about it."""
    from train import run

    folder, begun = folder_of(task, to), time.process_time()
    if folder.path.exists():  # a run that was killed
        shutil.rmtree(folder.path)
    run([*task[0].overrides(sets, task[1]), f"run_dir={folder.path}"])
    shutil.rmtree(folder.path / "best", ignore_errors=True)
    points = [point for point in folder.points() if point.val_loss is not None]
    losses = [point.val_loss or 0.0 for point in points]
    lowest, gain = losses.index(min(losses)), losses[0] - min(losses)
    rise = (losses[-1] - min(losses)) / gain if gain > 0 else float("nan")
    return (
        f"{folder.path.name}: {folder.outcome()}, base {losses[0]:.4f}, gain {gain:.4f}, "
        f"lowest at step {points[lowest].step}, rise at the end {rise:.2f} of gain, "
        f"{time.process_time() - begun:.0f} s of CPU"
    )


def main() -> int:
    """Returns: 0 once every run is complete."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("part", choices=("calibration", "held_out"))
    parser.add_argument("--sets", type=Path, default=Path("runs/own-sets"))
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--only", default="", help="part of the name of the cells to record")
    options = parser.parse_args()
    sets, to = options.sets.resolve(), options.to.resolve()
    wanted = [task for task in plan.runs(options.part) if options.only in task[0].name]
    missing = [task for task in wanted if folder_of(task, to).outcome() != "complete"]
    print(f"{len(wanted)} runs, {len(missing)} to do", flush=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for line in pool.imap_unordered(partial(record, sets=sets, to=to), missing):
            print(line, flush=True)
    return int(any(folder_of(task, to).outcome() != "complete" for task in wanted))


if __name__ == "__main__":
    sys.exit(main())
