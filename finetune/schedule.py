"""The learning rate of every update, a function of its number: right for any number of processes."""

import math

from conf.schema import Optimizer


def learning_rate(optimizer: Optimizer, horizon: int, step: int) -> float:
    """The learning rate of update `step`, from 1: linear warm-up, then the schedule to the horizon.

    What decays reaches zero just after the horizon, so that its last update still trains.
    """
    if step <= optimizer.warmup_steps:
        return optimizer.lr * step / optimizer.warmup_steps
    progress = (step - 1 - optimizer.warmup_steps) / (horizon - optimizer.warmup_steps)
    if optimizer.schedule == "cosine":
        return optimizer.lr * 0.5 * (1 + math.cos(math.pi * progress))
    if optimizer.schedule == "linear":
        return optimizer.lr * (1 - progress)
    if optimizer.schedule == "warmup_stable_decay":  # Hu et al. 2024, arXiv 2404.06395, with a linear decay
        return optimizer.lr * min(1.0, (horizon + 1 - step) / (optimizer.decay_share * horizon))
    return optimizer.lr


def lr_sum(optimizer: Optimizer, horizon: int, step: int) -> float:
    """Sum of the learning rate over the first `step` updates: the intrinsic time of a curve."""
    return math.fsum(learning_rate(optimizer, horizon, number) for number in range(1, step + 1))
