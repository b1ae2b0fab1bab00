"""One optimizer update."""

from contextlib import nullcontext
import math

import torch
from torch import Tensor

from finetune.batches import Batch
from finetune.objective import example_losses
from finetune.optimizers import set_learning_rate
from finetune.randomness import torch_seed
from finetune.schedule import learning_rate
from finetune.setup import Run

MOST_TRIES = 32  # each halves the scale of half-precision gradients, from 2^16 to far below any use


def training_step(run: Run) -> float:
    """Update the weights once. Half-precision gradients that overflow are computed again at half the scale.

    Returns:
        The mean squared error over all micro-batches, processes and, with prior preservation, both halves: without the
        weights that training gives to timesteps or halves, so that methods compare. nan where the gradients overflow
        at every scale.
    """
    for _ in range(MOST_TRIES):
        loss = _try_update(run)
        if not run.accelerator.optimizer_step_was_skipped:
            for average in (run.averaging, run.aging):
                average.update(run.counters.step + 1)
            return loss
    return math.nan


def _try_update(run: Run) -> float:
    """Gradients and update; the mean loss over all micro-batches and processes."""
    options, accelerator, step = run.config.optimizer, run.accelerator, run.counters.step
    total = torch.zeros((), device=accelerator.device)
    for micro in range(options.accumulation):
        last = micro == options.accumulation - 1
        with nullcontext() if last else accelerator.no_sync(run.model):
            loss, error = micro_loss(run, step, micro)
            accelerator.backward(loss / options.accumulation)
        total += error / options.accumulation
    accelerator.clip_grad_norm_(run.parameters, options.max_grad_norm)
    set_learning_rate(run.optimizer, learning_rate(options, run.plan.schedule_horizon, step + 1))
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return float(accelerator.reduce(total, reduction="mean"))


def micro_loss(run: Run, step: int, micro: int) -> tuple[Tensor, Tensor]:
    """Of this process's share of a micro-step: the loss to minimise, with gradient, and the plain mean squared error."""
    accelerator, size = run.accelerator, run.config.optimizer.batch_size
    first = (micro * accelerator.num_processes + accelerator.process_index) * size
    batch = _batch(run, step, first)
    torch.manual_seed(torch_seed("modules", run.config.seed, step, first))  # of dropout inside of the adapter
    objective = run.backbone.objective
    noisy = objective.add_noise(batch.latents, batch.noise, batch.timesteps)
    predicted = run.model(noisy, objective.times(batch.timesteps), batch.given)
    errors = example_losses(predicted, objective.target(batch.latents, batch.noise, batch.timesteps))
    # Weighted example by example, before the halves are averaged: they have timesteps of their own.
    weighted = errors * objective.weights(batch.timesteps).to(errors)
    loss = weighted[:size].mean()
    if run.prior:
        loss = loss + (run.config.method.prior_weight or 0.0) * weighted[size:].mean()
    return loss, errors.detach().mean()


def _batch(run: Run, step: int, first: int) -> Batch:
    """Training images and, with prior preservation, as many class images of the same shape after them."""
    device = run.accelerator.device
    batch = run.training.batch(step, first, device)
    if not run.prior:
        return batch
    return batch.joined(run.prior[tuple(batch.latents.shape[1:])].batch(step, first, device))
