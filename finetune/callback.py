"""A run folder, the held-out loss and a stop rule for another's training script: docs/own-trainer.md.

budget = StepBudget(args, accelerator, unet, optimizer)
args.train_data_dir = budget.training_folder()
...
    if budget.step(global_step, loss):
        break
...
budget.end()
"""

from argparse import Namespace
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
import math
from pathlib import Path
import shutil
from statistics import fmean
import sys
import time
from types import MappingProxyType
from typing import Any

from accelerate import Accelerator
import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from conf.compose import load_config
from conf.errors import RequestError, exit_status
from curves.point import Point
from curves.run_folder import RunFolder
from finetune.backbone import Backbone
from finetune.budget import hyperparameters
from finetune.cache import ContentCache
from finetune.clock import Clock
from finetune.data import PanelMaker
from finetune.ending import Ending, agreed, judged, requested
from finetune.interruption import Interruption
from finetune.plan import Plan, make_plan, new_rule
from finetune.progress import describe_loss
from finetune.results import describe, save_result
from finetune.run_record import begin, claim
from finetune.script import (
    argument_overrides,
    check_schedule,
    check_seen,
    trial_overrides,
    write_training_folder,
)
from finetune.seen import bare, see
from finetune.status import RunStatus
from finetune.trained import TrainedModel, copy_weights, load_weights
from finetune.validation import Losses, PanelEvaluator, measure


@dataclass
class Counters:
    """What a run has done so far; in every checkpoint of the script.

    Attributes:
        step: optimizer updates.
        lr, lr_sum: learning rate of the last update; sum over all.
        loss_sum, loss_count: of the training loss since the last point.
        recorded_step: of the last point.
        start: panel losses (images, strata) at step 0.
        best_step, best_loss: of the lowest held-out loss.
        wall_s: seconds of training.
    """

    step: int = 0
    lr: float | None = None
    lr_sum: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    recorded_step: int = -1
    start: list[list[float]] | None = None
    best_step: int = 0
    best_loss: float | None = None
    wall_s: float = 0.0


