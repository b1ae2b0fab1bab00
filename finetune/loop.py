"""One run from first step to last: train, evaluate on the grid, record, and end for a stated reason."""

from dataclasses import replace
import math
from pathlib import Path
import shlex
import sys

import numpy as np

from conf.schema import Config
from curves.point import Point
from finetune.checkpoint import Checkpoint, CheckpointTimes, drop_checkpoints, save_checkpoint
from finetune.clock import Clock
from finetune.ending import Ending, agreed, judged, requested
from finetune.interruption import Interruption
from finetune.optimizers import effective_learning_rate
from finetune.plan import Plan
from finetune.results import describe, save_result
from finetune.samples import write_samples
from finetune.schedule import learning_rate
from finetune.setup import Run, sample_prompts, set_up, training_state
from finetune.status import RunStatus
from finetune.step import training_step
from finetune.trained import copy_weights, load_weights
from finetune.validation import PanelEvaluator, measure

GOOD = ("complete", "stopped", "pruned")  # outcomes of exit status 0


def train(plan: Plan, status: RunStatus, interruption: Interruption) -> int:
    """Do a run.

    Returns:
        The exit status: 0 where the run went as asked, 1 where it diverged or was interrupted.

    Raises:
        RequestError: the base model or the run folder cannot be used.
        WorkError: the training state is damaged.
    """
    run = set_up(plan, status, interruption)
    for note in plan.notes:
        run.progress.say(f"note: {note}")
    clock = Clock(run.counters.wall_s)
    status.update(state="running", step=run.counters.step, max_steps=plan.horizon)
    try:
        outcome, reason = _train_to_an_end(run, clock)
        left = _leave(run, clock, outcome)
    finally:
        run.progress.close()
    # Also so that gloo's threads drop the tensors of the last gather now: they need Python's lock for it, and the end of
    # the process group waits for them with that lock held, for ever.
    run.accelerator.wait_for_everyone()
    status.end(outcome, reason)
    run.tracking.finish(outcome)  # last, since an upload may take long and the run is over
    if run.accelerator.is_main_process:
        print(summary(run, outcome, reason, left), file=sys.stderr)
    run.accelerator.end_training()
    return 0 if outcome in GOOD else 1


def _train_to_an_end(run: Run, clock: Clock) -> Ending:
    """Alternate points and steps until there is a reason to end."""
    counters, horizon = run.counters, run.plan.horizon
    evaluated, sampled = run.plan.grids
    states = CheckpointTimes(run.config.checkpoints)
    while True:
        ending = None
        if counters.step in evaluated and counters.recorded_step != counters.step:
            ending = _record(run, clock)
        if counters.step in sampled:
            _draw_samples(run, clock)
        if counters.step < horizon and states.due(counters.step):
            save_training_state(run, clock)
        if counters.step in run.config.checkpoints.keep:
            keep_training_state(run, clock)
        if ending is None and counters.step >= horizon:
            ending = ("complete", f"all {horizon} steps done")
        ending = ending or requested(run.interruption, run.folder, run.accelerator)
        ending = agreed(run.accelerator, ending)
        if ending is not None:
            return ending
        with clock.timing("step"):
            loss = training_step(run)
        counters.step += 1
        counters.loss_sum += loss
        counters.loss_count += 1
        run.status.note(step=counters.step, seconds_per_step=clock.mean_s("step"))
        run.progress.step(counters.step, clock)
        if not math.isfinite(loss):
            _append(run, clock, Point(counters.step))
            return "diverged", f"the training loss is not finite at step {counters.step}: lower optimizer.lr"


def _record(run: Run, clock: Clock) -> Ending | None:
    """Evaluate, append a point and ask the stop rule."""
    with clock.timing("evaluation"):
        point = _evaluate(run)
    return judged(run.rule, _append(run, clock, point))


def _evaluate(run: Run) -> Point:
    """A point with the panels' losses; the weights are kept where they are the best so far."""
    counters, panels, point = run.counters, run.panels, Point(run.counters.step)
    if panels.held_out is None:
        return point
    with run.averaging.applied():
        now = panels.held_out.losses(run.trained)
        if counters.start is None:
            counters.start = now.tolist()
        result = measure(now, np.array(counters.start))
        point = replace(point, panel=panels.held_out.panel.name, **vars(result))
        if panels.training is not None:
            point = replace(point, train_panel_loss=float(panels.training.losses(run.trained).mean()))
        if panels.prior is not None:
            point = replace(point, class_panel_loss=float(panels.prior.losses(run.trained).mean()))
        counters.last_loss = result.val_loss
        best = math.inf if counters.best_loss is None else counters.best_loss
        if result.val_loss < best:
            counters.best_step, counters.best_loss = counters.step, result.val_loss
            run.best = copy_weights(run.trained) if run.accelerator.is_main_process else None
    return (
        point if run.config.evaluation.average_share is None else _with_average(run, panels.held_out, point)
    )


def _with_average(run: Run, panel: PanelEvaluator, point: Point) -> Point:
    """The point with the held-out loss of the aging average."""
    with run.aging.applied():
        losses = panel.losses(run.trained).mean(axis=1)
    return replace(point, averaged_loss=float(losses.mean()), averaged_image_loss=losses.tolist())


