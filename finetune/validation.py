"""The held-out loss: measured on a fixed panel of (image, timestep, noise, caption), so that steps pair.

Source: docs/method.md, section 1. The measure depends on nothing that training draws: not on seed, batch
size, processes or method.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from accelerate import Accelerator
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from curves.panel import Panel, paired_difference, standard_error
from finetune.cache import Encoded
from finetune.families.base import stack
from finetune.images import Example
from finetune.objective import Objective, example_losses
from finetune.paths import hash_texts
from finetune.randomness import panel_noise, panel_shift

Losses = NDArray[np.float64]  # (images, strata)
Pair = tuple[int, int]  # index of an image, and of a stratum


@dataclass(frozen=True)
class Measure:
    """What one evaluation says beyond its plain mean; fields as in curves.point.Point."""

    val_loss: float
    val_se: float | None
    delta: float
    delta_se: float | None
    log_ratio: float
    image_loss: list[float]
    bins: list[float]


def make_panel(
    examples: Sequence[Example],
    strata: int,
    timesteps: int,
    base: str,
    pixels: int,
    dtype: str,
    buckets: bool = False,
    noise_seed: int = 0,
) -> Panel:
    """t_ik = floor(T (k - 1 + u_i) / K) for k = 1..K, with a fixed shift u_i an image. docs/method.md, section 1."""
    grid = [
        [
            int(timesteps * (stratum + panel_shift(example.content, noise_seed)) / strata)
            for stratum in range(strata)
        ]
        for example in examples
    ]
    return Panel(
        images=[example.content for example in examples],
        captions=[hash_texts(example.caption)[:16] for example in examples],
        timesteps=grid,
        base=base,
        resolution=pixels,
        dtype=dtype,
        noise_seed=noise_seed,
        shape="buckets" if buckets else None,
    )


class PanelEvaluator:
    """Measures a model on a panel; each process takes every P-th image."""

    def __init__(
        self, panel: Panel, encoded: Encoded, objective: Objective, batch_size: int, accelerator: Accelerator
    ) -> None:
        self.panel = panel
        self._encoded = encoded
        self._objective = objective
        self._accelerator = accelerator
        images, strata = len(panel.images), len(panel.timesteps[0])
        own = range(accelerator.process_index, images, accelerator.num_processes)
        self._batches = _batches(
            [(image, stratum) for image in own for stratum in range(strata)], encoded, batch_size
        )

    @torch.no_grad()
    def losses(self, model: torch.nn.Module) -> Losses:
        """Unweighted loss of every (image, stratum), the same on every process. Leaves no trace in `model`.

        Args:
            model: the bare trained.TrainedModel, not its distributed wrapper.
        """
        was_training = model.training
        model.eval()
        table = torch.zeros(len(self.panel.images), len(self.panel.timesteps[0]), dtype=torch.float64)
        for pairs in self._batches:
            for (image, stratum), value in zip(pairs, self._batch_losses(model, pairs).tolist(), strict=True):
                table[image, stratum] = value
        model.train(was_training)
        if self._accelerator.num_processes > 1:
            table = self._accelerator.reduce(table.to(self._accelerator.device), reduction="sum").cpu()
        result: Losses = table.numpy()
        return result

    def _batch_losses(self, model: torch.nn.Module, pairs: list[Pair]) -> Tensor:
        """(batch,) losses of some pairs in double precision."""
        device, encoded, panel = self._accelerator.device, self._encoded, self.panel
        chosen = [encoded.latents[image][0] for image, _ in pairs]
        timesteps = torch.tensor([panel.timesteps[image][stratum] for image, stratum in pairs], device=device)
        noise = [
            torch.from_numpy(
                panel_noise(panel.images[image], stratum, panel.noise_seed, encoded.shape(image))
            )
            for image, stratum in pairs
        ]
        latents, drawn = (
            torch.stack([latent.mean for latent in chosen]).to(device),
            torch.stack(noise).to(device),
        )
        given = stack(
            [encoded.texts[image] | latent.sizes for (image, _), latent in zip(pairs, chosen, strict=True)],
            device,
        )
        noisy = self._objective.add_noise(latents, drawn, timesteps)
        with self._accelerator.autocast():
            predicted = model(noisy, self._objective.times(timesteps), given)
        losses = example_losses(predicted, self._objective.target(latents, drawn, timesteps))
        return losses.cpu().double()  # in this order: Apple GPUs have no double precision


def _batches(pairs: list[Pair], encoded: Encoded, size: int) -> list[list[Pair]]:
    """Pairs in batches of images of one shape."""
    shapes: dict[tuple[int, ...], list[Pair]] = {}
    for pair in pairs:
        shapes.setdefault(encoded.shape(pair[0]), []).append(pair)
    return [
        members[start : start + size] for members in shapes.values() for start in range(0, len(members), size)
    ]


def measure(now: Losses, start: Losses) -> Measure:
    """Compare a measurement with that of step 0.

    Args:
        now, start: (images, strata).
    """
    image_loss, image_start = now.mean(axis=1), start.mean(axis=1)
    delta, delta_se = paired_difference(image_loss, image_start)
    several = len(image_loss) > 1  # the one image of a fold has no error of its own
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = float(np.log(now / start).mean())
    return Measure(
        val_loss=float(image_loss.mean()),
        val_se=standard_error(image_loss) if several else None,
        delta=delta,
        delta_se=delta_se if several else None,
        log_ratio=log_ratio,
        image_loss=[float(value) for value in image_loss],
        bins=[float(value) for value in now.mean(axis=0)],
    )
