"""What a person sees: a bar with held-out loss, speed and time left; plain lines without a terminal."""

from collections.abc import Collection
import sys

from tqdm import tqdm

from curves.point import Point
from finetune.clock import Clock


class Progress:
    """Shows how a run goes, on standard error; silent on other ranks."""

    def __init__(self, horizon: int, grids: tuple[Collection[int], Collection[int]], shown: bool) -> None:
        self._shown = shown
        self._horizon = horizon
        self._grids = grids
        self._loss = ""
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        if shown and sys.stderr.isatty():
            layout = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt} steps {postfix}"
            self._bar = tqdm(total=horizon, dynamic_ncols=True, bar_format=layout)

    def step(self, step: int, clock: Clock) -> None:
        """Show that a step is done."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._loss}{self._speed(step, clock)}", refresh=False)
            self._bar.update(step - self._bar.n)

    def point(self, point: Point, clock: Clock) -> None:
        """Show an evaluation."""
        text = describe_loss(point)
        self._loss = f"{text}  " if text else ""
        if self._bar is None:
            self.say(
                f"step {point.step}/{self._horizon}  {self._loss}{self._speed(point.step, clock)}".rstrip()
            )

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _speed(self, step: int, clock: Clock) -> str:
        evaluated, sampled = (sum(later > step for later in grid) for grid in self._grids)
        remaining = {"step": self._horizon - step, "evaluation": evaluated, "samples": sampled}
        left, step_s = clock.left_s(remaining), clock.mean_s("step")
        if left is None or not step_s:
            return ""
        return f"{1 / step_s:.1f} steps/s  {format_duration(left)} left"


def describe_loss(point: Point) -> str:
    """The held-out loss and its change from the base in percent; without one, the training loss."""
    if point.val_loss is None:
        return "" if point.train_loss is None else f"train loss {point.train_loss:.4f}"
    text = f"held-out loss {point.val_loss:.5f}"
    if point.delta is not None and point.step > 0:
        base = point.val_loss - point.delta
        text += f" ({100 * point.delta / base:+.2f} %)"
    return text


def format_duration(seconds: float) -> str:
    """Minutes and seconds, with hours where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
