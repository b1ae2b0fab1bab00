"""Seconds of a run: its wall time over interruptions, the mean of each kind of work, and what is left to do."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import time


class Clock:
    """Started when a run, or a later life of it, starts to train.

    The kinds of work are step, evaluation and samples.
    """

    def __init__(self, earlier_s: float) -> None:
        self._began = time.monotonic() - earlier_s
        self._seconds: dict[str, float] = {}
        self._count: dict[str, int] = {}

    @property
    def wall_s(self) -> float:
        """Seconds of training, evaluating and sampling so far, those of earlier lives included."""
        return time.monotonic() - self._began

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        """Count one piece of work."""
        began = time.monotonic()
        yield
        self._seconds[kind] = self._seconds.get(kind, 0.0) + time.monotonic() - began
        self._count[kind] = self._count.get(kind, 0) + 1

    def mean_s(self, kind: str) -> float | None:
        """Mean seconds of a kind of work in this life of the run; None before the first."""
        return self._seconds[kind] / self._count[kind] if self._count.get(kind) else None

    def left_s(self, remaining: Mapping[str, int]) -> float | None:
        """Seconds that the remaining pieces of work will take; None before the first step."""
        if self.mean_s("step") is None:
            return None
        return sum(number * (self.mean_s(kind) or 0.0) for kind, number in remaining.items())
