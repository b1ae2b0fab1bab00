"""`sweep status`: a study as its files tell it, without asking the supervisor."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
import sys
from typing import Any

from rich.console import Console

from conf.schema import Cooldown, Evaluation
from conf.validate_sweep import LOSS
from curves.run_folder import RunFolder
from curves.spent import read_account
from sweep.branches import stated_budgets
from sweep.record import StudyFolder
from sweep.rows import front_lines, fronts, row_of
from sweep.table import Row, Totals, draw

WIDE = 400  # columns where there is no terminal


def read_study(folder: StudyFolder, owner: int | None) -> dict[str, Any]:
    """A study's state as plain values; `owner` is the process that runs it now, None where none does."""
    record = folder.read()
    labels = [cell["label"] for cell in record["cells"]]
    known = Evaluation.__dataclass_fields__
    recorded = record["config"].get("evaluation") or {}
    evaluation = Evaluation(**{key: value for key, value in recorded.items() if key in known})
    objectives = (record["config"].get("sweep") or {}).get("objectives") or [LOSS]
    planned = sum(int(cell.get("trials", record["trials"])) for cell in record["cells"]) * _runs_a_trial(
        record
    )
    rows = [
        _row(RunFolder(path), owner, evaluation, objectives)
        for path in sorted(folder.trials.glob("[0-9]*-*"))
    ]
    account = read_account(folder.path)
    return {
        "study": folder.name,
        "folder": str(folder.path),
        "supervisor": owner,
        "cells": labels,
        "planned": planned,
        "done": sum(row.outcome not in (None, "preempted", "interrupted", "config_error") for row in rows),
        "running": sum(row.outcome is None for row in rows),
        "spent": account.record() if account else None,
        "objectives": list(objectives),
        "pareto_front": {cell: [row.number for row in front] for cell, front in fronts(rows).items()}
        if len(objectives) > 1
        else None,
        "trials": [{**asdict(row), "best": row.best} for row in rows],
    }


def print_status(records: Sequence[dict[str, Any]]) -> None:
    """Each study's totals; the trials too where there is one study."""
    # What is piped or written to a file is read by programs too: nothing is cut to a terminal's width there.
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    for record in records:
        note = f"process {record['supervisor']}" if record["supervisor"] else "no sweep is running on it"
        account = read_account(Path(record["folder"]))
        totals = Totals(
            record["study"],
            record["done"],
            record["running"],
            record["planned"],
            note="; ".join(filter(None, (note, account.reached if account else None))),
            spent=account.words() if account else (),
        )
        if len(records) > 1:
            console.print(totals.line(), markup=False, highlight=False)
            continue
        rows = [
            Row(**{key: value for key, value in trial.items() if key != "best"}) for trial in record["trials"]
        ]
        console.print(draw(totals, rows, console.width))
        for line in front_lines(rows, record["objectives"]):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _runs_a_trial(record: dict[str, Any]) -> int:
    """Runs of one parameter set: one a fold, or a trunk and its branches."""
    config, sweep = record["config"], record["config"].get("sweep") or {}
    if sweep.get("folds"):
        return int(config["dataset"]["folds"])
    cooldown = sweep.get("cooldown") or {}
    return 1 + len(stated_budgets(Cooldown(**cooldown), config["budget"]["max_steps"]))


def _row(folder: RunFolder, owner: int | None, evaluation: Evaluation, objectives: Sequence[str]) -> Row:
    row = row_of(folder, folder.path.name.split("-", 1)[1], evaluation, objectives)
    if row.outcome is None and owner is None:
        row.outcome = "interrupted"
    return row
