"""What a person sees: a bar with held-out loss, speed and time left; plain lines without a terminal."""

import sys
import time

from tqdm import tqdm

from curves.point import Point


class Progress:
    """Shows how a run goes, on standard error; silent on other ranks."""

    def __init__(self, horizon: int, shown: bool) -> None:
        self._shown = shown
        self._horizon = horizon
        self._first = 0
        self._began = time.monotonic()
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        if shown and sys.stderr.isatty():
            self._bar = tqdm(total=horizon, unit="step", dynamic_ncols=True, smoothing=0.05)

    def start_at(self, step: int) -> None:
        """A run that goes on starts at a later step."""
        self._first = step
        if self._bar is not None:
            self._bar.initial = self._bar.n = step
            self._bar.refresh()

    def step(self, step: int) -> None:
        """Show that a step is done."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def point(self, point: Point) -> None:
        """Show an evaluation."""
        if self._bar is not None:
            self._bar.set_postfix_str(_losses(point))
        elif self._shown:
            print(
                f"step {point.step}/{self._horizon}  {_losses(point)}  {self._speed(point.step)}",
                file=sys.stderr,
                flush=True,
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

    def _speed(self, step: int) -> str:
        done = step - self._first
        if done < 1:
            return ""
        seconds = (time.monotonic() - self._began) / done
        return f"{1 / seconds:.1f} steps/s  {_duration(seconds * (self._horizon - step))} left"


def _losses(point: Point) -> str:
    if point.val_loss is None:
        return "" if point.train_loss is None else f"train loss {point.train_loss:.4f}"
    text = f"held-out loss {point.val_loss:.5f}"
    if point.delta is not None and point.step > 0:
        base = point.val_loss - point.delta
        text += f" ({100 * point.delta / base:+.2f} %)"
    return text


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