def _append(run: Run, clock: Clock, point: Point) -> Point:
    """Complete a point with the counters, write it and show it."""
    counters, options, horizon = run.counters, run.config.optimizer, run.plan.schedule_horizon
    point = replace(
        point,
        images_seen=counters.step * run.training.draws.global_batch,
        wall_s=round(clock.wall_s, 3),
        lr=learning_rate(options, horizon, counters.step) if counters.step else None,
        lr_sum=run.plan.lr_sum(counters.step),
        train_loss=counters.loss_sum / counters.loss_count if counters.loss_count else None,
    )
    if (
        options.name == "prodigy" and counters.step
    ):  # what it has made of the learning rate, which is a multiplier
        point.extra["effective_lr"] = effective_learning_rate(run.optimizer)
    counters.loss_sum, counters.loss_count, counters.recorded_step = 0.0, 0, counters.step
    if run.accelerator.is_main_process:
        run.folder.append_point(point)
        run.tracking.log_point(point)
        run.progress.point(point, clock)
    run.status.update(step=counters.step, seconds_per_step=clock.mean_s("step"))
    return point


def _draw_samples(run: Run, clock: Clock) -> None:
    """Draw the samples of this step, once; the main process alone has a sampler."""
    counters = run.counters
    sampling = run.sampling
    if sampling is not None and counters.sampled_step != counters.step:
        with clock.timing("samples"), run.averaging.applied():
            latents = sampling.sampler.latents(run.trained)
            images = sampling.sampler.decode(latents)
            likeness = sampling.likeness.measure(counters.step, latents, images)
        write_samples(run.folder, images, run.config.samples, sample_prompts(run.plan), likeness)
        run.tracking.log_samples(images, likeness)
    counters.sampled_step = counters.step


def keep_training_state(run: Run, clock: Clock) -> None:
    """Write the state that branches go on from, once: a run that was resumed comes past the same one again."""
    kept = run.folder.kept_state(run.counters.step)
    if not kept.is_dir():
        save_training_state(run, clock, kept.name)


def save_training_state(run: Run, clock: Clock, name: str = "last") -> None:
    """Write checkpoints/`name` in the main process."""
    if run.accelerator.is_main_process:
        state = Checkpoint(
            weights=copy_weights(run.trained),
            best=run.best,
            optimizer=run.optimizer.state_dict(),
            counters=training_state(run, clock.wall_s),
            average=run.averaging.state_dict(),
            aging=run.aging.state_dict(),
            scaler=run.accelerator.scaler.state_dict() if run.accelerator.scaler is not None else None,
        )
        save_checkpoint(run.folder.checkpoints, state, name)


def _leave(run: Run, clock: Clock, outcome: str) -> Path | None:
    """Leave a training state (preempted) or the final weights.

    Returns:
        The file or folder of the final weights, if any.
    """
    if outcome == "preempted":
        save_training_state(run, clock)
        return None
    if outcome == "stopped" and run.counters.recorded_step != run.counters.step:
        _record(run, clock)
    if not run.accelerator.is_main_process:
        return None
    if outcome in ("complete", "stopped"):
        _draw_samples(run, clock)
    if outcome in ("complete", "stopped") and keeps_state(run.config):
        save_training_state(run, clock)
    else:
        drop_checkpoints(run.folder.checkpoints)
    return _save_final(run, outcome)


def keeps_state(config: Config) -> bool:
    """Whether a finished run can be lengthened."""
    resumable = config.checkpoints.resumable
    return config.method.adapter == "lora" if resumable is None else resumable


def _save_final(run: Run, outcome: str) -> Path | None:
    """Write the weights at the end and, as checkpoints.final says, the best; a diverged run can only leave its best.

    Returns:
        The file or folder that the run was for.
    """
    counters, plan = run.counters, run.plan
    best = run.config.checkpoints.final == "best" and run.best is not None
    written = []
    if outcome != "diverged" and (not best or plan.recommended is not None):
        kind = "last" if plan.recommended is None else "recommended"
        with run.averaging.applied():
            written.append(
                save_result(
                    run.trained, run.folder, kind, plan, describe(plan, counters.step, counters.last_loss)
                )
            )
    if best and run.best is not None:
        load_weights(run.trained, run.best)
        facts = describe(plan, counters.best_step, counters.best_loss)
        written.append(save_result(run.trained, run.folder, "best", plan, facts))
    return written[0] if written else None


def summary(run: Run, outcome: str, reason: str, left: Path | None) -> str:
    """One paragraph for a person: how the run ended, what it gained and where the weights are."""
    counters = run.counters
    text = f"{outcome} at step {counters.step}: {reason}."
    if counters.best_loss is not None and counters.start is not None:
        base = float(np.mean(counters.start))
        gain = base - counters.best_loss
        improvement = (
            f"{100 * gain / base:.2f} % below the base model" if gain > 0 else "the base is not improved"
        )
        text += f" Lowest held-out loss {counters.best_loss:.5f} at step {counters.best_step}, {improvement}."
    if left is not None:
        text += f" The {left.stem} weights are in {left}."
    if outcome == "preempted":
        pinned = [] if run.config.run_dir is not None else [f"run_dir={run.folder.path}"]
        text += f" Go on with: python train.py {shlex.join([*run.plan.overrides, *pinned])}"
    return text
