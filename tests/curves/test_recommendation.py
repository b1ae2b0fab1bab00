"""recommendation.json: written, read back, matched; and damaged ones are named."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from curves.recommendation import (
    CellAnswer,
    Recommendation,
    matching_cell,
    nearest_cells,
    read_recommendation,
    write_recommendation,
)

CELL = CellAnswer(
    dataset_size="n8",
    resolution=64,
    method="lora",
    base_model="tiny",
    captions="file",
    images=8,
    dataset="d1",
    base_id="b1",
    hyperparameters={"lr": 0.001, "rank": 8},
    status="ok",
    recommended_steps=120,
    minimum={"low": 110.0, "median": 150.0, "high": 210.0, "level": 0.9},
)


def test_a_recommendation_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Recommendation(study="demo", cells=[CELL, replace(CELL, images=16, status="refused")])
    write_recommendation(tmp_path / "analysis" / "recommendation.json", written)
    assert read_recommendation(tmp_path) == written


@pytest.mark.parametrize("name", ["dataset", "captions", "resolution", "base_id", "method", "images"])
def test_a_cell_matches_only_where_everything_that_decides_the_loss_is_equal(name: str) -> None:
    identity = asdict(CELL)
    assert matching_cell([CELL], identity) == CELL
    identity[name] = "other" if isinstance(identity[name], str) else identity[name] + 1
    assert matching_cell([CELL], identity) is None


def test_the_nearest_cells_come_first() -> None:
    cells = [
        replace(CELL, images=64),
        replace(CELL, images=16),
        replace(CELL, images=16, method="text_to_image"),
    ]
    nearest = nearest_cells(cells, asdict(replace(CELL, images=12)))
    assert [(cell.images, cell.method) for cell in nearest] == [
        (16, "lora"),
        (64, "lora"),
        (16, "text_to_image"),
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"study": "x", "cells": [{}], "schema": 1}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "analysis" / "recommendation.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"recommendation\.json"):
        read_recommendation(tmp_path)
