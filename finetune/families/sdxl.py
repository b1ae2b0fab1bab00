"""Stable Diffusion XL (Podell et al. 2023): a UNet told of two text encoders, a pooled text and the image's sizes."""

from collections.abc import Mapping
from typing import Any

from diffusers import UNet2DConditionModel
import torch
from torch import Tensor, nn

from conf.schema import Loss
from finetune.families.base import Conditioning, Family, clip_ids, layers_after_penultimate, penultimate
from finetune.families.files import SDXL
from finetune.families.stable_diffusion import UNET_TARGETS, diffusion_sampler
from finetune.objective import Diffusion, Objective


class StableDiffusionXL(Family):
    files = SDXL
    denoiser_class = UNet2DConditionModel
    targets = UNET_TARGETS

    def objective(self, scheduler: Mapping[str, Any], loss: Loss | None = None) -> Objective:
        return Diffusion.from_scheduler_config(scheduler, loss)

    def sampling_scheduler(self, scheduler: Mapping[str, Any], loss: Loss) -> Any:
        return diffusion_sampler(scheduler, loss)

    def text_encoder_class(self, part: str) -> Any:
        from transformers import CLIPTextModel, CLIPTextModelWithProjection

        return CLIPTextModel if part == "text_encoder" else CLIPTextModelWithProjection

    def token_ids(self, part: str, tokenizer: Any, encoder_config: Any, caption: str) -> Tensor:
        return clip_ids(tokenizer, encoder_config, caption)

    def encode(self, part: str, encoder: nn.Module, ids: Tensor) -> Conditioning:
        return penultimate(part, encoder, ids)

    def predict(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, given: Conditioning) -> Tensor:
        text = torch.cat([given["text_encoder"], given["text_encoder_2"]], dim=-1)
        added = {"text_embeds": given["text_encoder_2.pooled"], "time_ids": given["sizes"]}
        predicted: Tensor = denoiser(noisy, times, text, added_cond_kwargs=added, return_dict=False)[0]
        return predicted

    def unused_text_layers(self, part: str, encoder: nn.Module) -> list[nn.Module]:
        return layers_after_penultimate(encoder) if part == "text_encoder" else []

    def sizes(
        self, original: tuple[int, int], crop: tuple[int, int], target: tuple[int, int]
    ) -> Conditioning:
        return {"sizes": torch.tensor([*original, *crop, *target], dtype=torch.float32)}
