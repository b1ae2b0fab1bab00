"""The table on a terminal."""

import pytest

from analysis import words
from analysis.recommend import Analysis
from analysis.table import (
    Table,
    explanations,
    format_table,
    headline,
    print_recommendation,
    recommendation_table,
)


def test_table_fits_80_columns_and_tells_every_cell(
    analysis: Analysis, capsys: pytest.CaptureFixture[str]
) -> None:
    print_recommendation(analysis)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    body = printed.splitlines()
    for cell in analysis.recommendation.cells:
        lines = [line for line in body if line.split()[:2] == [cell.method, str(cell.images)]]
        assert len(lines) == 1
        assert words.steps_or_status(cell) in lines[0]
        assert words.minimum(cell) in lines[0]
    assert "left out 0099-damaged" in printed


def test_explanations_say_why_in_words(analysis: Analysis) -> None:
    text = "\n".join(explanations(analysis))
    for said in (
        "not reached: ",
        "no gain: ",
        "refused: ",
        "panel-a",
        "the minimum is probably later than",
        "2 censored",
    ):
        assert said in text
    assert headline(analysis).startswith("everything: 13 runs; base tiny, resolution 64 px, captions file")


def test_levels_that_differ_become_columns(analysis: Analysis) -> None:
    from dataclasses import replace

    cells = [replace(analysis.recommendation.cells[0], resolution=size) for size in (64, 128)]
    table = recommendation_table(cells)
    assert "resolution" in table.titles
    assert "captions" not in table.titles
    assert words.slug(cells[0], cells) != words.slug(cells[1], cells)
    assert "128 px" in words.cell_name(cells[1], cells)


def test_format_table_aligns_and_breaks_titles() -> None:
    table = Table(["name", "a long title"], [["x", "1"], ["yy", "22"]], frozenset({"name"}))
    assert (
        format_table(table, 80)
        == "name  a long title\n----  ------------\nx                1\nyy              22"
    )
    assert format_table(table, 12) == "         a\n      long\nname title\n---- -----\nx        1\nyy      22"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.002134, "0.0021"),
        (100.0, "100"),
        (2112.0, "2112"),
        (9.96, "10"),
        (5e-7, "5e-7"),
        (1.24e-4, "1.2e-4"),
        (0.01, "0.01"),
        (1e-3, "0.001"),
        (1e-4, "1e-4"),
    ],
)
def test_learning_rates_in_words(value: float, text: str) -> None:
    assert words.rate(value) == text


def test_gain_is_told_to_the_digits_of_its_error(analysis: Analysis) -> None:
    from dataclasses import replace

    row = analysis.recommendation.cells[0]
    assert words.gain(replace(row, gain=0.012345, gain_se=0.00098)) == "0.01235 ± 0.00098"
    assert words.gain(replace(row, gain=0.012345, gain_se=None)) == "0.0123"
    assert words.gain(replace(row, gain=None)) == "–"
    assert words.gain(replace(row, gain=3.3e-16, gain_se=5.9e-16)) == "3.3e-16 ± 5.9e-16"
    assert words.gain(replace(row, gain=1.5e-6, gain_se=2.2e-5)) == "0.000002 ± 0.000022"


@pytest.mark.parametrize(
    ("value", "text"),
    [(2112.0, "2112"), (100.0, "100"), (999.6, "1000"), (9999.4, "9999"), (7.254, "7.25"), (7.0, "7")],
)
def test_no_exponent_below_ten_thousand(value: float, text: str) -> None:
    assert words.number(value) == text


def test_gain_before_the_minimum_is_the_gain_so_far(analysis: Analysis) -> None:
    told = {cell.status: words.gain(cell) for cell in analysis.recommendation.cells}
    assert told["not_reached"].endswith(" so far") and "so far" not in told["ok"]
    text = "\n".join(explanations(analysis))
    assert f"gain {told['not_reached']}, 2 runs, 2 censored" in text


def test_a_refused_cell_counts_the_runs_that_it_has(analysis: Analysis) -> None:
    told = {
        cell.images: words.runs(cell) for cell in analysis.recommendation.cells if cell.status == "refused"
    }
    assert told == {16: "0 of 2 runs used", 64: "0 of 1 run used", 128: "0 of 1 run used"}
