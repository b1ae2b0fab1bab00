"""One optimizer update."""

from contextlib import nullcontext
import math

import numpy as np
import torch
from torch import Tensor

from finetune.objective import example_losses
from finetune.randomness import Draw, torch_seed
from finetune.schedule import learning_rate
from finetune.setup import Run

MOST_TRIES = 32  # each halves the scale of half-precision gradients, from 2^16 to far below any use


def training_step(run: Run) -> float:
    """Update the weights once. Half-precision gradients that overflow are computed again at half the scale.

    Returns:
        The mean loss over all micro-batches and processes; nan where the gradients overflow at every scale.
    """
    for _ in range(MOST_TRIES):
        loss = _try_update(run)
        if not run.accelerator.optimizer_step_was_skipped:
            return loss
    return math.nan


def _try_update(run: Run) -> float:
    """Gradients and update; the mean loss over all micro-batches and processes."""
    options, accelerator, step = run.config.optimizer, run.accelerator, run.counters.step
    total = torch.zeros((), device=accelerator.device)
    for micro in range(options.accumulation):
        last = micro == options.accumulation - 1
        with nullcontext() if last else accelerator.no_sync(run.model):
            loss = micro_loss(run, step, micro)
            accelerator.backward(loss / options.accumulation)
        total += loss.detach().float() / options.accumulation
    accelerator.clip_grad_norm_(run.parameters, options.max_grad_norm)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(options, run.plan.schedule_horizon, step + 1)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    return float(accelerator.reduce(total, reduction="mean"))


def micro_loss(run: Run, step: int, micro: int) -> Tensor:
    """The mean loss of this process's share of a micro-step, with gradient."""
    accelerator, batch = run.accelerator, run.config.optimizer.batch_size
    first = (micro * accelerator.num_processes + accelerator.process_index) * batch
    draws = [run.draws.at(step, first + index) for index in range(batch)]
    latents, text, noise, timesteps = _assemble(run, draws)
    torch.manual_seed(torch_seed("modules", run.config.seed, step, first))  # of dropout inside of the adapter
    objective = run.backbone.objective
    noisy = objective.add_noise(latents, noise, timesteps)
    predicted = run.model(noisy, timesteps, text, return_dict=False)[0]
    return example_losses(predicted, objective.target(latents, noise, timesteps)).mean()


def _assemble(run: Run, draws: list[Draw]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents, text, noise and timesteps of a batch; every step draws its latents anew from mean and std."""
    device, encoded = run.accelerator.device, run.encoded
    images = [draw.image for draw in draws]
    noise = torch.from_numpy(np.stack([draw.noise for draw in draws]))
    latent_noise = torch.from_numpy(np.stack([draw.latent_noise for draw in draws]))
    latents = encoded.mean[images] + encoded.std[images] * latent_noise
    text = torch.stack(
        [encoded.empty_text if draw.drop_caption else encoded.text[draw.image] for draw in draws]
    )
    timesteps = torch.tensor([draw.timestep for draw in draws])
    return latents.to(device), text.to(device), noise.to(device), timesteps.to(device)
