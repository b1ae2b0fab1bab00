"""The record of how near samples come to the training images: what is written is read, whatever happened to the file."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from curves.likeness import FILE_NAME, Likeness, append_likeness, mean, read_likeness

VALUES = st.lists(st.none() | st.floats(-1, 10), min_size=1, max_size=4)
RECORDS = st.builds(
    Likeness,
    step=st.integers(0, 100_000),
    nearest=VALUES,
    held_out=st.none() | st.floats(0, 10),
    encoder=st.none() | st.text(max_size=20),
    similarity=st.none() | VALUES,
)


@given(st.lists(RECORDS, max_size=6))
def test_what_is_written_is_read_by_step_and_the_last_of_a_step_counts(
    tmp_path_factory: pytest.TempPathFactory, records: list[Likeness]
) -> None:
    folder = tmp_path_factory.mktemp("samples")
    for record in records:
        append_likeness(folder, record)
    last = {record.step: record for record in records}
    assert read_likeness(folder) == [last[step] for step in sorted(last)]


def test_a_torn_line_and_damaged_ones_cost_themselves_alone(tmp_path: Path) -> None:
    whole = Likeness(16, [0.5, None], 0.6)
    append_likeness(tmp_path, whole)
    damaged = [
        {"step": 32},
        {"step": "64", "nearest": [0.1]},
        {"step": True, "nearest": [0.1]},
        {"step": -1, "nearest": [0.1]},
        {"step": 32, "nearest": 0.1},
        {"step": 32, "nearest": ["near"]},
        {"step": 32, "nearest": [0.1], "encoder": 3},
        ["step", 32],
    ]
    with (tmp_path / FILE_NAME).open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in damaged)
        file.write('{"step":32,"nearest":[NaN]}\n{"step":128,"nea')
    assert read_likeness(tmp_path) == [whole]


def test_a_run_without_the_file_has_no_record(tmp_path: Path) -> None:
    assert read_likeness(tmp_path / "nowhere") == []


def test_mean_is_over_what_is_known() -> None:
    assert mean([0.2, None, 0.4]) == pytest.approx(0.3)
    assert mean([None]) is None and mean(None) is None


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        append_likeness(tmp_path, Likeness(0, [math.nan]))
