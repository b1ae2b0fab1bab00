"""What a trial is expected to cost: from earlier runs that match, else from the base model's figures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
import itertools
import json
from pathlib import Path
import statistics
from typing import Any, Protocol

from conf.compose import PROJECT_ROOT
from conf.schema import Config, Evaluation
from curves.grid import evaluation_steps
from curves.point import Point
from curves.run_folder import RunFolder, Status
from sweep.tail import CurveTail

LAUNCH_S = 10.0  # from `accelerate launch` to the first step, nearly all of it imports
_FORWARD_SHARE = 1 / 3  # of a training step is its forward pass
_MOST_RUNS = 400  # of one runs folder that are looked at
_STATE_SIZE = (
    4  # of a training state relative to the weights: these, the best, and the optimizer's two moments
)
_ADAPTER_SHARE = 0.03  # size of an adapter relative to the weights it is on, at rank 8


@dataclass(frozen=True)
class Cost:
    """Of one trial that goes to its horizon: seconds, megabytes on disk, and what the time is based on.

    `memory_gib` is known only where it was measured.
    """

    seconds: float
    megabytes: float
    source: str
    memory_gib: float | None = None


class Measured(Protocol):
    """What a probe of a cell has measured: see sweep.probe."""

    @property
    def step_s(self) -> float: ...
    @property
    def evaluation_s(self) -> float: ...
    @property
    def launch_s(self) -> float: ...
    @property
    def megabytes(self) -> float: ...
    @property
    def memory_gib(self) -> float | None: ...


@dataclass(frozen=True)
class Speed:
    """Measured seconds: of a step, and of an evaluation with the samples and checkpoints between two of them.

    The latter is None where the run did not record its wall time.
    """

    step: float
    evaluation: float | None

    def seconds_left(self, step: int, horizon: int, evaluation: Evaluation) -> float:
        """From a step to the horizon, evaluations on the way included."""
        ahead = sum(item > step for item in _evaluated(evaluation, horizon))
        return max(0, horizon - step) * self.step + ahead * (self.evaluation or 0.0)


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run says about speed; `batch` is images a step."""

    method: str
    base_model: str
    pixels: int
    batch: int
    speed: Speed


def measured_speed(status: Status | None, last: Point | None, evaluations: int) -> Speed | None:
    """Of a run, from its status, its last point and the number of its evaluations; None before its first step."""
    if status is None or not status.seconds_per_step:
        return None
    per_step = status.seconds_per_step
    if last is None or not last.wall_s or not evaluations:
        return Speed(per_step, None)
    return Speed(per_step, max(0.0, last.wall_s - last.step * per_step) / evaluations)


def expected_cost(config: Config, earlier: Sequence[EarlierRun], probe: Measured | None = None) -> Cost:
    """Of one trial of a cell, if it trains to its horizon: by its probe, else by earlier runs, else by guess."""
    steps, evaluations = config.budget.max_steps or 0, evaluation_count(config)
    image = config.base_model.seconds_per_image * _area_ratio(config)
    pictures = _picture_rounds(config) * _picture_megabytes(config)
    if probe is not None:
        forward = probe.step_s / _images(config) * _FORWARD_SHARE
        training = steps * probe.step_s + evaluations * probe.evaluation_s
        seconds = training + _drawing_forwards(config) * forward + probe.launch_s
        return Cost(seconds, probe.megabytes + pictures, "a probe of ten steps", probe.memory_gib)
    speeds = [
        Speed(run.speed.step * _images(config) / run.batch, run.speed.evaluation)
        for run in earlier
        if (run.method, run.base_model) == (config.method.name, config.base_model.name)
        and run.pixels == (config.resolution.pixels or native_pixels(config.base_model.path))
    ]
    held_out = 1 if config.sweep.folds else config.dataset.held_out
    panel = held_out + config.evaluation.training_images + config.evaluation.class_images
    evaluation = panel * config.evaluation.strata * image * _FORWARD_SHARE
    halves = 1 if config.method.prior_weight is None else 2  # a class image beside each of the subject
    step, source = halves * _images(config) * image, "the base model's seconds_per_image"
    if speeds:
        step, evaluation = _typical(speeds, evaluation)
        source = f"{len(speeds)} earlier run{'s' if len(speeds) > 1 else ''}"
    seconds = steps * step + evaluations * evaluation + LAUNCH_S
    return Cost(seconds, _weights_megabytes(config) + pictures, source)


