"""The tables that people load elsewhere: the numbers of recommendation.json and of the runs, unrounded."""

from collections.abc import Iterator
import csv
import json
from pathlib import Path
from typing import Any

from analysis.load import load_study
from analysis.recommend import Analysis, analyse
from analysis.report import write_report
from tests.analysis.make_runs import Spec, make_study


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def text(value: Any) -> str:
    return "" if value is None else str(value)


def leaves(record: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values that are no mappings, by their keys joined."""
    for key, value in record.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}_")
        else:
            yield f"{prefix}{key}", value


def test_cells_are_those_of_the_recommendation(report: Path) -> None:
    stored = json.loads((report.parent / "recommendation.json").read_text())["cells"]
    rows = read(report.parent / "tables" / "cells.csv")
    assert len(rows) == len(stored) == 8
    for row, cell in zip(rows, stored, strict=True):
        for key, value in leaves(cell):
            if key in row or value is not None:
                assert row[key] == text(value)
        assert row["minimum_median"] == text((cell["minimum"] or {}).get("median"))
        assert row["window_high"] == text((cell["window"] or {}).get("high"))


def test_runs_are_all_runs_with_their_own_numbers(report: Path, analysis: Analysis) -> None:
    rows = {row["run"]: row for row in read(report.parent / "tables" / "runs.csv")}
    assert len(rows) == 13
    for cell in analysis.cells:
        for item in cell.runs:
            row = rows[item.run.name]
            assert float(row["hyperparameters_lr"]) == item.run.lr
            best = item.run.best
            assert (row["best_step"], row["best_loss"]) == (
                ("", "") if best is None else (str(best.step), str(best.val_loss))
            )
            assert row["at_best_hyperparameters"] == str(any(item is other for other in cell.best))
    assert {row["outcome"] for row in rows.values()} == {"complete", "pruned", "crashed", "out_of_memory"}


def test_the_law_is_a_line_a_group_and_a_header_where_there_is_none(report: Path, tmp_path: Path) -> None:
    law = json.loads((report.parent / "recommendation.json").read_text())["law"]
    [row] = read(report.parent / "tables" / "law.csv")
    [group] = law["groups"]
    assert row["images"] == "4 8 16" and row["method"] == "lora"
    assert row["exponent_median"] == str(group["exponent"]["median"])
    path = write_report(analyse(load_study(make_study(tmp_path / "s", [Spec(horizon=100)]))))
    lines = (path.parent / "tables" / "law.csv").read_text().splitlines()
    assert lines == ["method,base_model,resolution,images,exponent_low,exponent_median,exponent_high"]


def test_columns_do_not_depend_on_the_answers(tmp_path: Path) -> None:
    """A study without one answer has the columns of one with answers: somebody reads both with one program."""
    path = write_report(analyse(load_study(make_study(tmp_path / "s", [Spec(last_step=-1)]))))
    header = set((path.parent / "tables" / "cells.csv").read_text().splitlines()[0].split(","))
    assert {"minimum_low", "minimum_high", "window_low", "recommended_steps", "priced_steps"} <= header
