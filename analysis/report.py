"""report.html, one self-contained file, and report.md: what was asked and answered, and on what evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import datetime
from pathlib import Path
from typing import Any

from analysis import words
from analysis.beyond_loss import BeyondLoss, beyond_loss, in_words
from analysis.draw import draw_cell, draw_sizes, step_limits
from analysis.draw_beyond_loss import draw_beyond_loss
from analysis.figures import cell_figure, sizes_groups
from analysis.page import render
from analysis.recommend import UNKNOWN, Analysis, CellResult, FittedRun
from analysis.reproduce import commands, environment, study_record
from analysis.samples import Strip, sample_strip
from analysis.tables import write_tables
from conf.errors import WorkError
from curves.recommendation import CellAnswer
from curves.run_folder import write_atomically
from curves.spent import read_account

# What stands for the report where it is handed on as a whole.
SENT_FILES = ("report.html", "report.md", "report.pdf", "recommendation.json", "figures", "tables")
BEYOND = "-beyond-loss"  # behind a cell's name: its second figure
MOST_SENTENCES = 6  # cells whose answer is told one by one
FIELDS = (  # of the table: key in recommendation.json, title, text of the value
    ("recommended_steps", "train", lambda cell: words.steps_or_status(cell)),
    ("minimum", "minimum (90\u00a0%)", words.minimum),
    ("window", "window", words.window),
    ("images_seen", "images seen", lambda cell: words.count(cell.images_seen)),
    ("epochs", "epochs", words.epochs),
    ("gain", "gain", words.gain),
)


@dataclass(frozen=True)
class CellSection:
    """What the page shows of one cell."""

    cell: CellAnswer
    name: str
    slug: str
    reason: str
    svg: str | None  # None where no run has an evaluation
    band: bool  # whether a posterior is drawn
    reference: str  # what losses are compared with: base model, or first evaluation
    beyond: BeyondLoss | None
    beyond_svg: str | None
    strip: Strip | None


@dataclass(frozen=True)
class RunRow:
    """One line of the table of all runs."""

    cell: str
    name: str
    trial: str
    lr: str
    seed: str
    steps: str
    best_step: str
    best_loss: str
    outcome: str
    note: str
    best: bool


def write_report(analysis: Analysis) -> Path:
    """Write report.html, report.md, figures/ and tables/ beside recommendation.json; returns the page's path.

    Raises:
        WorkError: the folder cannot be written.
    """
    folder = analysis.study.root / "analysis"
    try:
        _clear(folder)
        context = report_context(analysis, folder / "figures")
        for name in ("report.html", "report.md"):
            write_atomically(folder / name, render(f"{name}.j2", context))
        write_tables(analysis, folder / "tables")
    except OSError as error:
        raise WorkError(f"{folder}: the report cannot be written: {error}") from error
    return folder / "report.html"


def _clear(folder: Path) -> None:
    """Remove what an earlier report left and this one may not write: a PDF, figures of cells that are no more."""
    old = [folder / "report.pdf", *(folder / "figures").glob("*.svg"), *(folder / "figures").glob("*.png")]
    for path in old:
        path.unlink(missing_ok=True)


def report_context(analysis: Analysis, figures: Path) -> dict[str, Any]:
    """Everything the templates show."""
    cells = analysis.recommendation.cells
    groups = sizes_groups(cells)
    record = study_record(analysis.study.root)
    return {
        "study": analysis.study.name,
        "subtitle": subtitle(analysis, record),
        "asked": asked(analysis),
        "answered": answered(cells),
        "cells": cells,
        "varying": words.varying_levels(cells),
        "varying_hyperparameters": words.varying_hyperparameters(cells),
        "fields": FIELDS,
        "sections": [_section(cell, cells, figures) for cell in analysis.cells],
        "sizes_svg": draw_sizes(groups, figures, "steps-against-images") if groups else None,
        "laws": law_sentences(analysis.recommendation.law),
        "runs": [row for cell in analysis.cells for row in _run_rows(cell, cells)],
        "damaged": analysis.study.damaged,
        "commands": commands(analysis, record),
        "facts": environment(record),
        "account": read_account(analysis.study.root),
        "beyond_in_words": in_words,
        "words": words,
    }


def asked(analysis: Analysis) -> str:
    """The question, as the cells pose it; what no cell knows, of another tool's logs, is left out."""
    cells = analysis.recommendation.cells
    sizes = _numbers([cell.images for cell in cells], "and")
    parts = (
        ("", _listed(sorted({cell.base_model for cell in cells}), "or"), ""),
        ("at ", _numbers([cell.resolution for cell in cells], "or"), " px"),
        ("on ", sizes, " image" if sizes == "1" else " images"),
        ("with ", _listed(sorted({cell.method for cell in cells}), "or"), ""),
    )
    told = [f"{before}{value}{after}" for before, value, after in parts if value != UNKNOWN]
    return f"Asked: how many steps to {' '.join(['train', *told])}, at which learning rate, and when to stop."


