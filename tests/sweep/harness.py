"""Real supervisor processes over the stand-in trainer."""

from collections.abc import Callable
import fcntl
import json
import os
from pathlib import Path
import pty
import signal
import subprocess
import sys
import termios
import time
from typing import Any
import uuid

from curves.run_folder import RunFolder, find_runs

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Path(__file__).with_name("stand_in_trainer.py")
DEADLINE_S = 60.0
DATABASES = "STEPBUDGET_TEST_DATABASES"  # address of a PostgreSQL server; set: every study is kept in a database of its own


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> Any:
    """Poll until a condition holds; its value."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds:g} s in vain for: {what}")


def make_database(server: str) -> str:
    """A new database on a PostgreSQL server; its address."""
    import psycopg

    name = f"study_{uuid.uuid4().hex}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]  # a name of ours
    return f"{server}/{name}"


def heed_interrupts() -> None:
    """A shell starts what is put in the background deaf to Ctrl-C and hangups, which a sweep respects: not here."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


class Sweep:
    """`python -m sweep` on a study of one cell (lora) in a temporary folder, with the stand-in trainer."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        self.root = root  # of the checkout that runs
        self.runs_dir = folder / "my runs, a=b"  # a path that needs quoting
        self.study = self.runs_dir / "s"
        self.hold = folder / "go"  # trainers told to `hold` wait for this file
        self._started: list[subprocess.Popen[Any]] = []
        server = os.environ.get(DATABASES)
        self.storage = make_database(server) if server else None

    def arguments(self, *overrides: str) -> list[str]:
        return [
            f"runs_dir='{self.runs_dir}'",
            "study=s",
            "budget.max_steps=64",
            "sweep.trials=3",
            "launch.slots=2",
            "launch.poll_s=0.05",
            "launch.grace_s=10",
            f"launch.command=['{sys.executable}','{TRAINER}']",
            *(["sweep.storage='${oc.env:STEPBUDGET_STORAGE}'"] if self.storage else []),
            *overrides,
        ]

    def environment(self, stand_in: dict[str, Any]) -> dict[str, str]:
        """What a supervisor is started with; in a database its address, which no command line shows."""
        added = {"STEPBUDGET_STORAGE": self.storage} if self.storage else {}
        return {**os.environ, **added, "STAND_IN": json.dumps(stand_in)}

    def launcher(self) -> str:
        """The override that puts a launcher before the trainer.

        As `accelerate launch` it handles no signals and leaves its input to its child.
        """
        path = self.runs_dir.parent / "launcher.py"
        path.write_text(
            "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))\n"
        )
        return f"launch.command=['{sys.executable}','{path}','{TRAINER}']"

    def start(self, *arguments: str, **stand_in: Any) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *arguments],
            cwd=self.root,
            env={**self.environment(stand_in), "COLUMNS": "200", "PYTHONWARNINGS": "error"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=heed_interrupts,
        )
        self._started.append(process)
        return process

    def start_in_terminal(self, *arguments: str, **stand_in: Any) -> "tuple[subprocess.Popen[bytes], int]":
        """A command that leads a terminal of its own; the process and our end of the terminal."""
        ours, its = pty.openpty()
        os.set_blocking(ours, False)
        process = subprocess.Popen(
            [sys.executable, "-m", "sweep", *arguments],
            cwd=self.root,
            env={**self.environment(stand_in), "TERM": "xterm-256color"},
            stdin=its,
            stdout=its,
            stderr=its,
            start_new_session=True,
            preexec_fn=lambda: (heed_interrupts(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),
        )
        os.close(its)
        self._started.append(process)
        return process, ours

    def run(self, *overrides: str, status: int = 0, **stand_in: Any) -> str:
        """Run a study to its end; its output."""
        return self.end_of(self.start("run", *self.arguments(*overrides), **stand_in), status)

    def resume(self, *overrides: str, status: int = 0, **stand_in: Any) -> str:
        return self.end_of(self.start("resume", str(self.study), *overrides, **stand_in), status)

    def end_of(self, process: "subprocess.Popen[str]", status: int) -> str:
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == status, output
        assert "Traceback" not in output, output
        return output

    def folders(self) -> list[RunFolder]:
        return find_runs(self.study)

    def await_step(self, number: int, step: int) -> RunFolder:
        """A trial once its curve has a step."""

        def arrived() -> RunFolder | None:
            folder = next(iter(self.study.glob(f"trials/{number:04d}-*")), None)
            points = RunFolder(folder).points() if folder else []
            return RunFolder(folder) if folder and points and points[-1].step >= step else None

        found = wait_until(arrived, f"step {step} of trial {number}")
        assert isinstance(found, RunFolder)
        return found

    def outcomes(self) -> list[str | None]:
        return [folder.outcome() for folder in self.folders()]

    def sessions(self, folder: RunFolder) -> list[dict[str, Any]]:
        """Each time that the stand-in was started: its overrides, and as what it ended where it said so."""
        found: list[dict[str, Any]] = []
        for line in (folder.path / "sessions.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "ended" in record:
                found[-1] |= record
            else:
                found.append(record)
        return found

    def trainers(self) -> list[int]:
        """Numbers of all trainer processes of this study that are alive, launchers included."""
        found = []
        for item in Path("/proc").iterdir():
            if not item.name.isdigit():
                continue
            try:
                command = (item / "cmdline").read_bytes().decode("utf-8", errors="replace")
                state = (item / "stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if f"run_dir='{self.study}" in command and state != "Z":
                found.append(int(item.name))
        return found

    def states(self) -> dict[str, int]:
        """Optuna's states of the trials in the journal."""
        import optuna

        from sweep.storage import open_storage

        with open_storage(self.storage, self.study / "journal.log", "a test") as storage:
            names = [
                trial.state.name
                for study in optuna.get_all_study_names(storage)
                for trial in optuna.load_study(study_name=study, storage=storage).get_trials(deepcopy=False)
            ]
        return {name: names.count(name) for name in sorted(set(names))}

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        for pid in self.trainers():
            os.kill(pid, signal.SIGKILL)
