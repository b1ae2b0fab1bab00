"""comparison.html, one self-contained file, with its figures, its numbers as JSON and CSV, and the table in a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
import shlex
import shutil
import sys
from typing import Any

from analysis import words
from analysis.comparison import ComparedCell, Comparison, Difference, Entry, as_record
from analysis.draw_comparison import draw_overlay, draw_steps, study_colour
from analysis.page import render
from analysis.table import Table, format_table, wrapped
from analysis.tables import Row, cell_row, write_table
from conf.errors import WorkError
from curves.run_folder import write_atomically, write_json

NAME = "comparison"


@dataclass(frozen=True)
class Section:
    """What the page shows of one cell."""

    cell: ComparedCell
    slug: str
    svg: str | None


def default_folder(comparison: Comparison) -> Path:
    """RUNS_A/analysis/comparison-B-C: beside the first study's report, named by the others."""
    others = "-".join(words.file_name(analysis.study.name) for analysis in comparison.analyses[1:])
    return comparison.analyses[0].study.root / "analysis" / words.file_name(f"{NAME}-{others}")


def write_comparison(comparison: Comparison, folder: Path) -> Path:
    """Write comparison.html, .json and .csv and figures/; returns the page's path.

    Raises:
        WorkError: the folder cannot be written.
    """
    page = folder / f"{NAME}.html"
    try:
        page.with_suffix(".pdf").unlink(missing_ok=True)  # of an earlier comparison
        write_atomically(page, render(f"{NAME}.html.j2", _context(comparison, folder / "figures")))
        write_json(folder / f"{NAME}.json", as_record(comparison))
        write_table(folder / f"{NAME}.csv", _rows(comparison))
    except OSError as error:
        raise WorkError(f"{folder}: the comparison cannot be written: {error}") from error
    return page


def _context(comparison: Comparison, figures: Path) -> dict[str, Any]:
    slugs = [f"{index + 1:02d}-{words.file_name(cell.name)}" for index, cell in enumerate(comparison.cells)]
    sections = [
        Section(cell, slug, draw_overlay(cell, comparison, figures, slug))
        for cell, slug in zip(comparison.cells, slugs, strict=True)
    ]
    paths = [str(analysis.study.root) for analysis in comparison.analyses]
    return {
        "comparison": comparison,
        "summary": summary(comparison),
        "steps_svg": draw_steps(comparison, figures),
        "sections": sections,
        "colours": {label: study_colour(index) for index, label in enumerate(comparison.studies)},
        "differs": differs,
        "in_words": difference_in_words,
        "duration": words.duration,
        "not_compared": not_compared,
        "command": shlex.join(["python", "-m", "analysis", "compare", *paths]),
        "words": words,
    }


def summary(comparison: Comparison) -> list[str]:
    """How much matches, what differs, and what is not compared, a sentence each."""
    shared = [cell for cell in comparison.cells if len(cell.entries) > 1]
    alone = len(comparison.cells) - len(shared)
    said = [
        f"{len(shared)} of {len(comparison.cells)} cells are in more than one study"
        + (f", {alone} in one alone." if alone else ".")
    ]
    told = [f"{cell.name}: {difference_in_words(item, cell)}" for cell in shared for item in cell.differences]
    if told:
        said.append(f"Different beyond their intervals: {'; '.join(told)}.")
    elif any(not cell.steps for cell in shared):
        said.append("Nothing that may be compared differs beyond its intervals.")
    refused = [cell for cell in shared if cell.losses]
    if refused:
        said.append(
            f"Losses are not compared in {len(refused)} of {len(shared)} shared cells: see why at each."
        )
    return said


def difference_in_words(difference: Difference, cell: ComparedCell) -> str:
    """gain larger in B than in A."""
    return f"{difference.field} {difference.direction} in {difference.study} than in {cell.entries[0].study}"


def differs(cell: ComparedCell, entry: Entry, field: str) -> bool:
    """Whether a field of a study is marked."""
    return any(item.study == entry.study and item.field == field for item in cell.differences)


def not_compared(cell: ComparedCell) -> str:
    """What is not compared in a cell, and why."""
    parts = [f"Steps are not compared: {cell.steps}."] if cell.steps else []
    parts += [f"Losses are not compared: {cell.losses}."] if cell.losses else []
    return " ".join(parts)


def comparison_table(comparison: Comparison) -> Table:
    """One row a cell and study for a terminal; * marks what differs from the cell's first study."""
    rows = []
    for cell in comparison.cells:
        for index, entry in enumerate(cell.entries):
            rows.append([cell.name if index == 0 else "", entry.study, *_texts(cell, entry)])
    titles = ["cell", "study", "lr", "steps", "minimum (90 %)", "window", "gain", "seen", "time"]
    return Table(titles, rows, frozenset({"cell", "study"}))


def _texts(cell: ComparedCell, entry: Entry) -> list[str]:
    def marked(text: str, field: str) -> str:
        return f"{text} *" if differs(cell, entry, field) else text

    answer = entry.answer
    return [
        words.learning_rate(answer),
        words.steps_or_status(answer),
        marked(words.minimum(answer), "minimum"),
        marked(words.window(answer), "window"),
        marked(words.gain(answer), "gain"),
        words.count(answer.images_seen),
        words.duration(entry.seconds),
    ]


def explanations(comparison: Comparison) -> list[str]:
    """What the table cannot say, a line each."""
    return summary(comparison) + [
        f"{cell.name}: {' '.join(part for part in (cell.other and f'{cell.other}.', not_compared(cell)) if part)}"
        for cell in comparison.cells
        if cell.other or not_compared(cell)
    ]


def print_comparison(comparison: Comparison) -> None:
    """Print the table and its explanations to standard output."""
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 100
    print(format_table(comparison_table(comparison), width))
    legend = "*: differs from the cell's first study beyond the intervals. seen: images trained on."
    print("\n".join(["", *wrapped([legend], width), "", *wrapped(explanations(comparison), width)]))


def _rows(comparison: Comparison) -> Sequence[Row]:
    """comparison.csv: one line a cell and study, the columns of cells.csv and what differs."""
    return [
        {
            "study": entry.study,
            **cell_row(cell.name, vars(entry.answer)),
            "seconds": entry.seconds,
            "differs_in": " ".join(item.field for item in cell.differences if item.study == entry.study),
            "losses_not_compared": cell.losses,
            "steps_not_compared": cell.steps,
        }
        for cell in comparison.cells
        for entry in cell.entries
    ]
