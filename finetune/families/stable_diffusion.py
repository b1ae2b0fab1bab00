"""Stable Diffusion 1 and 2 (Rombach et al. 2022): a UNet, one text encoder, prediction of noise or velocity."""

from collections.abc import Mapping
from typing import Any

from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from conf.schema import Loss
from finetune.families.base import ATTENTION, FEED_FORWARD, Conditioning, Family, clip_ids
from finetune.families.files import STABLE_DIFFUSION
from finetune.objective import Diffusion, Objective

PROJECTIONS = ("proj_in", "proj_out")
RESNET = ("conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv")
UNET_TARGETS = {
    "attention": ATTENTION,
    "attention_ff": (*ATTENTION, *PROJECTIONS, *FEED_FORWARD),
    "attention_ff_resnet": (*ATTENTION, *PROJECTIONS, *FEED_FORWARD, *RESNET),
}


class StableDiffusion(Family):
    files = STABLE_DIFFUSION
    denoiser_class = UNet2DConditionModel
    targets = UNET_TARGETS

    def objective(self, scheduler: Mapping[str, Any], loss: Loss | None = None) -> Objective:
        return Diffusion.from_scheduler_config(scheduler, loss)

    def sampling_scheduler(self, scheduler: Mapping[str, Any], loss: Loss) -> Any:
        return diffusion_sampler(scheduler, loss)

    def text_encoder_class(self, part: str) -> Any:
        from transformers import CLIPTextModel

        return CLIPTextModel

    def token_ids(self, part: str, tokenizer: Any, encoder_config: Any, caption: str) -> Tensor:
        return clip_ids(tokenizer, encoder_config, caption)

    def encode(self, part: str, encoder: nn.Module, ids: Tensor) -> Conditioning:
        return {part: encoder(ids)[0]}

    def predict(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, given: Conditioning) -> Tensor:
        predicted: Tensor = denoiser(noisy, times, given["text_encoder"], return_dict=False)[0]
        return predicted


def diffusion_sampler(scheduler: Mapping[str, Any], loss: Loss) -> Any:
    """DDIM (Song et al. 2021) on the base's noise schedule; from pure noise where that is what is trained."""
    changes: dict[str, Any] = {"clip_sample": False}
    if loss.zero_terminal_snr:
        changes |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return DDIMScheduler.from_config({**scheduler, **changes})
