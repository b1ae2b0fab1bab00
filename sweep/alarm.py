"""A wait that signals end: an ended trainer, Ctrl-C and TERM are acted on at once, not at the next poll."""

import contextlib
import os
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Self

_ASKING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Alarm:
    """Turns signals into facts that a loop reads.

    Attributes:
        asked: number of the first signal that asked to end, None before.
        pressed: when Ctrl-C was pressed last (monotonic seconds), None before. Other signals do not count:
            `timeout` and service managers send theirs twice within milliseconds.
    """

    def __init__(self) -> None:
        self.asked: int | None = None
        self.pressed: float | None = None
        self._read, self._write = os.pipe()
        self._old: dict[int, object] = {}

    def __enter__(self) -> Self:
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        for number in _ASKING:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup keeps a sweep going
                self._old[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal gave
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Wait until a signal comes, at most so long."""
        select.select([self._read], [], [], seconds)
        with contextlib.suppress(BlockingIOError):
            os.read(self._read, 4096)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = self.asked or number
        if number == signal.SIGINT:
            self.pressed = time.monotonic()
