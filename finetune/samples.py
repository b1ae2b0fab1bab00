"""Images drawn with fixed prompts and seeds: DDIM (Song et al. 2021) with classifier-free guidance."""

from collections.abc import Sequence

from accelerate import Accelerator
from diffusers import DDIMScheduler
import numpy as np
from PIL import Image
import torch
from torch import Tensor

from conf.schema import Samples
from curves.run_folder import RunFolder, write_json
from finetune.backbone import Backbone
from finetune.randomness import generator


class Sampler:
    """Draws the same prompts with the same noise at every call; its random numbers are its own."""

    def __init__(
        self,
        options: Samples,
        prompts: Sequence[str],
        embeddings: Tensor,
        empty: Tensor,
        shape: Sequence[int],
        backbone: Backbone,
        accelerator: Accelerator,
    ) -> None:
        """Prepare.

        Args:
            options: of the configuration.
            prompts: texts.
            embeddings: (prompts, tokens, width).
            empty: (tokens, width), the unconditional embedding.
            shape: (channels, h, w) of a latent.
            backbone, accelerator: of the run.
        """
        self._options = options
        self._prompts = list(prompts)
        self._text = torch.cat([empty.expand_as(embeddings), embeddings]).to(accelerator.device)
        draws = [generator("sample", options.seed, index) for index in range(len(prompts))]
        starts = [draw.standard_normal(tuple(shape)) for draw in draws]
        self._start = torch.tensor(np.stack(starts), dtype=torch.float32, device=accelerator.device)
        self._backbone = backbone
        self._accelerator = accelerator

    def draw(self, unet: torch.nn.Module, step: int, folder: RunFolder) -> list[Image.Image]:
        """Draw all prompts and write samples/step-000064-0.png and so on."""
        was_training = unet.training
        unet.eval()
        latents = self._denoise(unet)
        unet.train(was_training)
        arrays = self._backbone.decode(latents).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        images = [Image.fromarray(array) for array in arrays]
        folder.samples.mkdir(parents=True, exist_ok=True)
        write_json(folder.samples / "prompts.json", {"prompts": self._prompts, "seed": self._options.seed})
        for index, image in enumerate(images):
            image.save(folder.samples / f"step-{step:06d}-{index}.png")
        return images

    @torch.no_grad()
    def _denoise(self, unet: torch.nn.Module) -> Tensor:
        """Latents (prompts, channels, h, w) of finished images."""
        scheduler = DDIMScheduler.from_config({**self._backbone.scheduler_config, "clip_sample": False})
        scheduler.set_timesteps(self._options.inference_steps)
        latents = self._start * scheduler.init_noise_sigma
        for timestep in scheduler.timesteps:
            doubled = scheduler.scale_model_input(torch.cat([latents, latents]), timestep)
            with self._accelerator.autocast():
                predicted = unet(doubled, timestep, self._text, return_dict=False)[0]
            without, with_text = predicted.float().chunk(2)
            guided = without + self._options.guidance_scale * (with_text - without)
            latents = scheduler.step(guided, timestep, latents).prev_sample
        finished: Tensor = latents
        return finished
