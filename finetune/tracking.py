"""Weights and Biases, behind two methods; a run without a tracker logs to its run folder alone."""

from collections.abc import Callable, Sequence
import os
from pathlib import Path
import sys
from typing import Any, Protocol
import uuid

from PIL import Image

from conf.schema import Tracker
from conf.wandb_mode import FINISH_S, START_S, one_line, resolve_mode
from curves.likeness import Likeness, mean
from curves.point import Point
from curves.run_folder import write_atomically

LOSSES = (
    "train_loss",
    "val_loss",
    "val_se",
    "delta",
    "delta_se",
    "log_ratio",
    "train_panel_loss",
    "class_panel_loss",
)
CELL = "STEPBUDGET_CELL"  # label of the trial's cell in its study, set by the supervisor
LOGGED = (*LOSSES, "lr", "lr_sum", "images_seen")


class Tracking(Protocol):
    """Where points and samples are shown while a run goes on."""

    def log_point(self, point: Point) -> None: ...

    def log_samples(self, images: Sequence[Image.Image], likeness: Likeness) -> None: ...

    def finish(self, outcome: str) -> None: ...


class NoTracking:
    """Shows nothing."""

    def log_point(self, point: Point) -> None:
        pass

    def log_samples(self, images: Sequence[Image.Image], likeness: Likeness) -> None:
        pass

    def finish(self, outcome: str) -> None:
        pass


class WandbTracking:
    """One wandb run; called at evaluations only, so that it costs a step nothing."""

    def __init__(self, run: Any, image_type: Any) -> None:
        self._run = run
        self._image_type = image_type
        self._failed = False

    def log_point(self, point: Point) -> None:
        record: dict[str, Any] = {name: getattr(point, name) for name in LOGGED}
        record.update({f"bins/{index}": value for index, value in enumerate(point.bins or [])})
        known = {name: value for name, value in record.items() if value is not None}
        self._guarded(lambda: self._run.log(known, step=point.step))

    def log_samples(self, images: Sequence[Image.Image], likeness: Likeness) -> None:
        means = {
            "sample_distance": mean(likeness.nearest),
            "held_out_distance": likeness.held_out,
            "sample_similarity": mean(likeness.similarity),
        }
        known = {name: value for name, value in means.items() if value is not None}
        self._guarded(
            lambda: self._run.log(
                {"samples": [self._image_type(image) for image in images], **known}, step=likeness.step
            )
        )

    def finish(self, outcome: str) -> None:
        def end() -> None:
            self._run.summary["outcome"] = outcome
            self._run.finish(exit_code=0 if outcome in ("complete", "stopped", "pruned") else 1)

        self._guarded(end)

    def _guarded(self, act: Callable[[], None]) -> None:
        """Do it; a tracker that fails is reported once and left alone from then on."""
        if self._failed:
            return
        try:
            act()
        except Exception as error:  # a tracker must never cost a run
            self._failed = True
            print(f"wandb failed ({one_line(error)}): going on without it", file=sys.stderr)


def start_tracking(
    tracker: Tracker, folder: Path, config: dict[str, Any], group: str | None, resumed: bool
) -> Tracking:
    """Start the configured tracker; one that cannot start is reported and left out, the run goes on.

    In a sweep the run's job type is its cell.

    Args:
        tracker: of the configuration.
        folder: of the run, where an offline tracker writes.
        config: shown beside the curves.
        group: name of the study.
        resumed: whether to go on in the tracker's run of an earlier life.
    """
    mode = resolve_mode(tracker.mode)
    if mode == "disabled":
        return NoTracking()
    import wandb  # here, since it takes a second that runs without it should not pay

    settings = wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        x_disable_meta=True,  # the command line, with the secrets in it
        init_timeout=START_S,
        finish_timeout=FINISH_S,
    )
    options: dict[str, Any] = {"project": tracker.project, "name": folder.name, "group": group}
    options |= {"job_type": os.environ.get(CELL), "config": config, "settings": settings, "dir": str(folder)}
    for attempt in ("online", "offline") if mode == "online" else (mode,):
        try:
            identity = _identity(folder / "wandb" / "id.txt", resumed)
            options |= {"id": identity, "resume": "allow" if attempt == "online" else None, "mode": attempt}
            run = wandb.init(**options)
            return WandbTracking(run, wandb.Image)
        except Exception as error:  # a tracker must never cost a run
            then = "offline, `wandb sync` sends it later" if attempt == "online" else "without it"
            print(f"wandb cannot start {attempt} ({one_line(error)}): going on {then}", file=sys.stderr)
            wandb.teardown()  # whose service keeps the id for itself otherwise
            resumed = True  # a second attempt is for the same run
    return NoTracking()


def _identity(file: Path, resumed: bool) -> str:
    """The tracker's name of this run, kept in the run folder."""
    if resumed and file.exists():
        return file.read_text(encoding="ascii").strip()
    name = uuid.uuid4().hex[:8]
    write_atomically(file, name + "\n")
    return name