def _images(config: Config) -> int:
    """Images a step, over all processes."""
    return config.optimizer.batch_size * config.optimizer.accumulation * config.launch.processes


def evaluation_count(config: Config) -> int:
    """Evaluations of a run to its horizon."""
    return len(_evaluated(config.evaluation, config.budget.max_steps or 0))


def _evaluated(evaluation: Evaluation, horizon: int) -> list[int]:
    return evaluation_steps(evaluation.first_step, evaluation.ratio, horizon)


def _typical(speeds: Sequence[Speed], evaluation: float) -> tuple[float, float]:
    """Medians of seconds a step and an evaluation; the latter as estimated where no run has measured it."""
    measured = [speed.evaluation for speed in speeds if speed.evaluation is not None]
    return statistics.median(speed.step for speed in speeds), statistics.median(measured or [evaluation])


def read_earlier_runs(runs_dir: Path) -> list[EarlierRun]:
    """Speeds of the runs in a folder of runs and studies; the newest few hundred suffice."""
    found: list[EarlierRun] = []
    for path in itertools.islice(_run_files(runs_dir), _MOST_RUNS):
        folder = RunFolder(path.parent)
        status = folder.read_status()
        if status is None or not status.seconds_per_step:
            continue
        try:
            facts: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            cell = facts["cell"]
            batch = int(facts["hyperparameters"].get("batch") or 1)
            method, base = str(cell["method"]), str(cell["base_model"])
            tail = CurveTail(folder.curve)
            tail.read()
            speed = measured_speed(status, tail.last, len(tail.losses))
            if speed is not None:
                found.append(EarlierRun(method, base, int(cell["resolution"]), batch, speed))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return found


def native_pixels(base: str) -> int | None:
    """Side of the images that a local base model was trained on; None where its files do not say."""
    path = Path(base) if Path(base).is_absolute() else PROJECT_ROOT / base
    try:
        unet = json.loads((path / "unet" / "config.json").read_text(encoding="utf-8"))
        vae = json.loads((path / "vae" / "config.json").read_text(encoding="utf-8"))
        return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _run_files(runs_dir: Path) -> Iterator[Path]:
    """run.json of every run below a folder, newest study first."""
    try:
        folders = sorted((item for item in runs_dir.iterdir() if item.is_dir()), key=_age)
    except OSError:
        return
    for folder in folders:
        yield from folder.glob("run.json")
        yield from folder.glob("trials/*/run.json")


def _age(path: Path) -> float:
    return -path.stat().st_mtime


def _area_ratio(config: Config) -> float:
    """Pixels of an image relative to the base's own, 1 where either is unknown."""
    native = native_pixels(config.base_model.path)
    return (config.resolution.pixels / native) ** 2 if config.resolution.pixels and native else 1.0


def _weights_megabytes(config: Config) -> float:
    """The weights a run leaves."""
    weights = config.base_model.megabytes
    if config.method.adapter == "lora":
        # The best weights, and the state that a finished run can be lengthened from.
        weights *= _ADAPTER_SHARE * (config.method.rank or 8) / 8 * (1 + _STATE_SIZE)
    return weights


def state_megabytes(config: Config) -> float:
    """A training state."""
    share = _ADAPTER_SHARE * (config.method.rank or 8) / 8 if config.method.adapter == "lora" else 1.0
    return config.base_model.megabytes * share * _STATE_SIZE


def _picture_rounds(config: Config) -> int:
    """How often a run draws its samples."""
    rounds, step = 2, config.samples.first_step
    while step < (config.budget.max_steps or 0):
        step, rounds = max(step + 1, int(step * config.samples.ratio)), rounds + 1
    return rounds


def _picture_megabytes(config: Config) -> float:
    """Of one round of samples."""
    pixels = config.resolution.pixels or native_pixels(config.base_model.path) or 512
    return _pictures(config) * pixels**2 * 2 / 1e6


def _drawing_forwards(config: Config) -> int:
    """Forward passes of one image that a run's samples take, two an inference step for the guidance."""
    return _picture_rounds(config) * _pictures(config) * config.samples.inference_steps * 2


def _pictures(config: Config) -> int:
    return len(config.samples.prompts) or config.samples.count
