"""Requests to end from outside the run folder: signals, and the end of the supervisor. Needs no torch."""

import os
import signal
import threading
from types import FrameType

from conf.errors import WorkError

SUPERVISED = "STEPBUDGET_SUPERVISED"  # 1: standard input is a pipe from the supervisor
PATIENCE_S = 4.0  # after the supervisor is gone, the process ends within this time whatever it is doing


class Preempted(WorkError):
    """The run was asked to end before it had trained."""


class Interruption:
    """Why the run should be preempted at the next step; `reason` is None while there is no reason to."""

    def __init__(self) -> None:
        self.reason: str | None = None

    def check(self) -> None:
        """Give way to a request to end before there is anything to save.

        Raises:
            Preempted: there is one.
        """
        if self.reason is not None:
            raise Preempted(self.reason)

    def watch(self) -> None:
        """Turn SIGTERM, SIGINT and a supervisor's end into `reason`. A second signal ends the process."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        if os.environ.get(SUPERVISED) == "1":
            threading.Thread(target=self._await_end_of_input, name="supervisor watch", daemon=True).start()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.reason = f"asked to end by {signal.Signals(number).name}"
        signal.signal(number, signal.SIG_DFL)

    def _await_end_of_input(self) -> None:
        # os.read, since a thread blocked in sys.stdin would hold its lock while the interpreter shuts down.
        while _read_some(0):
            pass
        self.reason = "the supervisor has ended"
        # An alarm, since no Python thread runs any more while the interpreter shuts down, or in a long call into C.
        signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)


def _read_some(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""
