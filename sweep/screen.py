"""Where a sweep shows itself: a live table in a terminal, plain lines elsewhere."""

from collections.abc import Sequence
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from sweep.table import Row, Totals, draw

SUMMARY_EVERY_S = 30.0


class Screen(Protocol):
    """Shows events as they happen and the state of all trials."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def event(self, text: str, important: bool = False) -> None:
        """Something happened. What the table shows anyway is not `important`."""

    def update(self, totals: Totals, rows: Sequence[Row]) -> None:
        """The state now."""


def open_screen() -> Screen:
    """The screen that suits standard output."""
    console = Console()
    return LiveScreen(console) if console.is_terminal and not console.is_dumb_terminal else PlainScreen()


class PlainScreen:
    """Lines for a log file: each event, and a summary every 30 seconds."""

    def __init__(self) -> None:
        self._next = time.monotonic() + SUMMARY_EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def event(self, text: str, important: bool = False) -> None:
        print(text, flush=True)

    def update(self, totals: Totals, rows: Sequence[Row]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SUMMARY_EVERY_S
            print(totals.line(), flush=True)


class LiveScreen:
    """A table that is redrawn in place; the last state stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def event(self, text: str, important: bool = False) -> None:
        if important:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(self, totals: Totals, rows: Sequence[Row]) -> None:
        self._live.update(draw(totals, rows, self._console.width, self._console.height), refresh=True)
