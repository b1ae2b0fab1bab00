"""The report's tables as CSV, with the numbers as they are: cells.csv, runs.csv and law.csv (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import csv
from dataclasses import asdict
import io
from pathlib import Path
from typing import Any

from analysis import words
from analysis.recommend import Analysis, CellResult, FittedRun
from curves.run_folder import write_atomically

Row = dict[str, Any]
PARTS = {
    "minimum": ("low", "median", "high", "level"),
    "window": ("low", "high"),
    "priced": ("price", "steps"),
    "expected_minimum": ("low", "median", "high", "level"),
    "runner_up": ("worse_by", "error", "told_apart"),
    "kohya": ("repeats", "epochs"),
}
LAW_COLUMNS = (
    "method",
    "base_model",
    "resolution",
    "images",
    "exponent_low",
    "exponent_median",
    "exponent_high",
)


def write_tables(analysis: Analysis, folder: Path) -> None:
    """Write the three files into a folder; a table without rows is its header."""
    cells = analysis.recommendation.cells
    tables: dict[str, tuple[list[Row], Sequence[str]]] = {
        "cells": ([cell_row(words.cell_name(cell, cells), asdict(cell)) for cell in cells], ()),
        "runs": ([_run_row(item, cell, cells) for cell in analysis.cells for item in cell.runs], ()),
        "law": (
            [flat(group) for group in (analysis.recommendation.law or {}).get("groups", [])],
            LAW_COLUMNS,
        ),
    }
    for name, (rows, columns) in tables.items():
        write_table(folder / f"{name}.csv", rows, columns)


def cell_row(name: str, cell: Mapping[str, Any]) -> Row:
    """A cell of recommendation.json in columns: minimum_low, window_high, hyperparameters_lr, evidence_runs, ..."""
    empty = {key: dict.fromkeys(PARTS[key]) for key in PARTS if cell[key] is None}
    return {"cell": name} | flat({**cell, **empty})


def _run_row(item: FittedRun, cell: CellResult, cells: Sequence[Any]) -> Row:
    run, best = item.run, item.run.best
    return {
        "cell": words.cell_name(cell.answer, cells),
        "run": run.name,
        "trial": run.facts.trial,
        "seed": run.facts.seed,
        "steps": run.last_step,
        "best_step": None if best is None else best.step,
        "best_loss": None if best is None else best.val_loss,
        "outcome": run.outcome,
        "censored": item.censored,
        "at_best_hyperparameters": run.name in {other.run.name for other in cell.best},
        "note": item.note,
        **flat({"hyperparameters": run.facts.hyperparameters}),
    }


def flat(record: Mapping[str, Any], prefix: str = "") -> Row:
    """Nested values as columns `outer_inner`; lists as one text, blanks between."""
    row: Row = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            row |= flat(value, f"{prefix}{key}_")
        else:
            row[f"{prefix}{key}"] = " ".join(map(str, value)) if isinstance(value, list | tuple) else value
    return row


def write_table(path: Path, rows: Sequence[Row], columns: Sequence[str] = ()) -> None:
    """Write a CSV file: the columns given, then others in the order in which rows have them; None is empty."""
    names = list(dict.fromkeys([*columns, *(key for row in rows for key in row)]))
    text = io.StringIO()
    table = csv.DictWriter(text, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue())
