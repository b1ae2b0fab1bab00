"""How a trainer is started and ended: the backend interface, and processes on this machine.

A trainer never outlives its supervisor. Its standard input is a pipe that the supervisor holds open (the
trainer ends when it closes), it leads a process group of its own, and on Linux the kernel kills it when the
supervisor dies.
"""

from collections.abc import Callable, Sequence
import contextlib
import ctypes
from dataclasses import dataclass, field
import json
from operator import attrgetter
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Protocol

from conf.compose import PROJECT_ROOT, load_config
from conf.inputs import project_path
from conf.schema import Config, Launch

_PATHS = ("base_model.path", "dataset.path")
_PR_SET_PDEATHSIG = 1
_KILLED_WITHIN_S = 2.0  # a process that waits for a disk may take longer


@dataclass(frozen=True)
class Order:
    """What to start: the command, what its environment adds, and the file that takes its output."""

    argv: list[str]
    log: Path
    environment: dict[str, str] = field(default_factory=dict)


class Process(Protocol):
    """A trainer that was started."""

    def exit_status(self) -> int | None:
        """None while it runs; then its exit status, negative for a signal. Leaves no process behind."""

    def terminate(self) -> None:
        """Ask with TERM."""

    def kill(self) -> None:
        """End it and all that it started."""

    def memory_gib(self, gpus: Sequence[str]) -> float | None:
        """What it holds now: of the GPUs where there are any, else of main memory; None where that is unknown."""


class LaunchBackend(Protocol):
    """Where trials run. Slurm and Ray come in behind this interface."""

    slots: int

    def start(self, slot: int, order: Order) -> Process:
        """Start a trainer in a free slot.

        Raises:
            OSError: the command cannot be started.
        """


class LocalBackend:
    """Trials as processes on this machine, one in each slot."""

    def __init__(self, launch: Launch, gpus: Sequence[str]) -> None:
        self.slots = slot_count(launch, gpus)
        self._gpus = list(gpus)
        self._launch = launch

    def start(self, slot: int, order: Order) -> Process:
        environment = {
            **os.environ,
            **self._launch.environment,
            **trainer_environment(self._launch, self._gpus, slot),
            **order.environment,
        }
        order.log.parent.mkdir(parents=True, exist_ok=True)
        with order.log.open("ab") as log:
            popen = subprocess.Popen(
                order.argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent(),
            )
        return LocalProcess(popen)


