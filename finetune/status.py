"""status.json: the trainer's word, kept fresh while it works. Needs no torch."""

import atexit
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
import os
from pathlib import Path
import sys
import threading
import time
import traceback
from types import TracebackType

from conf.errors import RequestError, WorkError
from curves.run_folder import RunFolder, Status
from finetune.interruption import SUPERVISED, Preempted

HEARTBEAT_S = 2.0
FINISHED = ("complete", "stopped", "pruned", "diverged")  # outcomes after which a run is never taken up again


class RunStatus:
    """Writes status.json at every change and every two seconds; nothing on other ranks."""

    def __init__(self) -> None:
        self._folder: RunFolder | None = None
        self._status = Status(state="starting", pid=os.getpid())
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_open(self) -> bool:
        return self._folder is not None

    def open(self, path: Path, lengthening: bool = False) -> None:
        """Start writing in a run folder. A folder with a finished run is left as it is, unless it is lengthened."""
        folder = RunFolder(path)
        if self._folder is not None or not is_main_process():
            return
        if folder.outcome() in FINISHED and not lengthening:
            return
        self._folder = folder
        self.update()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        self._thread.start()

    def update(self, **changes: object) -> None:
        """Change fields of the status and write it; an ended status no longer changes."""
        with self._lock:
            if self._ended.is_set():
                return
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]
            self._write()

    def note(self, **changes: object) -> None:
        """Change fields; the next heartbeat writes them."""
        with self._lock:
            self._status = replace(self._status, **changes)  # type: ignore[arg-type]

    def end(self, outcome: str, reason: str) -> None:
        """Write the last word; a second call changes nothing."""
        self.update(state="ended", outcome=outcome, reason=reason)
        self._ended.set()

    @contextmanager
    def recording_failures(self) -> Iterator[None]:
        """Give an exception that passes its outcome in status.json: config_error, out_of_memory or crashed.

        Raises:
            RequestError: as raised inside.
            WorkError: as raised inside, and instead of running out of memory.
        """
        try:
            yield
        except RequestError as error:
            self.end("config_error", str(error))
            raise
        except Preempted as error:
            self.end("preempted", str(error))
            raise
        except WorkError as error:
            self.end("crashed", str(error))
            raise
        except Exception as error:
            if is_out_of_memory(error):
                reason = f"out of memory: {_first_line(error)}"
                self.end("out_of_memory", reason)
                raise WorkError(
                    f"{reason}; lower optimizer.batch_size (raise optimizer.accumulation), evaluation.batch_size "
                    f"or samples.count, or use memory=low"
                ) from error
            self._keep_traceback()
            self.end("crashed", f"{type(error).__name__}: {_first_line(error)}")
            raise

    def record_unhandled(self) -> None:
        """Give this process, whose main function is not ours, its outcome where it fails or ends without one."""
        show = sys.excepthook

        def record(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            if isinstance(error, Exception):
                with suppress(Exception), self.recording_failures():
                    raise error.with_traceback(trace)
            show(kind, error, trace)

        sys.excepthook = record
        atexit.register(self.end, "crashed", "the script ended without saying how: it has to call end()")

    def _keep_traceback(self) -> None:
        """In log.txt, where a supervisor does not write it already."""
        if self._folder is not None and os.environ.get(SUPERVISED) != "1":
            with self._folder.log.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(traceback.format_exc())

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            self.update()

    def _write(self) -> None:
        if self._folder is not None:
            self._folder.write_status(replace(self._status, updated=time.time()))


def is_main_process() -> bool:
    """Whether this is the only process, or the first of those that `accelerate launch` started."""
    return os.environ.get("RANK", "0") == "0"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means too little memory: Python's, CUDA's or the CPU allocator's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    phrases = (
        "out of memory",
        "not enough memory",
        "can't allocate memory",
        "cannot allocate memory",
        "status_alloc_failed",  # of cuBLAS and cuDNN
    )
    return isinstance(error, (RuntimeError, OSError)) and any(phrase in text for phrase in phrases)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
