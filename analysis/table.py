"""The table of a recommendation as text, legible in 80 columns; in colour on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import shutil
import sys
import textwrap

from analysis import words
from analysis.recommend import Analysis
from curves.recommendation import CellAnswer


@dataclass(frozen=True)
class Table:
    """Column titles and rows of text; `left` names the columns that are not numbers."""

    titles: list[str]
    rows: list[list[str]]
    left: frozenset[str] = frozenset()


def recommendation_table(cells: Sequence[CellAnswer]) -> Table:
    """One row a cell: what to train with, how long, and when the minimum comes."""
    varying = words.varying_levels(cells)
    titles = ["method", "images", *varying, "lr", "steps", "minimum (90 %)", "window", "seen", "epochs"]
    rows = [
        [
            cell.method,
            words.count(cell.images),
            *(words.level(cell, name) for name in varying),
            words.learning_rate(cell),
            words.steps_or_status(cell),
            words.minimum(cell),
            words.window(cell),
            words.count(cell.images_seen),
            words.epochs(cell),
        ]
        for cell in cells
    ]
    return Table(titles, rows, frozenset({"method", *varying}))


def format_table(table: Table, width: int = 80) -> str:
    """Plain text; columns stand two blanks apart, one where the width demands it, and long titles break."""
    narrow = [
        max(len(row[i]) for row in [*table.rows, [""] * len(table.titles)]) for i in range(len(table.titles))
    ]
    wide = [max(size, len(title)) for size, title in zip(narrow, table.titles, strict=True)]
    gap = 2 if sum(wide) + 2 * len(wide) <= width else 1
    if sum(wide) + gap * (len(wide) - 1) > width:
        wide = [max(size, *map(len, title.split())) for size, title in zip(narrow, table.titles, strict=True)]
    titles = [textwrap.wrap(title, size) or [""] for title, size in zip(table.titles, wide, strict=True)]
    depth = max(map(len, titles))
    header = [[""] * (depth - len(lines)) + lines for lines in titles]
    lines = [_line([column[i] for column in header], table, wide, gap) for i in range(depth)]
    lines.append((" " * gap).join("-" * size for size in wide))
    lines.extend(_line(row, table, wide, gap) for row in table.rows)
    return "\n".join(line.rstrip() for line in lines)


def _line(cells: list[str], table: Table, widths: list[int], gap: int) -> str:
    aligned = [
        text.ljust(size) if title in table.left else text.rjust(size)
        for text, size, title in zip(cells, widths, table.titles, strict=True)
    ]
    return (" " * gap).join(aligned)


def headline(analysis: Analysis) -> str:
    """Study, number of runs, and the levels that all cells share."""
    cells = analysis.recommendation.cells
    runs = len(analysis.study.runs)
    levels = words.shared_levels(cells)
    shared = ", ".join(
        f"{name} {levels[name]}" for name in ("base", "resolution", "captions") if name in levels
    )
    return f"{analysis.study.name}: {runs} run{'' if runs == 1 else 's'}" + (f"; {shared}" if shared else "")


def explanations(analysis: Analysis) -> list[str]:
    """One line a cell: the gain, the evidence, the reason, the priced budget; then what was left out."""
    cells = analysis.recommendation.cells
    lines = [
        f"{words.cell_name(cell, cells)}: gain {words.gain(cell)}, {words.runs(cell)}; {words.reason(cell)}"
        + (f". {words.priced(cell)}" if cell.priced else "")
        + (f". {text[0].upper()}{text[1:]}" if (text := words.runner_up(cell)) else "")
        + (f"; {_from_law(cell)}" if cell.source == "law" and cell.status == "ok" else "")
        for cell in cells
    ]
    lines += [words.images_enough(found, len(analysis.enough) > 1) for found in analysis.enough]
    lines += words.outside_law(analysis.recommendation.law)
    return lines + [f"left out {name}: {reason}" for name, reason in analysis.study.damaged]


def _from_law(cell: CellAnswer) -> str:
    """What the table has no column for: of a cell without runs nobody sees it elsewhere."""
    kept = f"where the best checkpoint is kept: {cell.recommended_steps_best_kept} steps"
    return "; ".join(
        text for text in (kept if cell.recommended_steps_best_kept else "", words.kohya(cell.kohya)) if text
    )


def print_recommendation(analysis: Analysis) -> None:
    """Print headline, table and explanations to standard output."""
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 80
    table = recommendation_table(analysis.recommendation.cells)
    legend = "steps: train this long. window: likely within 5 % of the gain. seen: images trained on."
    if any(cell.window_open for cell in analysis.recommendation.cells):
        legend += " +: up to the end of the horizon, and maybe beyond."
    parts = [
        *wrapped([headline(analysis)], width),
        "",
        format_table(table, width),
        "",
        *wrapped([legend], width),
        "",
    ]
    text = "\n".join([*parts, *wrapped(explanations(analysis), width)])
    if sys.stdout.isatty():
        _print_in_colour(text, analysis.recommendation.cells)
    else:
        print(text)


def print_table(table: Table) -> None:
    """Print any table, as wide as the terminal."""
    width = shutil.get_terminal_size((80, 24)).columns if sys.stdout.isatty() else 100
    print(format_table(table, width))


def wrapped(lines: list[str], width: int) -> list[str]:
    """Lines broken at a width; what follows a break is set in."""
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]


def _print_in_colour(text: str, cells: Sequence[CellAnswer]) -> None:
    from rich.console import Console
    from rich.text import Text

    rich_text = Text(text)
    for word, style in (
        ("not reached", "yellow"),
        ("no gain", "yellow"),
        ("refused", "red"),
        ("left out", "red"),
    ):
        rich_text.highlight_words([word], style)
    steps = [words.count(cell.recommended_steps) for cell in cells if cell.recommended_steps is not None]
    rich_text.highlight_regex(
        "|".join(rf"(?m)(?<= ){step}(?= +\d+ \()" for step in steps) or r"(?!)", "bold green"
    )
    Console(soft_wrap=True, highlight=False).print(rich_text)
