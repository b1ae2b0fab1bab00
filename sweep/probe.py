"""Ten real steps of each cell, run one after the other, so that `plan` and `run` know what a trial takes."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
import hashlib
import json
import os
from pathlib import Path
import tempfile
import time

from conf.compose import groups
from conf.errors import RequestError, WorkError
from conf.quoting import override
from curves.run_folder import RunFolder, read_json, write_json
from sweep.cells import Cell, Request, key_of
from sweep.clock import duration
from sweep.cost import measured_speed
from sweep.exits import explain_exit, log_tail
from sweep.gpus import find_gpus
from sweep.launch import LocalBackend, Order, Process, run_environment, trainer_command
from sweep.record import flat_config, gpu_names
from sweep.space import trial_overrides
from sweep.tail import CurveTail

STEPS = 10
CACHE = ".probes.json"  # in the folder of runs
LIMIT_S = 3600.0  # a trainer that takes longer for ten steps hangs
_LOOK_EVERY_S = 0.2
_REPLACED = {  # what a probe has otherwise than a trial: one evaluation beside that of step 0, no pictures
    "budget.max_steps": STEPS,
    "budget.horizon": None,
    "evaluation.first_step": STEPS,
    "optimizer.warmup_steps": 0,
    "samples.count": 0,
    "stopping": "none",
    "tracker": "none",
}
_PLACE = (
    "study",
    "runs_dir",
    "run_dir",
    "cache_dir",
    "sweep",
    "space",
    "seed",
    "launch.slots",
    "launch.poll_s",
)


@dataclass(frozen=True)
class Probe:
    """What ten steps of a cell took.

    Attributes:
        step_s: seconds a step.
        evaluation_s: seconds an evaluation.
        launch_s: seconds from the start of the launcher to the first step, and from the last step to the end.
        megabytes: that the run left on disk, without pictures.
        memory_gib: the most that its processes held at once; of the GPUs where there are any.
    """

    step_s: float
    evaluation_s: float
    launch_s: float
    megabytes: float
    memory_gib: float | None


def probe_cells(request: Request) -> dict[str, Probe]:
    """Probe the cells of a request that the cache does not know; by label.

    Raises:
        RequestError: a trainer refused its configuration.
        WorkError: a trainer failed.
    """
    runs_dir = Path(request.config.runs_dir).absolute()
    gpus = find_gpus(request.config)
    probes = read_probes(request)
    for number, cell in enumerate(request.cells, start=1):
        place = f"probe {number} of {len(request.cells)}: {cell.label}"
        if cell.label in probes:
            print(f"{place}: known from an earlier one", flush=True)
            continue
        probe = run_probe(cell, runs_dir, gpus)
        print(f"{place}: {in_words(probe)}", flush=True)
        probes[cell.label] = probe
        _remember(runs_dir, _key(cell, gpus), probe)
    return probes


def read_probes(request: Request) -> dict[str, Probe]:
    """What earlier probes of the same content on the same hardware say, by label."""
    gpus = find_gpus(request.config)
    known = _read_cache(Path(request.config.runs_dir).absolute())
    if not known:
        return {}
    keys = {cell.label: _key(cell, gpus) for cell in request.cells}
    return {label: known[key] for label, key in keys.items() if key in known}


def in_words(probe: Probe) -> str:
    memory = f", {probe.memory_gib:.1f} GiB of memory" if probe.memory_gib is not None else ""
    return (
        f"{probe.step_s:.3g} s a step, {probe.evaluation_s:.3g} s an evaluation, {duration(probe.launch_s)} to "
        f"start and end, {probe.megabytes:.3g} MB on disk{memory}"
    )


def run_probe(cell: Cell, runs_dir: Path, gpus: Sequence[str]) -> Probe:
    """Ten steps of a cell in a folder that is removed afterwards.

    Raises:
        RequestError: the trainer refused its configuration.
        WorkError: it failed.
    """
    runs_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=runs_dir) as place:
        folder = RunFolder(Path(place) / cell.label)
        folder.path.mkdir()
        overrides = probe_overrides(cell, folder.path)
        command = trainer_command(cell.config, overrides, gpus)
        order = Order(command, folder.log, run_environment(folder.path, overrides))
        started = time.monotonic()
        process = LocalBackend(cell.config.launch, gpus).start(0, order)
        memory = _follow(process, folder, gpus)
        took = time.monotonic() - started
        _refuse_failure(cell, folder, process.exit_status() or 0)
        return _measured(folder, took, memory)


def probe_overrides(cell: Cell, folder: Path) -> list[str]:
    """A trial's overrides with an example of the searched values, cut to ten steps."""
    examples = (cell.space.example(branch) for branch in cell.space.branches)
    values = next((cell.space.named(example) for example in examples if example is not None), {})
    place = {"seed": cell.config.seed, "study": "probe", "run_dir": str(folder)}
    replaced = {**_REPLACED, **place}
    own = [*cell.overrides, *trial_overrides(values)]
    return [
        *(item for item in own if not _is_replaced(key_of(item))),
        *(override(key, value) for key, value in replaced.items()),
    ]


