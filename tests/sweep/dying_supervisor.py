"""Supervisors that are killed at one transition, over and over, until the study is done.

Usage: dying_supervisor.py TRANSITION[;TRANSITION...] STUDY FOLDER ARGUMENT...   with the arguments of `sweep run`

Each supervisor is a fork of this process (so that Optuna is imported once) and kills itself with SIGKILL at the
transition, once for each trial; the next one is `sweep resume`. Prints the exit status of the last.
"""

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import sys
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from conf.errors import exit_status
from curves.run_folder import RunFolder
from sweep import commands, recovery, supervisor
from sweep.launch import LocalBackend
from sweep.study import CellStudy
from sweep.trial import RunningTrial
import tests.sweep.harness as harness

Key = Callable[..., object]
MOST_DEATHS = 24


def number(study: Any, asked: Any, *_: Any) -> object:
    return getattr(asked, "number", asked)


# (owner, function, whether it dies before or after it, by what it tells trials apart)
TRANSITIONS: dict[str, tuple[Any, str, str, Key]] = {
    "before a trial is asked for": (CellStudy, "ask", "before", lambda study, *_: study.asked()),
    "asked, without a folder": (CellStudy, "ask", "after", lambda study, *_: study.asked()),
    "folder assigned": (CellStudy, "assign", "after", number),
    "attempt not noted": (supervisor, "note_start", "before", lambda folder, *_: folder.path.name),
    "attempt noted": (
        supervisor,
        "note_start",
        "after",
        lambda folder, *_: f"{folder.path.name} {len(folder.attempts.read_text().splitlines())}",
    ),
    "trainer started": (LocalBackend, "start", "after", lambda backend, slot, order: order.log.parent.name),
    "points reported": (CellStudy, "report", "after", number),
    "asked to stop": (RunningTrial, "ask_to_stop", "after", lambda trial, *_: trial.number),
    "killed": (RunningTrial, "kill", "after", lambda trial, *_: trial.number),
    "ended, without a verdict": (
        RunFolder,
        "write_verdict",
        "before",
        lambda folder, verdict: f"{folder.path.name} {verdict.outcome}",
    ),
    "verdict written": (
        RunFolder,
        "write_verdict",
        "after",
        lambda folder, verdict: f"{folder.path.name} {verdict.outcome}",
    ),
    "end noted": (
        supervisor,
        "note_end",
        "after",
        lambda folder, verdict, *_: f"{folder.path.name} {verdict.outcome}",
    ),
    "not told": (CellStudy, "tell", "before", number),
    "told": (CellStudy, "tell", "after", number),
    "study recorded": (commands, "write_record", "after", lambda *_: "once"),
    "taken over": (recovery, "_take_over", "after", lambda *items: items[-1].number),
}


def die_at(transition: str, memory: Path) -> None:
    """Replace a function by one that kills this process, once for each key."""
    owner, name, when, key_of = TRANSITIONS[transition]
    original = getattr(owner, name)

    def die_once(key: object) -> None:
        known = memory.read_text().splitlines() if memory.exists() else []
        line = json.dumps([transition, key])
        if line not in known and len(known) < MOST_DEATHS:
            with memory.open("a") as file:
                file.write(line + "\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(*arguments: Any, **options: Any) -> Any:
        if when == "before":
            die_once(key_of(*arguments))
        value = original(*arguments, **options)
        if when == "after":
            die_once(key_of(*arguments))
        return value

    setattr(owner, name, dying)


def supervise(transition: str, memory: Path, arguments: list[str], log: Path) -> int:
    """One supervisor in a process of its own; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        harness.heed_interrupts()
        for one in transition.split(";"):
            die_at(one, memory)
        status = exit_status(lambda: commands.main(arguments))
        sys.stdout.flush()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    transition, study, folder, *arguments = sys.argv[1:]
    memory, log = Path(folder) / "deaths.jsonl", Path(folder) / "supervisors.txt"
    status = supervise(transition, memory, ["run", *arguments], log)
    while status == -signal.SIGKILL:
        again = ["resume", study] if (Path(study) / "study.yaml").exists() else ["run", *arguments]
        status = supervise(transition, memory, again, log)
    print(json.dumps({"status": status, "deaths": len(memory.read_text().splitlines())}))


if __name__ == "__main__":
    main()
