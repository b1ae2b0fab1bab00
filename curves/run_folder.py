"""A run folder: the names of its files, and how they are read and written. The one place that knows them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
import json
import os
from pathlib import Path
import threading
from typing import Any, TypeVar

from curves.point import Point, format_point, parse_points

OUTCOMES = (
    "complete",
    "stopped",
    "pruned",
    "diverged",
    "out_of_memory",
    "timeout",
    "preempted",
    "crashed",
    "config_error",
)
SCHEMA = 1


@dataclass(frozen=True)
class RunFacts:
    """run.json: the few facts that analysis needs, fast to load.

    Attributes:
        cell: dataset_size, images, resolution (pixels), method, base_model, base_id, dataset (content id), captions.
        hyperparameters: lr, rank, batch (images an update), schedule, warmup_steps, optimizer, weight_decay, ...:
            what `budget=recommended` sets.
        seed: of the run.
        horizon: steps the learning-rate schedule spans; the run never trains longer.
        horizon_lr_sum: sum of the learning rate over the whole horizon.
        panel: name (hash) of the panel; None where nothing is evaluated.
        images: number of training images.
            Of another tool's log the seed, the images and levels of the cell may be None, and lr absent.
        study, trial: where the run belongs to, None outside a sweep.
        stopping: name of the stop rule.
        fold, folds: which of how many parts of the images is held out; None where they were split once.
        schema: of this file.
    """

    cell: dict[str, Any]
    hyperparameters: dict[str, Any]
    seed: int | None
    horizon: int
    horizon_lr_sum: float
    panel: str | None
    images: int | None
    study: str | None = None
    trial: int | None = None
    stopping: str = "none"
    fold: int | None = None
    folds: int | None = None
    schema: int = SCHEMA
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """status.json: the trainer's word. `state` is starting, running or ended; `outcome` is null until it ended."""

    state: str
    step: int = 0
    outcome: str | None = None
    reason: str = ""
    seconds_per_step: float | None = None
    max_steps: int | None = None
    updated: float = 0.0  # Unix time
    pid: int | None = None

    def writer_exists(self) -> bool:
        """Whether the process that wrote it exists on this machine."""
        if self.pid is None:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's process
            return True
        return True


@dataclass(frozen=True)
class Verdict:
    """verdict.json: the supervisor's word on a trial that has ended."""

    outcome: str
    reason: str = ""
    exit_status: int | None = None
    ended: float = 0.0  # Unix time


Record = TypeVar("Record", Status, Verdict)


class _Inside:
    """A path in a run folder, made when it is asked for: of thousands of folders few are."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "RunFolder", owner: type) -> Path:
        return folder.path / self._name


class RunFolder:
    """Paths and contents of one run folder."""

    config = _Inside("config.yaml")
    overrides = _Inside("overrides.yaml")
    run = _Inside("run.json")
    panel = _Inside("panel.json")
    curve = _Inside("curve.jsonl")
    status = _Inside("status.json")
    verdict = _Inside("verdict.json")
    attempts = _Inside("attempts.jsonl")
    log = _Inside("log.txt")
    samples = _Inside("samples")
    checkpoints = _Inside("checkpoints")
    stop_request = _Inside("stop.json")  # {"outcome": "pruned" | "stopped" | "preempted", "reason": ...}

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    def adapter(self, kind: str, form: str = "diffusers") -> Path:
        """The file of an adapter's weights.

        Args:
            kind: best, last or recommended.
            form: diffusers or kohya.
        """
        return self.path / (f"{kind}.safetensors" if form == "diffusers" else f"{kind}-{form}.safetensors")

    def model(self, kind: str) -> Path:
        """The folder of whole networks' weights; `kind` as of `adapter`."""
        return self.path / kind

    def kept_state(self, step: int) -> Path:
        """The training state after a step, kept for branches (`checkpoints.keep`)."""
        return self.checkpoints / f"step-{step:06d}"

    def kept_steps(self) -> list[int]:
        """Steps whose training states are kept, rising."""
        names = [path.name.removeprefix("step-") for path in self.checkpoints.glob("step-*")]
        return sorted(int(name) for name in names if name.isdigit())

    def points(self) -> list[Point]:
        """The curve so far; an absent file is an empty curve.

        Raises:
            ValueError: a damaged line before the last; the message names file and line.
        """
        try:
            with self.curve.open(encoding="utf-8", errors="replace") as lines:
                return parse_points(lines)
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise ValueError(f"{self.curve}: {error}") from error

    def append_point(self, point: Point) -> None:
        """Append one point and flush it to disk."""
        with self.curve.open("a", encoding="utf-8") as file:
            file.write(format_point(point))
            file.flush()
            os.fsync(file.fileno())

    def cut_curve(self, step: int) -> None:
        """Drop the points after a step: a resumed run writes them anew."""
        kept = [point for point in self.points() if point.step <= step]
        write_atomically(self.curve, "".join(format_point(point) for point in kept))

    def read_facts(self) -> RunFacts:
        """run.json.

        Raises:
            ValueError: absent or damaged; the message names the file.
        """
        record = read_json(self.run)
        names = RunFacts.__dataclass_fields__
        known = {key: value for key, value in record.items() if key in names and key != "extra"}
        try:
            return RunFacts(**known, extra={key: value for key, value in record.items() if key not in names})
        except TypeError as error:
            raise ValueError(f"{self.run}: {error}") from error

    def write_facts(self, facts: RunFacts) -> None:
        record = asdict(facts)
        record.update(record.pop("extra"))
        write_json(self.run, record)

    def read_status(self) -> Status | None:
        """status.json, or None where the trainer has not written it yet."""
        return _read_record(self.status, Status)

    def write_status(self, status: Status) -> None:
        write_json(self.status, asdict(status))

    def read_verdict(self) -> Verdict | None:
        """verdict.json, or None where no supervisor has judged the run."""
        return _read_record(self.verdict, Verdict)

    def write_verdict(self, verdict: Verdict) -> None:
        write_json(self.verdict, asdict(verdict))

    def outcome(self) -> str | None:
        """The supervisor's verdict where there is one, else the trainer's word; None while it runs."""
        verdict = self.read_verdict()
        if verdict is not None:
            return verdict.outcome
        status = self.read_status()
        return status.outcome if status is not None else None

    def request_stop(self, outcome: str, reason: str) -> None:
        """Ask the trainer to end: it looks for this file after every step."""
        write_json(self.stop_request, {"outcome": outcome, "reason": reason})


def find_runs(path: Path | str) -> list[RunFolder]:
    """The run folders of a study, of a folder of runs, or the one run folder given, sorted by name."""
    root = Path(path)
    if (root / "run.json").is_file():
        return [RunFolder(root)]
    parent = root / "trials" if (root / "trials").is_dir() else root
    if not parent.is_dir():
        return []
    return [RunFolder(item) for item in sorted(parent.iterdir()) if (item / "run.json").is_file()]


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader, or a crash, sees the old or the new content and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}.tmp")
    try:
        # A file name that is not UTF-8 is written with escapes, which JSON and YAML know as well.
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: the file is absent or holds no JSON object; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"{path}: not a JSON object")
    return record


def _read_record(path: Path, kind: type[Record]) -> Record | None:
    try:
        record = read_json(path)
    except ValueError:
        return None
    try:
        return kind(**{key: value for key, value in record.items() if key in kind.__dataclass_fields__})
    except TypeError:
        return None
