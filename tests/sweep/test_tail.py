"""A growing curve is read piece by piece, whatever the pieces."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from curves.point import Point, format_point
from curves.run_folder import RunFolder
from sweep.tail import CurveTail


def line(step: int, loss: float | None) -> str:
    return format_point(Point(step=step, val_loss=loss, train_loss=1.0))


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 500), max_size=8))
def test_any_pieces_give_the_whole(tmp_path_factory, cuts: list[int]) -> None:  # type: ignore[no-untyped-def]
    path: Path = tmp_path_factory.mktemp("curve") / "curve.jsonl"
    content = "".join(line(step, 1 / (step + 1) if step % 2 == 0 else None) for step in range(10)).encode()
    tail, seen, position = CurveTail(path), {}, 0
    assert tail.read() == {}
    for cut in [*sorted(cuts), len(content)]:
        with path.open("ab") as file:
            file.write(content[position : max(position, cut)])
        position = max(position, cut)
        seen.update(tail.read())
    assert seen == tail.losses == {step: 1 / (step + 1) for step in range(0, 10, 2)}
    assert tail.last is not None and tail.last.step == 9


def test_resumed_run_writes_its_curve_anew(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    tail = CurveTail(folder.curve)
    for step in (0, 4, 8):
        folder.append_point(Point(step=step, val_loss=1.0))
    tail.read()
    folder.cut_curve(4)
    folder.append_point(Point(step=6, val_loss=0.5))
    tail.read()
    assert tail.losses == {0: 1.0, 4: 1.0, 6: 0.5}
    assert tail.best() == 0.5


def test_damaged_line_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "curve.jsonl"
    path.write_text(line(0, 1.0) + "{broken\n[]\n" + line(4, 0.5), encoding="utf-8")
    tail = CurveTail(path)
    assert tail.read() == {0: 1.0, 4: 0.5}
