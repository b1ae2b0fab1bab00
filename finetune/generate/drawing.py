"""Draws the images of a grid with diffusers' pipelines; an image is a function of its column, prompt and seed."""

from collections.abc import Callable
from pathlib import Path
import tempfile
from typing import Any

from PIL import Image
import torch
from torch import Tensor

from finetune.generate.columns import Column
from finetune.generate.options import Options
from finetune.pipeline_folder import assemble, link_part
from finetune.pipelines import add_lora, open_pipeline, weigh

Stepped = Callable[[int], None]


class Artist:
    """Holds one model at a time; columns of the same one follow each other without loading it again."""

    def __init__(self, options: Options, device: torch.device) -> None:
        self._options = options
        self._device = device
        self._pipeline: Any = None
        self._model: object = None
        self._adapters: list[Path] = []

    def draw(self, column: Column, prompt: str, seed: int, stepped: Stepped) -> Image.Image:
        """One image.

        Args:
            column: that it belongs to.
            prompt, seed: of its row.
            stepped: called with the number of denoising steps done.

        Raises:
            RequestError: the model is damaged, or an adapter does not fit it.
        """
        self.take(column)
        random = torch.Generator().manual_seed(seed)  # on the CPU: the same noise on every device
        start = torch.randn(self._latent_shape(column), generator=random)
        network = getattr(self._pipeline, column.base.family.denoiser)

        def after_step(pipeline: Any, step: int, time: Any, given: dict[str, Any]) -> dict[str, Any]:
            stepped(step + 1)
            return given

        with torch.no_grad():
            latents = self._pipeline(
                prompt,
                negative_prompt=self._options.negative or None,
                height=column.pixels,
                width=column.pixels,
                num_inference_steps=self._options.steps,
                guidance_scale=self._options.guidance,
                latents=start.to(self._device, network.dtype),
                generator=random,
                output_type="latent",
                callback_on_step_end=after_step,
            ).images
            return self._decode(latents)

    def take(self, column: Column) -> None:
        """Have the column's model in memory, and its adapters on it.

        Raises:
            RequestError: the model is damaged, or an adapter does not fit it.
        """
        if self._model != column.model:
            self._pipeline = None  # before the next one is loaded, so that memory holds one
            with tempfile.TemporaryDirectory(prefix="stepbudget-") as folder:
                assemble(column.base, column.networks, column.zero_terminal_snr, Path(folder), link_part)
                self._pipeline = open_pipeline(column.base, Path(folder), self._device)
            self._model, self._adapters = column.model, []
        wanted = [weights.path for weights, _ in column.adapters]
        if self._adapters != wanted:
            self._pipeline.unload_lora_weights()
            self._adapters = []
            for index, (weights, _) in enumerate(column.adapters):
                add_lora(self._pipeline, column.base, weights, f"lora{index}")
            self._adapters = wanted
        weigh(self._pipeline, {f"lora{index}": weight for index, (_, weight) in enumerate(column.adapters)})

    def _latent_shape(self, column: Column) -> tuple[int, int, int, int]:
        side = column.pixels // self._pipeline.vae_scale_factor
        channels = getattr(self._pipeline, column.base.family.denoiser).config.in_channels
        return 1, channels, side, side

    def _decode(self, latents: Tensor) -> Image.Image:
        """The image of latents (1, channels, h, w), in single precision on every device."""
        vae = self._pipeline.vae
        shift = vae.config.shift_factor or 0.0
        pixels = vae.decode(latents.float() / vae.config.scaling_factor + shift, return_dict=False)[0]
        image: Image.Image = self._pipeline.image_processor.postprocess(pixels, output_type="pil")[0]
        return image