def answered(cells: Sequence[CellAnswer]) -> str:
    """The answer in a sentence: cell by cell where they are few, else the range, and what has no answer."""
    known = [cell for cell in cells if cell.recommended_steps is not None]
    without = [cell for cell in cells if cell.recommended_steps is None]
    if not known:
        return f"Answered: nothing yet; {_without(without, cells)}."
    if len(known) <= MOST_SENTENCES:
        told = "; ".join(f"for {words.cell_name(cell, cells)}: {_train(cell)}" for cell in known)
    else:
        few, *_, many = sorted(known, key=lambda cell: cell.recommended_steps or 0)
        told = (
            f"{len(known)} of {len(cells)} cells, from {_train(few)} ({words.cell_name(few, cells)}) "
            f"to {_train(many)} ({words.cell_name(many, cells)})"
        )
    return f"Answered: {told}." + (f" No answer: {_without(without, cells)}." if without else "")


def _train(cell: CellAnswer) -> str:
    told = f"train {words.count(cell.recommended_steps)} steps (window {words.window(cell)})"
    return told if words.learning_rate(cell) == words.NONE else f"{told} at lr {words.learning_rate(cell)}"


def _without(without: Sequence[CellAnswer], cells: Sequence[CellAnswer]) -> str:
    if len(without) > MOST_SENTENCES:
        counts = {status: sum(cell.status == status for cell in without) for status in words.STATUS_WORDS}
        return ", ".join(
            f"{count} cells {words.STATUS_WORDS[name]}" for name, count in counts.items() if count
        )
    return "; ".join(
        f"{words.cell_name(cell, cells)} ({words.STATUS_WORDS[cell.status]})" for cell in without
    )


def subtitle(analysis: Analysis, record: dict[str, Any]) -> str:
    """Date, base and images of the study."""
    shared = words.shared_levels(analysis.recommendation.cells)
    dataset = (record.get("config") or {}).get("dataset") or {}
    parts = [str(record.get("created") or datetime.date.today().isoformat())[:10]]
    if "base" in shared:
        parts.append(f"base model {shared['base']}")
    if dataset.get("name"):
        parts.append(f"images from {dataset['name']}")
    held_out = {
        len(point.image_loss) for run in analysis.study.runs for point in run.points[:1] if point.image_loss
    }
    if len(held_out) == 1:
        parts.append(f"held-out loss on {held_out.pop()} images")
    runs, cells = len(analysis.study.runs), len(analysis.cells)
    counted = f"{runs} run{'' if runs == 1 else 's'} in {cells} cell{'' if cells == 1 else 's'}"
    return " · ".join([*parts, counted])


def law_sentences(law: dict[str, Any] | None) -> list[str]:
    """The law across dataset sizes in words."""
    sentences = []
    for group in (law or {}).get("groups", []):
        value = group["exponent"]
        sentences.append(
            f"{group['method']}, {group['base_model']}, {group['resolution']} px: lr × steps at the minimum "
            f"grows as N^{value['median']} ({value['low']} to {value['high']}) over "
            f"N = {_listed(map(str, group['images']))}."
        )
    return sentences + [f"{line[0].upper()}{line[1:]}." for line in words.outside_law(law)]


def _section(cell: CellResult, cells: Sequence[CellAnswer], figures: Path) -> CellSection:
    row = cell.answer
    name = words.slug(row, cells)
    figure = cell_figure(cell, cells)
    beyond = beyond_loss(cell, cells)
    return CellSection(
        cell=row,
        name=words.cell_name(row, cells),
        slug=name,
        reason=words.reason(row),
        svg=draw_cell(figure, figures, name) if figure.lines else None,
        band=figure.band is not None,
        reference=figure.reference,
        beyond=beyond,
        beyond_svg=draw_beyond_loss(beyond, step_limits(figure), figures, f"{name}{BEYOND}")
        if beyond
        else None,
        strip=sample_strip(cell.shown.run, row) if cell.shown is not None else None,
    )


def _run_rows(cell: CellResult, cells: Sequence[CellAnswer]) -> list[RunRow]:
    best = {item.run.name for item in cell.best} if cell.answer.status != "no_gain" else set()
    return [
        RunRow(
            cell=words.cell_name(cell.answer, cells),
            name=item.run.name,
            trial=words.NONE if item.run.facts.trial is None else str(item.run.facts.trial),
            lr=words.NONE if item.run.lr is None else words.rate(item.run.lr),
            seed=words.count(item.run.facts.seed),
            steps=str(item.run.last_step),
            best_step=words.NONE if item.run.best is None else str(item.run.best.step),
            best_loss=words.NONE if item.run.best is None else f"{item.run.best.val_loss:.5f}",
            outcome=item.run.outcome or "running",
            note=_note(item),
            best=item.run.name in best,
        )
        for item in cell.runs
    ]


def _note(item: FittedRun) -> str:
    """What is to be known of a run beside its outcome."""
    if item.posterior is None:
        return item.note
    if item.posterior.probability_of_gain < 0.5:
        return "no gain"
    notes = ["ended before its minimum"] if item.censored else []
    return "; ".join([f"{item.run.folds} folds"] * (item.run.folds > 1) + notes)


def _numbers(values: Sequence[int | None], last: str) -> str:
    """The different ones in order, then whether some are unknown."""
    known = sorted({value for value in values if value is not None})
    return _listed([*known, *([UNKNOWN] if None in values else [])], last)


def _listed(values: Any, last: str = "and") -> str:
    items = [str(value) for value in values]
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}"
