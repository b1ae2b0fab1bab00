"""What a trial is expected to cost: from earlier runs that match, else from the base model's figures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
import itertools
import json
from pathlib import Path
import statistics
from typing import Any

from conf.compose import PROJECT_ROOT
from conf.schema import Config
from curves.run_folder import RunFolder

LAUNCH_S = 10.0  # from `accelerate launch` to the first step, nearly all of it imports
_FORWARD_SHARE = 1 / 3  # of a training step is its forward pass
_MOST_RUNS = 400  # of one runs folder that are looked at
_ADAPTER_SHARE = 0.03  # size of an adapter relative to the weights it is on, at rank 8


@dataclass(frozen=True)
class Cost:
    """Of one trial that goes to its horizon: seconds, megabytes on disk, and what the time is based on."""

    seconds: float
    megabytes: float
    source: str


@dataclass(frozen=True)
class EarlierRun:
    """What an earlier run says about speed."""

    method: str
    base_model: str
    pixels: int
    batch: int
    seconds_per_step: float


def expected_cost(config: Config, earlier: list[EarlierRun]) -> Cost:
    """Of one trial of a cell, if it trains to its horizon."""
    steps = config.budget.max_steps or 0
    images = config.optimizer.batch_size * config.optimizer.accumulation * config.launch.processes
    pixels = config.resolution.pixels or native_pixels(config.base_model.path)
    speeds = [
        run.seconds_per_step * images / run.batch
        for run in earlier
        if (run.method, run.base_model) == (config.method.name, config.base_model.name)
        and run.pixels == pixels
    ]
    size = _megabytes(config)
    if speeds:
        seconds = steps * statistics.median(speeds) + LAUNCH_S
        return Cost(seconds, size, f"{len(speeds)} earlier run{'s' if len(speeds) > 1 else ''}")
    image = config.base_model.seconds_per_image * _area_ratio(config)
    panel = config.dataset.held_out + config.evaluation.training_images
    evaluating = evaluation_count(config) * panel * config.evaluation.strata * image * _FORWARD_SHARE
    return Cost(steps * images * image + evaluating + LAUNCH_S, size, "the base model's seconds_per_image")


def evaluation_count(config: Config) -> int:
    """Evaluations of a run to its horizon: step 0, the geometric grid, the last step."""
    steps, count, step = config.budget.max_steps or 0, 2, float(config.evaluation.first_step)
    while step < steps:
        step = max(step + 1, step * config.evaluation.ratio)
        count += 1
    return count


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
            found.append(EarlierRun(method, base, int(cell["resolution"]), batch, status.seconds_per_step))
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


def _megabytes(config: Config) -> float:
    """The weights a run leaves and its pictures."""
    weights = config.base_model.megabytes
    if config.method.adapter == "lora":
        weights *= _ADAPTER_SHARE * (config.method.rank or 8) / 8
    pixels = config.resolution.pixels or native_pixels(config.base_model.path) or 512
    rounds, step = 2, config.samples.first_step
    while step < (config.budget.max_steps or 0):
        step, rounds = max(step + 1, int(step * config.samples.ratio)), rounds + 1
    return weights + rounds * config.samples.count * pixels**2 * 2 / 1e6
