"""One trial while it runs: reading its curve, asking it to end, and judging how it ended.

running -> asked (stop.json) -> terminated (TERM, after grace_s) -> killed (KILL) -> ended
"""

from dataclasses import dataclass
import time

from curves.run_folder import RunFolder, Status, Verdict
from sweep.cells import Cell
from sweep.exits import explain_exit, log_tail, size_of
from sweep.launch import Process
from sweep.study import Asked
from sweep.tail import CurveTail

TERM_TO_KILL_S = 5.0  # at most; never longer than the grace itself
HEARTBEAT_LOST_S = 16.0  # a trainer whose status is older than this is gone


@dataclass(frozen=True)
class Stop:
    """What a trial was asked to end as, and when (monotonic seconds)."""

    outcome: str
    reason: str
    since: float


@dataclass(frozen=True)
class Before:
    """What an earlier session of a trial left in its folder: its status and the bytes of its log."""

    status: Status | None
    log_bytes: int

    @classmethod
    def of(cls, folder: RunFolder) -> "Before":
        """To be read before the process is started."""
        return cls(folder.read_status(), size_of(folder.log))


class RunningTrial:
    """A trainer process with its run folder and its place in Optuna."""

    def __init__(
        self,
        number: int,
        cell: Cell,
        asked: Asked,
        folder: RunFolder,
        process: Process,
        slot: int,
        before: Before,
        seconds_before: float = 0.0,
        begins: int = 0,
    ) -> None:
        self.number = number
        self.cell = cell
        self.asked = asked
        self.folder = folder
        self.slot = slot
        self.started = time.monotonic()
        self.tail = CurveTail(folder.curve)
        self.status: Status | None = None
        self.stop: Stop | None = None
        # Of a first attempt; of a later one what its status has shown.
        self.first_step = begins if before.status is None else None
        self._process = process
        self._launch = cell.config.launch
        self._seconds_before = seconds_before
        self._before = before
        self._terminated: float | None = None
        self._killed = False
        self._forced = ""  # why it did not end by itself
        self._sign: tuple[object, ...] = ()  # what it has last shown of itself
        self._sign_seen = self.started

    def poll(self) -> dict[int, float]:
        """Read on in the run folder, press a trial that was asked to end, and return new held-out losses."""
        status = self.folder.read_status()
        self.status = None if status == self._before.status else status
        if self.first_step is None and self.status is not None and self.status.state == "running":
            self.first_step = self.status.step
        self._notice_request()
        self._watch_the_clock(time.monotonic())
        self._press(time.monotonic())
        return self.tail.read()

    def ask_to_stop(self, outcome: str, reason: str) -> None:
        """Ask the trainer to end by itself, with this outcome. A second request changes nothing."""
        if self.stop is None:
            self.stop = Stop(outcome, reason, time.monotonic())
            self.folder.request_stop(outcome, reason)

    def kill(self, why: str) -> None:
        """End it at once."""
        self._killed = True
        self._forced = self._forced or why
        self._process.kill()

    def exit_status(self) -> int | None:
        """None while it runs."""
        return self._process.exit_status()

    def verdict(self, exit_status: int) -> Verdict:
        """How the trial ended: the trainer's word where it gave one, else what can be told from outside."""
        status = self.folder.read_status()
        if status is not None and status != self._before.status and status.outcome is not None:
            by_term = (
                self.stop is not None and status.outcome == "preempted"
            )  # what a TERM makes of any request
            if not by_term:
                return Verdict(status.outcome, status.reason, exit_status, time.time())
        if self.stop is not None:
            reason = "; ".join(filter(None, (self.stop.reason, self._forced)))
            return Verdict(self.stop.outcome, reason, exit_status, time.time())
        if self._forced:
            return Verdict("crashed", self._forced, exit_status, time.time())
        outcome, reason = explain_exit(exit_status, self.log_tail())
        return Verdict(outcome, reason, exit_status, time.time())

    @property
    def step(self) -> int:
        """The last step that it has told of, optimizer updates."""
        return max(self.status.step if self.status else 0, self.tail.last.step if self.tail.last else 0)

    def log_tail(self) -> list[str]:
        """The last lines that this session of the trial printed."""
        return log_tail(self.folder, self._before.log_bytes)

    def _notice_request(self) -> None:
        """Another process (`sweep stop --trial`) may have asked the trainer to end."""
        if self.stop is None and self.folder.stop_request.exists():
            self.stop = Stop("stopped", "asked by hand", time.monotonic())

    def _watch_the_clock(self, now: float) -> None:
        """End it at its time limit, or where it has shown no sign of life for too long.

        A sign is a step, a point or a line of its log: a heartbeat alone comes from a thread that a hung trainer still has.
        Signs are compared with each other, never with a clock that may be set back.
        """
        limit, hang = self._launch.timeout_s, self._launch.hang_s
        if limit is not None and self._seconds_before + now - self.started >= limit:
            self.ask_to_stop("timeout", f"launch.timeout_s={limit:g} is over")
        status = self.status
        sign = (status and (status.state, status.step), size_of(self.folder.curve), size_of(self.folder.log))
        if sign != self._sign:
            self._sign, self._sign_seen = sign, now
        elif self.stop is None and not self._killed and now - self._sign_seen >= hang:
            self.kill(f"hung: no step and no output for launch.hang_s={hang:g}")

    def _press(self, now: float) -> None:
        if self.stop is None or self._killed:
            return
        grace_s = self._launch.grace_s
        if self._terminated is None:
            if now - self.stop.since >= grace_s:
                self._terminated = now
                self._forced = f"did not end by itself within {grace_s:g} s"
                self._process.terminate()
        elif now - self._terminated >= min(TERM_TO_KILL_S, grace_s):
            self.kill(self._forced)


def await_end_of_earlier(folder: RunFolder) -> None:
    """Wait for a trainer that outlives its killed supervisor by seconds: two must not write one curve."""
    while True:
        status = folder.read_status()
        if status is None or status.state == "ended":
            return
        if time.time() - status.updated > HEARTBEAT_LOST_S or not status.writer_exists():
            return
        time.sleep(0.1)