def _is_replaced(key: str) -> bool:
    whole = [name for name in _REPLACED if name in groups()]
    return key in (*_REPLACED, "seed", "study", "run_dir") or key.startswith(
        tuple(f"{name}." for name in whole)
    )


def _follow(process: Process, folder: RunFolder, gpus: Sequence[str]) -> float | None:
    """Wait for the end; the most memory that was seen, in GiB."""
    most: float | None = None
    deadline = time.monotonic() + LIMIT_S
    try:
        while process.exit_status() is None:
            if time.monotonic() > deadline:
                raise WorkError(
                    f"the probe has not ended after {duration(LIMIT_S)}: {folder.path.name} hangs"
                )
            now = process.memory_gib(gpus)
            most = max(filter(None, (most, now)), default=None)
            time.sleep(_LOOK_EVERY_S)
    finally:
        if process.exit_status() is None:
            process.kill()
    return most


def _refuse_failure(cell: Cell, folder: RunFolder, exit_status: int) -> None:
    status = folder.read_status()
    if status is not None and status.outcome in ("complete", "stopped"):
        return
    if status is not None and status.outcome is not None:
        outcome, reason = status.outcome, status.reason
    else:
        outcome, reason = explain_exit(exit_status, log_tail(folder))
    if outcome == "config_error":
        raise RequestError(f"{reason} (probe of the cell {cell.label})")
    last = "; its last words: " + " | ".join(log_tail(folder)[-3:]) if not reason else ""
    raise WorkError(f"the probe of the cell {cell.label} ended as {outcome}: {reason}{last}")


def _measured(folder: RunFolder, took: float, memory: float | None) -> Probe:
    tail = CurveTail(folder.curve)
    tail.read()
    speed = measured_speed(folder.read_status(), tail.last, len(tail.losses))
    if speed is None:
        raise WorkError(f"the probe {folder.path.name} recorded no seconds_per_step in its status.json")
    evaluation = speed.evaluation or 0.0
    trained = STEPS * speed.step + len(tail.losses) * evaluation
    size = sum(item.stat().st_size for item in folder.path.rglob("*") if item.is_file())
    return Probe(speed.step, evaluation, max(0.0, took - trained), size / 1e6, memory)


def _key(cell: Cell, gpus: Sequence[str]) -> str:
    """What decides how fast a cell is: its configuration, without its place, and the hardware."""
    config = {key: value for key, value in flat_config(cell.config).items() if not key.startswith(_PLACE)}
    for key in ("budget.max_steps", "optimizer.lr"):
        config.pop(key, None)
    hardware = [len(gpus), gpu_names() if gpus else os.cpu_count()]
    return hashlib.sha256(json.dumps([config, hardware], sort_keys=True, default=str).encode()).hexdigest()


def _read_cache(runs_dir: Path) -> dict[str, Probe]:
    try:
        return {key: Probe(**value) for key, value in read_json(runs_dir / CACHE).items()}
    except (ValueError, TypeError):
        return {}


def _remember(runs_dir: Path, key: str, probe: Probe) -> None:
    known = _read_cache(runs_dir) | {key: probe}
    write_json(runs_dir / CACHE, {name: asdict(item) for name, item in known.items()})