class StepBudget:
    """Watches a training loop that uses accelerate. Every process makes one; the main process alone writes.

    In a sweep the study says what the run is; outside of one the script's arguments and `settings` do.
    """

    def __init__(
        self,
        arguments: Namespace,
        accelerator: Accelerator,
        denoiser: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: Mapping[str, Any] = MappingProxyType({}),
        **text_encoders: nn.Module,
    ) -> None:
        """Take the run folder, measure the base model, and take part in the script's checkpoints.

        A wrong request ends the script with one line and exit status 2.

        Args:
            arguments: of the script, named as those of diffusers' examples.
            accelerator: of the script.
            denoiser: the UNet or transformer, with its adapter if it has one, not yet trained; moved to the device.
            optimizer: of the script.
            settings: what no argument says, for example {"stopping": "posterior"}; in a sweep the study says it.
            text_encoders: those that train too, by the names of their folders: text_encoder=...
        """
        self.ended = False  # whether the run shall end: leave the loop over epochs too
        self._accelerator = accelerator
        self._status, self._interruption = RunStatus(), Interruption()
        self._status.record_unhandled()
        self._interruption.watch()
        self._counters = Counters()
        self._best: dict[str, Tensor] | None = None
        self._resumed = self._recording = False
        self._ending: Ending | None = None
        self._rate: float | None = None
        self._step_s: deque[float] = deque(maxlen=100)
        self._last_call: float | None = None

        def open_run() -> None:
            seen = see(accelerator, denoiser, optimizer, text_encoders)
            self._plan = self._make_plan(arguments, settings, seen)
            self._open(denoiser.to(accelerator.device), text_encoders)

        self._or_exit(open_run)
        bare(optimizer).register_step_pre_hook(self._before_update)
        accelerator.register_for_checkpointing(self)

    def _or_exit(self, act: Callable[[], None]) -> None:
        """Do it; a wrong request, or work that cannot be done, ends the script with one line and our exit status."""

        def command() -> int:
            with self._status.recording_failures():
                act()
            return 0

        if status := exit_status(command):
            raise SystemExit(status)

    def _make_plan(self, arguments: Namespace, settings: Mapping[str, Any], seen: Mapping[str, Any]) -> Plan:
        overrides = trial_overrides() or argument_overrides(arguments, settings, seen)
        config = load_config(overrides)
        if config.run_dir is None:
            raise RequestError(
                "run_dir is not set: it is the script's --output_dir, where the run is recorded"
            )
        self._folder = RunFolder(Path(config.run_dir))
        claim(self._folder.path, self._status)
        check_seen(config, seen)
        plan = make_plan(config, overrides)
        pixels = getattr(arguments, "resolution", None) or plan.pixels
        if pixels != plan.pixels:
            raise RequestError(
                f"--resolution={pixels}: the run is measured at {plan.pixels} pixels: give both the same"
            )
        return plan

    def _open(self, denoiser: nn.Module, text_encoders: Mapping[str, nn.Module]) -> None:
        """Measure the untouched model and write the record."""
        plan, accelerator = self._plan, self._accelerator
        backbone = Backbone(plan.base, accelerator.device)
        check = self._interruption.check
        cache = ContentCache(plan.cache_dir, backbone, plan.pixels, plan.buckets, tuple(text_encoders), check)
        evaluator = PanelMaker(plan, backbone, accelerator)(plan.split.held_out, cache)
        if evaluator is None:
            raise RequestError(
                "evaluation.enabled=false: leave it true, the held-out loss is what this is for"
            )
        backbone.release_encoders()
        self._evaluator: PanelEvaluator = evaluator
        self._trained = TrainedModel(backbone.family, denoiser, text_encoders)
        self._rule, self._clock, self._evaluated = new_rule(plan), Clock(0.0), plan.grids[0]
        resumable = any(self._folder.path.glob("checkpoint-*"))
        if accelerator.is_main_process:
            begin(self._folder, plan, evaluator.panel, self._status, resumable)
        self._start = evaluator.losses(self._trained)
        self._keep_weights()  # now: at the first call of step() they have been updated once
        self._status.update(state="running", max_steps=plan.horizon)
        for note in plan.notes:
            self._say(f"note: {note}")

    def training_folder(self, captions: bool = True) -> str:
        """A folder of links to the images to train on: those that are not held out, as many as dataset_size says.

        Args:
            captions: whether metadata.jsonl has them, column `text`; without, the folder holds images alone.
        """
        folder = self._folder.path / "training_images"
        if self._accelerator.is_main_process:
            write_training_folder(folder, self._plan.split.training, captions)
        self._accelerator.wait_for_everyone()
        return str(folder)

    def step(self, step: int, loss: float) -> bool:
        """Say that an optimizer update is done. A step that is missing or told twice ends the script.

        Args:
            step: updates so far, this one included.
            loss: mean over the update's micro-batches; the mean over processes is taken here.

        Returns:
            Whether the run shall end now: leave the loop. Where it shall go on later, the checkpoint is written.
        """
        if self.ended:
            return True
        self._or_exit(lambda: self._check_order(step))
        if not self._recording:
            self._start_recording()
        self._count(step, self._mean(loss))
        ending = agreed(self._accelerator, self._reason_to_end())
        if ending is not None:
            self._ending, self.ended = ending, True
            self._answer(ending[0])
        self._last_call = time.monotonic()
        return self.ended

    def _check_order(self, step: int) -> None:
        done = self._counters.step
        if step != done + 1:
            raise RequestError(
                f"step({step}) after {done} updates: call it once after every optimizer update, and resume from "
                "checkpoints that were written with it"
            )

    def _check_schedule(self) -> None:
        step = self._counters.step
        check_schedule(self._plan.config.optimizer, step, self._plan.lr_sum(step), self._counters.lr_sum)

    def _count(self, step: int, loss: float) -> None:
        """Take in an update."""
        counters = self._counters
        counters.step, counters.lr = step, self._rate or counters.lr
        counters.lr_sum += self._rate or 0.0  # nothing where half-precision gradients overflowed
        self._rate = None
        counters.loss_sum += loss
        counters.loss_count += 1
        if self._last_call is not None:  # before the first update the script has done other work
            self._step_s.append(time.monotonic() - self._last_call)
        self._status.note(step=step, seconds_per_step=fmean(self._step_s) if self._step_s else None)

    def _reason_to_end(self) -> Ending | None:
        """Record a point where there is to be one, and look for a reason to end."""
        counters, horizon = self._counters, self._plan.horizon
        asked = requested(self._interruption, self._folder, self._accelerator)
        ending = None
        if not math.isfinite(counters.loss_sum):
            self._append(Point(counters.step))
            ending = (
                "diverged",
                f"the training loss is not finite at step {counters.step}: lower optimizer.lr",
            )
        elif counters.step in self._evaluated:
            self._or_exit(self._check_schedule)
            ending = self._record(self._evaluator.losses(self._trained))
        if ending is None and counters.step >= horizon:
            ending = ("complete", f"all {horizon} steps done")
        return ending or asked

    def _answer(self, outcome: str) -> None:
        """What an ending asks for: a checkpoint of the script, or a last point."""
        counters = self._counters
        if outcome == "preempted":
            self._save_state(self._folder.path / f"checkpoint-{counters.step}")
        elif outcome == "stopped" and counters.recorded_step != counters.step:
            self._record(self._evaluator.losses(self._trained))

    def _save_state(self, target: Path) -> None:
        """A checkpoint of the script, whole or not at all: it would resume from half of one."""
        partial = target.with_name(f".{target.name}.partial")
        self._accelerator.save_state(str(partial))
        self._accelerator.wait_for_everyone()
        if self._accelerator.is_main_process:
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)

    def end(self) -> None:
        """Write the weights of the lowest held-out loss and say how the run ended. The script's last call."""
        done, horizon = self._counters.step, self._plan.horizon
        outcome, reason = self._ending or ("stopped", f"the script ended at step {done} of {horizon}")
        if outcome != "preempted" and self._best is not None and self._accelerator.is_main_process:
            load_weights(self._trained, self._best)
            facts = describe(self._plan, self._counters.best_step, self._counters.best_loss)
            save_result(self._trained, self._folder, "best", self._plan, facts)
        self._accelerator.wait_for_everyone()
        self._status.end(outcome, reason)
        self._say(f"{outcome} at step {done}: {reason}")

    def state_dict(self) -> dict[str, Any]:
        """For accelerate, which keeps it in every checkpoint of the script."""
        counters = asdict(self._counters) | {"wall_s": self._clock.wall_s}
        return {"counters": counters, "rule": self._rule.state_dict(), "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """For accelerate, when the script resumes from a checkpoint."""
        self._counters = Counters(**state["counters"])
        self._clock = Clock(self._counters.wall_s)
        self._rule.load_state_dict(state["rule"])
        self._best, self._resumed = state["best"], True

    def _start_recording(self) -> None:
        """At the first update, when it is known whether the script has resumed."""
        self._recording = True
        if self._accelerator.is_main_process:
            if self._resumed:
                self._folder.cut_curve(self._counters.step)
            else:
                self._folder.curve.unlink(missing_ok=True)
        if not self._resumed:
            self._record(self._start)

    def _record(self, losses: Losses) -> Ending | None:
        """A point of the panel's losses; the weights are kept where they are the best so far."""
        counters = self._counters
        if counters.start is None:
            counters.start = losses.tolist()
        result = measure(losses, np.array(counters.start))
        if result.val_loss < (math.inf if counters.best_loss is None else counters.best_loss):
            counters.best_step, counters.best_loss = counters.step, result.val_loss
            if counters.step:
                self._keep_weights()
        point = Point(counters.step, panel=self._evaluator.panel.name, **vars(result))
        return judged(self._rule, self._append(point))

    def _keep_weights(self) -> None:
        self._best = copy_weights(self._trained) if self._accelerator.is_main_process else None

    def _append(self, point: Point) -> Point:
        """Complete a point with the counters, write it and show it."""
        counters, batch = self._counters, hyperparameters(self._plan.config, self._plan.processes)["batch"]
        point = replace(
            point,
            images_seen=counters.step * batch,
            wall_s=round(self._clock.wall_s, 3),
            lr=counters.lr,
            lr_sum=counters.lr_sum,
            train_loss=counters.loss_sum / counters.loss_count if counters.loss_count else None,
        )
        counters.loss_sum, counters.loss_count, counters.recorded_step = 0.0, 0, counters.step
        if self._accelerator.is_main_process:
            self._folder.append_point(point)
        self._status.update(step=counters.step)
        self._say(f"step {counters.step}/{self._plan.horizon}  {describe_loss(point)}")
        return point

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """The learning rate that an update is made with: by the time that step() is called a schedule has changed it."""
        self._rate = float(optimizer.param_groups[0]["lr"])

    def _mean(self, loss: float) -> float:
        """Over all processes, which must agree on whether it is finite."""
        value = torch.tensor(float(loss), device=self._accelerator.device)
        return float(self._accelerator.reduce(value, reduction="mean"))

    def _say(self, text: str) -> None:
        if self._accelerator.is_main_process:
            tqdm.write(text, file=sys.stderr)
