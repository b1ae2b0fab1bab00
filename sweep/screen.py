"""Where a sweep shows itself: a live table in a terminal, plain lines elsewhere.

Whoever watches may go away: a terminal that is closed, a `head` that has seen enough. Trainers run for hours,
so that the first line which cannot be written ends the showing, never the sweep.
"""

from collections.abc import Iterator, Sequence
import contextlib
import os
import shutil
import sys
import textwrap
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live

from conf.secrets import redact_text
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


def say(text: str) -> None:
    """Print a line without secrets, if anybody can still read it."""
    with _unwatched():
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print(_between_words(redact_text(text), width), flush=True)


def _between_words(text: str, width: int | None) -> str:
    """A text broken where words end, not where the screen does; a command stays one line, for copying."""
    if width is None or "python -m " in text:
        return text
    indent = " " * (len(text) - len(text.lstrip()) + 4)
    return textwrap.fill(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


@contextlib.contextmanager
def _unwatched() -> Iterator[None]:
    """From the first line that cannot be written on, standard output leads nowhere.

    What is buffered goes there too: it would fail anew when the interpreter ends.
    """
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


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
        say(text)

    def update(self, totals: Totals, rows: Sequence[Row]) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + SUMMARY_EVERY_S
            for line in totals.lines():
                say(line)


class LiveScreen:
    """A table that is redrawn in place; the last state stays on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def __enter__(self) -> Self:
        with _unwatched():
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with _unwatched():
            self._live.stop()

    def event(self, text: str, important: bool = False) -> None:
        if important:
            with _unwatched():
                said = _between_words(redact_text(text), self._console.width)
                self._live.console.print(said, markup=False, highlight=False, soft_wrap=True)

    def update(self, totals: Totals, rows: Sequence[Row]) -> None:
        with _unwatched():
            self._live.update(draw(totals, rows, self._console.width, self._console.height), refresh=True)