class LocalProcess:
    """A process group on this machine, led by the process that was started."""

    def __init__(self, popen: "subprocess.Popen[bytes]") -> None:
        self._popen = popen
        self._status: int | None = None

    def exit_status(self) -> int | None:
        if self._status is None and os.waitid(
            os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            # the leader has ended but is not yet reaped, so its group's number cannot have been given away
            self._signal_group(signal.SIGKILL)
            self._status = self._popen.wait()
            self._hang_up()
        return self._status

    def terminate(self) -> None:
        """TERM to what the launcher started (its own end would orphan that), else to the process."""
        descendants = self._descendants()
        for pid in descendants or [self._popen.pid]:
            _send(pid, signal.SIGTERM)

    def kill(self) -> None:
        descendants = self._descendants()  # workers under torchrun lead groups of their own
        self._signal_group(signal.SIGKILL)
        for pid in descendants:
            _send(pid, signal.SIGKILL)
        self._hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._status = self._popen.wait(_KILLED_WITHIN_S)

    def memory_gib(self, gpus: Sequence[str]) -> float | None:
        pids = [self._popen.pid, *self._descendants()]
        return _gpu_memory_gib(pids) if gpus else _main_memory_gib(pids)

    def _descendants(self) -> list[int]:
        import psutil

        try:
            return [child.pid for child in psutil.Process(self._popen.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def _signal_group(self, number: int) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._popen.pid, number)

    def _hang_up(self) -> None:
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            self._popen.stdin.close()


def trainer_command(config: Config, overrides: Sequence[str], gpus: Sequence[str]) -> list[str]:
    """The argv of one trial; `launch.command` puts another trainer in the place of ours, told by overrides or flags."""
    if config.launch.command is not None:
        told = flags(load_config(overrides)) if config.launch.flags else overrides
        return [*config.launch.command, *told]
    return [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *_launcher_options(config.launch, gpus),
        *("--main_process_port", "0"),  # a free one, so that trials do not meet
        str(PROJECT_ROOT / "train.py"),
        *overrides,
    ]


def _launcher_options(launch: Launch, gpus: Sequence[str]) -> list[str]:
    """Those of `accelerate launch`: the user's own file, else one machine and full precision."""
    if launch.accelerate_config is not None:
        return ["--config_file", str(project_path(launch.accelerate_config))]
    one = [] if gpus else ["--cpu"]
    device = ["--multi_gpu"] if launch.processes > 1 else one  # accelerate's word for several, on CPUs too
    return [
        *("--num_processes", str(launch.processes), "--num_machines", "1"),
        *("--num_cpu_threads_per_process", str(launch.threads)),
        *("--mixed_precision", "no", "--dynamo_backend", "no"),
        *device,
    ]


def flags(config: Config) -> list[str]:
    """A configuration as the flags of another's script: `optimizer.lr: --learning_rate` gives `--learning_rate=0.001`.

    true is the flag alone; false, null and an empty flag say nothing. One word each, so that a value may start with a dash.
    The project's own folders are told by their whole path, for a script knows nothing of the project's root.
    """
    argv = []
    for key, flag in config.launch.flags.items():
        value = attrgetter(key)(config) if flag else None
        if key in _PATHS and value is not None and project_path(value).exists():
            value = project_path(value)
        if value is True:
            argv.append(flag)
        elif value is not None and value is not False:
            argv.append(f"{flag}={value}")
    return argv


def trial_environment(number: int, cell: str, folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """What a trial's environment says of it.

    Args:
        number: of the trial, over all cells.
        cell: its label.
        folder: of the run.
        overrides: of the trial, all of them.
    """
    study = folder.parents[1].name
    return {
        "STEPBUDGET_TRIAL": str(number),
        "STEPBUDGET_CELL": cell,
        "STEPBUDGET_STUDY": study,
        **run_environment(folder, overrides),
        "WANDB_RUN_GROUP": study,  # for a tracker that the trainer starts itself
        "WANDB_JOB_TYPE": cell,
    }


def run_environment(folder: Path, overrides: Sequence[str]) -> dict[str, str]:
    """What a run is, for trainers that are not told by overrides."""
    return {"STEPBUDGET_RUN_DIR": str(folder), "STEPBUDGET_OVERRIDES": json.dumps(list(overrides))}


def trainer_environment(launch: Launch, gpus: Sequence[str], slot: int) -> dict[str, str]:
    """What a trainer's environment adds to ours."""
    environment = {
        "OMP_NUM_THREADS": str(launch.threads),
        "MKL_NUM_THREADS": str(launch.threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "STEPBUDGET_SUPERVISED": "1",
    }
    if gpus:
        own = [gpus[(slot * launch.processes + index) % len(gpus)] for index in range(launch.processes)]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    else:
        environment["ACCELERATE_USE_CPU"] = "true"
    return environment


def slot_count(launch: Launch, gpus: Sequence[str]) -> int:
    """Trials at once: as configured, else one for every `processes` GPUs, else by CPU cores."""
    if launch.slots is not None:
        return launch.slots
    if gpus:
        return max(1, len(gpus) // launch.processes)
    return max(1, len(os.sched_getaffinity(0)) // (launch.threads * launch.processes))


def _die_with_parent() -> Callable[[], None] | None:
    """What runs between fork and exec: the kernel shall kill this process when its parent dies (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _main_memory_gib(pids: Sequence[int]) -> float:
    import psutil

    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_info().rss
    return total / 2**30


def _gpu_memory_gib(pids: Sequence[int]) -> float | None:
    """As nvidia-smi counts it by process; None in a container that hides the processes from it."""
    query = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    used = [line.split(",") for line in done.stdout.splitlines() if line.count(",") == 1]
    own = [
        float(size)
        for pid, size in used
        if pid.strip().isdigit() and size.strip().isdigit() and int(pid) in pids
    ]
    return sum(own) / 1024 if own else None


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
