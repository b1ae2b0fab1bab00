"""curve.jsonl: what is written is read back, and a file torn anywhere still gives every whole point."""

import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from curves.point import Point, format_point, parse_points
from curves.run_folder import RunFolder

finite = st.floats(allow_nan=False, allow_infinity=False)
maybe = st.none() | finite
extras = st.dictionaries(
    st.text(min_size=1).filter(lambda key: key not in Point.__dataclass_fields__ and key != "diverged"),
    st.none() | st.booleans() | st.integers() | st.text(),
    max_size=3,
)


@st.composite
def curves(draw: st.DrawFn) -> list[Point]:
    steps = sorted(draw(st.sets(st.integers(0, 10**9), min_size=1, max_size=8)))
    return [
        Point(
            step=step,
            images_seen=draw(st.none() | st.integers(0, 10**9)),
            lr_sum=draw(maybe),
            train_loss=draw(maybe),
            val_loss=draw(maybe),
            image_loss=draw(st.none() | st.lists(finite, max_size=4)),
            panel=draw(st.none() | st.text(max_size=5)),
            extra=draw(extras),
        )
        for step in steps
    ]


@given(curves())
def test_a_curve_is_read_as_it_was_written(points: list[Point]) -> None:
    assert parse_points(format_point(point) for point in points) == points


@given(curves(), st.data())
def test_a_torn_file_gives_its_whole_points(points: list[Point], data: st.DataObject) -> None:
    text = "".join(format_point(point) for point in points).encode()
    cut = data.draw(st.integers(0, len(text)))
    torn = text[:cut].decode("utf-8", errors="replace")
    whole = torn.count("\n")
    read = parse_points(torn.split("\n"))
    # A cut just before a newline leaves a whole record without its end: it may be read too.
    assert read in (points[:whole], points[: whole + 1])


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.curve.write_text(
        '{"step": 0, "val_loss": 0.2}\n{"step": 4, "val_l\n{"step": 8, "val_loss": 0.1}\n'
    )
    with pytest.raises(ValueError, match=r"curve\.jsonl: line 2"):
        folder.points()


@pytest.mark.parametrize(
    "line", ['{"val_loss": 1}', '{"step": -1}', '{"step": 1.5}', '{"step": true}', "[]", "4"]
)
def test_a_line_without_a_whole_step_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="line 1"):
        parse_points([line, '{"step": 5}'])


def test_numbers_that_are_not_finite_are_written_as_null_and_marked() -> None:
    line = format_point(Point(step=3, train_loss=math.nan, image_loss=[1.0, math.inf]))
    record = json.loads(line)
    assert record == {"step": 3, "train_loss": None, "image_loss": None, "diverged": True}
    assert parse_points([line])[0].extra == {"diverged": True}


def test_a_resumed_run_replaces_what_it_trains_again() -> None:
    lines = [
        format_point(Point(step=step, val_loss=loss))
        for step, loss in ((0, 3.0), (4, 2.0), (8, 1.5), (4, 2.5), (6, 1.0))
    ]
    assert [(point.step, point.val_loss) for point in parse_points(lines)] == [(0, 3.0), (4, 2.5), (6, 1.0)]


def test_cutting_a_curve_keeps_the_points_up_to_the_step(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in (0, 4, 8, 16):
        folder.append_point(Point(step=step, val_loss=1.0 / (step + 1)))
    folder.cut_curve(8)
    assert [point.step for point in folder.points()] == [0, 4, 8]
    assert [item.name for item in tmp_path.iterdir()] == ["curve.jsonl"]


def test_two_points_on_one_line_are_damage() -> None:
    lines = ['{"step":0}\n', '{"step":4},{"step":5}\n', '{"step":6}\n']
    with pytest.raises(ValueError, match="line 2"):
        parse_points(lines)
