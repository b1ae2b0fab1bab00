"""Images drawn with fixed prompts and seeds, with classifier-free guidance (Ho & Salimans 2022)."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
from PIL import Image
import torch
from torch import Tensor, nn

from conf.schema import Samples
from curves.likeness import Likeness, append_likeness
from curves.run_folder import RunFolder, write_json
from finetune.backbone import Backbone
from finetune.families.base import Conditioning, stack
from finetune.randomness import generator

Autocast = Callable[[], AbstractContextManager[object]]


class Sampler:
    """Draws the same prompts with the same noise at every call; its random numbers are its own."""

    def __init__(
        self,
        backbone: Backbone,
        texts: Sequence[Conditioning],
        empty: Conditioning,
        shape: Sequence[int],
        noise_keys: Sequence[tuple[str | int, ...]],
        inference_steps: int,
        guidance_scale: float,
        autocast: Autocast = nullcontext,
    ) -> None:
        """Prepare.

        Args:
            backbone: that decodes.
            texts: conditioning on the prompts.
            empty: the same of no prompt.
            shape: (channels, h, w) of a latent.
            noise_keys: what the starting noise of each prompt is a function of.
            inference_steps, guidance_scale: of drawing.
            autocast: context of mixed precision.
        """
        device = backbone.device
        self._given = stack([empty] * len(texts) + list(texts), device)
        starts = [generator(*key).standard_normal(tuple(shape)) for key in noise_keys]
        self._start = torch.tensor(np.stack(starts), dtype=torch.float32, device=device)
        self._backbone = backbone
        self._inference_steps = inference_steps
        self._guidance_scale = guidance_scale
        self._autocast = autocast

    def draw(self, model: nn.Module) -> list[Image.Image]:
        """One image a prompt. Leaves no trace in `model`, the bare trained.TrainedModel."""
        return self.decode(self.latents(model))

    def latents(self, model: nn.Module) -> Tensor:
        """(prompts, channels, h, w) of finished images. Leaves no trace in `model`."""
        was_training = model.training
        model.eval()
        latents = self._denoise(model)
        model.train(was_training)
        return latents

    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The images that finished latents are."""
        arrays = self._backbone.decode(latents).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(array) for array in arrays]

    @torch.no_grad()
    def _denoise(self, model: nn.Module) -> Tensor:
        """Latents (prompts, channels, h, w) of finished images."""
        scheduler = self._backbone.sampling_scheduler()
        scheduler.set_timesteps(self._inference_steps)
        latents = self._start
        for time in scheduler.timesteps:
            doubled = torch.cat([latents, latents])
            with self._autocast():
                predicted = model(doubled, time.to(latents.device), self._given)
            without, with_text = predicted.float().chunk(2)
            guided = without + self._guidance_scale * (with_text - without)
            latents = scheduler.step(guided, time, latents).prev_sample
        finished: Tensor = latents
        return finished


def write_samples(
    folder: RunFolder, images: Sequence[Image.Image], options: Samples, prompts: list[str], record: Likeness
) -> None:
    """Write samples/step-000064-0.png and so on, what they are of, and how near they come to the training images."""
    folder.samples.mkdir(parents=True, exist_ok=True)
    write_json(folder.samples / "prompts.json", {"prompts": prompts, "seed": options.seed})
    for index, image in enumerate(images):
        image.save(folder.samples / f"step-{record.step:06d}-{index}.png")
    append_likeness(folder.samples, record)
