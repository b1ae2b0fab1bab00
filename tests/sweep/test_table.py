"""The table fits, and says what it should."""

import io

from hypothesis import given
from hypothesis import strategies as st
import pytest
from rich.console import Console

from sweep.clock import duration
from sweep.table import Row, Totals, draw, sparkline


@pytest.mark.parametrize("width", [80, 120, 160])
def test_table_fits_its_terminal(width: int) -> None:
    losses = [1 - 0.01 * step for step in range(60)]
    rows = [
        Row(
            number,
            "n1024-text_to_image-px1024-custom-patience",
            12345,
            20000,
            losses,
            7200.0,
            None if number > 2 else "out_of_memory",
        )
        for number in range(9)
    ]
    console = Console(file=io.StringIO(), width=width, height=24, force_terminal=False)
    console.print(draw(Totals("demo", 3, 6, 96, 100.0, 7000.0), rows, width, 24))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 24
    text = "\n".join(lines)
    assert "3 of 96 trials done, 6 running, elapsed 1m 40s, about 1h 56m left" in " ".join(text.split())
    for word in ("0008", "12345/20000", "0.4100", "2h 00m", "out_of_memory", "running", "█"):
        assert word in text


@pytest.mark.parametrize("width", [40, 50, 60, 70])
def test_narrow_table_keeps_step_and_outcome(width: int) -> None:
    rows = [
        Row(0, "n1024-text_to_image-px1024-custom", 123, 240, [1.0, 0.9], 70.0),
        Row(1, "n8-lora-native-tiny", 64, 240, [1.0, 0.9], None, "complete"),
    ]
    console = Console(file=io.StringIO(), width=width, height=24)
    console.print(draw(Totals("demo", 1, 1, 2), rows, width, 24))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    for word in ("0000", "123/240", "running", "complete", "n8-lora"):
        assert word in text
    assert ("0.9000" in text) == (width >= 50)


def text_of(totals: Totals, rows: list[Row], width: int, height: int | None) -> str:
    console = Console(file=io.StringIO(), width=width, height=100)
    console.print(draw(totals, rows, width, height))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_running_trials_come_first_then_the_latest_and_failures_make_room_last() -> None:
    rows = [Row(number, "cell", outcome="complete" if number < 50 else None) for number in range(60)]
    rows[3].outcome = "diverged"
    text = text_of(Totals("demo", 50, 10, 60), rows, 80, 24)
    shown = [line.split()[0] for line in text.splitlines()[2:-1]]
    assert shown == [f"{number:04d}" for number in (*range(50, 60), *range(49, 41, -1), 3)]
    assert text.splitlines()[-1] == "41 that have ended are not shown"
    few = text_of(Totals("demo", 50, 10, 60), rows, 80, 10)
    assert few.splitlines()[-1] == "5 running trials and 50 that have ended are not shown"
    whole = text_of(Totals("demo", 50, 10, 60), rows, 80, None)  # `sweep status`
    assert [line.split()[0] for line in whole.splitlines()[2:]] == [f"{number:04d}" for number in range(60)]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_amounts_are_not_torn_apart(width: int) -> None:
    spent = ["0.0011 of 2 hours", "0.0033 of 3 device-hours", "48 of 600 steps", "0.00018 of 1 GB"]
    lines = text_of(Totals("demo", 1, 0, 2, 26.0, 7.0, "stopping", spent), [], width, 24).splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(any(amount in line for line in lines) for amount in (*spent, "about 7s left", "elapsed 26s"))


@given(st.lists(st.floats(-1e6, 1e6), max_size=100), st.integers(1, 40))
def test_sparkline_never_exceeds_its_width(values: list[float], width: int) -> None:
    assert len(sparkline(values, width)) == min(len(values), width)


def test_sparkline_and_duration() -> None:
    assert sparkline([0.0, 1.0, 0.5], 10) == "▁█▅"
    assert sparkline([2.0, 2.0], 10) == "▄▄"
    texts = [duration(seconds) for seconds in (0.4, 59.6, 200, 7500, 273600)]
    assert texts == ["0s", "1m 00s", "3m 20s", "2h 05m", "3d 4h"]
