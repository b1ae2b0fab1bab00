"""What a person sees: lines without a terminal, and a time left that counts evaluations for what they take."""

import pytest

from curves.point import Point
from finetune.clock import Clock
from finetune.progress import Progress, describe_loss, format_duration


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (125, "2:05"), (3725, "1:02:05")])
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_losses_in_words() -> None:
    assert describe_loss(Point(4, val_loss=0.99, delta=-0.01)) == "held-out loss 0.99000 (-1.00 %)"
    assert describe_loss(Point(0, val_loss=1.0, delta=0.0)) == "held-out loss 1.00000"
    assert describe_loss(Point(4, train_loss=0.5)) == "train loss 0.5000"
    assert describe_loss(Point(0)) == ""


def test_the_time_left_is_of_steps_evaluations_and_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("finetune.clock.time.monotonic", lambda: now[0])
    clock = Clock(earlier_s=50.0)
    assert clock.left_s({"step": 10}) is None
    for kind, seconds in (("evaluation", 4.0), ("step", 1.0), ("step", 2.0)):
        with clock.timing(kind):
            now[0] += seconds
    assert clock.wall_s == 57.0
    assert (clock.mean_s("step"), clock.mean_s("samples")) == (1.5, None)
    assert clock.left_s({"step": 10, "evaluation": 3, "samples": 2}) == 10 * 1.5 + 3 * 4.0


def test_without_a_terminal_there_is_a_line_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10, ({0, 4, 10}, {0, 10}), shown=True)
    clock = Clock(0.0)
    with clock.timing("step"):
        pass
    progress.step(1, clock)
    progress.point(Point(4, val_loss=0.99, delta=-0.01), clock)
    said = capsys.readouterr().err
    assert said.startswith("step 4/10  held-out loss 0.99000 (-1.00 %)  ")
    assert said.endswith(" steps/s  0:00 left\n")


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(10, ({0}, {0}), shown=False)
    progress.point(Point(0, val_loss=1.0), Clock(0.0))
    progress.say("hello")
    progress.close()
    assert capsys.readouterr().err == ""
