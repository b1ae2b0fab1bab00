"""`python -m analysis import`: another tool's logs become a folder of runs, and what was understood is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
import sys
from typing import Any

from analysis import words
from analysis.importing import csv, tensorboard, wandb
from analysis.importing.folders import IDENTITY, Imported, convert, write
from analysis.importing.log import Log
from analysis.importing.tags import IMAGES, MICRO_STEPS, UPDATES, Wanted
from analysis.table import Table, print_table
from conf.errors import RequestError, WorkError

READERS: dict[str, Callable[[Path], list[Log]]] = {
    "tensorboard": tensorboard.read,
    "wandb": wandb.read,
    "csv": csv.read,
}
SHOWN_FAULTS = 8
STEP_ADVICE = {
    MICRO_STEPS: "{tool} counts micro-steps; its steps are optimizer updates only without gradient accumulation: "
    "give --steps-per-update K, 1 without",
    IMAGES: "{tool} counts images; give --steps-per-update BATCH or --set batch=BATCH for optimizer updates",
}
DEFAULT_ADVICE = (
    "whether a logged step is an optimizer update is not known: give --steps-per-update K, 1 if it is"
)


@dataclass(frozen=True)
class Request:
    """What is imported, and what the user says of it."""

    source: Path
    to: Path
    kind: str
    wanted: Wanted
    told: Mapping[str, Any]
    per_update: int | None
    only: str | None


Fault = tuple[str, str]  # a run of the source, and why it is not imported


def import_logs(request: Request) -> tuple[list[Imported], list[Fault]]:
    """Read, convert and write every run of a source; the runs written, and those left out with the reason.

    Raises:
        RequestError: no such source, nothing to read in it, or a run folder is in the way.
        WorkError: no run can be used.
    """
    if not request.source.exists():
        raise RequestError(f"{request.source}: there is no such file or folder")
    if (request.to / "trials").is_dir():
        raise RequestError(f"--to {request.to}: that is a study; import into a folder of its own")
    runs, faults = _converted(_chosen_logs(request), request)
    if not runs:
        listed = "; ".join(f"{name}: {reason}" for name, reason in faults[:SHOWN_FAULTS])
        raise WorkError(f"{request.source}: no run can be used: {listed}")
    taken = [run.name for run in runs if (request.to / run.name).exists()]
    if taken:
        raise RequestError(
            f"--to {request.to}: it has {', '.join(taken[:SHOWN_FAULTS])} already; import into another folder, or "
            "remove what is in the way"
        )
    for run in runs:
        write(run, request.to)
    return runs, faults


def _chosen_logs(request: Request) -> list[Log]:
    """Raises:
    RequestError: `--only` leaves nothing; the runs that there are are listed.
    """
    logs = READERS[request.kind](request.source)
    chosen = [log for log in logs if request.only is None or fnmatchcase(log.name, request.only)]
    if not chosen:
        names = ", ".join(log.name for log in logs[:SHOWN_FAULTS])
        raise RequestError(f"--only {request.only}: no run of that name; there are {len(logs)}: {names}")
    return chosen


def _converted(logs: Sequence[Log], request: Request) -> tuple[list[Imported], list[Fault]]:
    """Every log as a run, under a name of its own."""
    runs: list[Imported] = []
    faults: list[Fault] = []
    names: set[str] = set()
    for log in logs:
        try:
            run = convert(log, request.wanted, request.told, request.per_update, request.kind)
        except ValueError as error:
            faults.append((log.name, str(error)))
            continue
        name, number = run.name, 1
        while run.name in names:
            number += 1
            run = replace(run, name=f"{name}-{number}")
        names.add(run.name)
        runs.append(run)
    return runs, faults


def print_import(request: Request, runs: Sequence[Imported], faults: Sequence[Fault]) -> None:
    """What was understood of each run, what is not known, and what to do next."""
    rows = [_row(run) for run in runs]
    titles = ["run", "tool", "held-out loss", "evaluations", "last", "lr", "not known"]
    print_table(Table(titles, rows, frozenset({"run", "tool", "held-out loss", "not known"})))
    print()
    for line in advice(runs):
        print(line)
    for run in runs:
        for note in run.notes:
            print(f"{run.name}: {note}")
    for name, reason in faults:
        print(f"left out {name}: {reason}", file=sys.stderr)
    print(
        f"{len(runs)} run{'' if len(runs) == 1 else 's'} in {request.to}; next: python -m analysis recommend {request.to}"
    )


def _row(run: Imported) -> list[str]:
    imported, facts = run.facts.extra["imported"], run.facts
    lr = facts.hyperparameters.get("lr")
    return [
        run.name,
        imported["tool"],
        imported["tags"].get("val_loss", words.NONE),
        str(run.evaluations),
        str(run.points[-1].step),
        words.NONE if lr is None else words.rate(lr),
        ", ".join(_unknown(run)) or words.NONE,
    ]


def _unknown(run: Imported) -> list[str]:
    return [name for name in IDENTITY if run.facts.cell[name] is None]


def advice(runs: Sequence[Imported]) -> list[str]:
    """What the runs lack, once for all of them, and what follows from it."""
    lines: list[str] = []
    for unit, tool in dict.fromkeys((_imported(run)["steps"], _imported(run)["tool"]) for run in runs):
        if unit != UPDATES:
            lines.append(f"steps: {STEP_ADVICE.get(unit, DEFAULT_ADVICE).format(tool=tool)}.")
    alone = sum(bool(_unknown(run)) for run in runs)
    if alone:
        lines.append(
            f"{alone} of {len(runs)} runs are cells of their own, outside the law across dataset sizes: "
            "what is not known can be told with --set KEY=VALUE."
        )
    unmeasured = sum(run.evaluations == 0 for run in runs)
    if unmeasured:
        lines.append(
            f"{unmeasured} of {len(runs)} runs have the training loss alone, which cannot show a minimum."
        )
    if any(run.evaluations and not run.has_base for run in runs):
        lines.append(
            "no held-out loss at step 0: the gain over the untouched base is not measured; where it is known, tell it "
            "with --set base_loss=VALUE."
        )
    return lines


def _imported(run: Imported) -> dict[str, Any]:
    found: dict[str, Any] = run.facts.extra["imported"]
    return found
