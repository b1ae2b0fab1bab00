"""Stable Diffusion 3 (Esser et al. 2024): a transformer on a rectified flow, told of two CLIPs and, mostly, a T5."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
import torch
from torch import Tensor, nn

from conf.schema import Loss
from finetune.families.base import ATTENTION, FEED_FORWARD, Conditioning, Family, clip_ids, penultimate
from finetune.families.files import STABLE_DIFFUSION_3
from finetune.objective import Flow, Objective

TEXT_ATTENTION = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
TEXT_FEED_FORWARD = ("ff_context.net.0.proj", "ff_context.net.2")
T5_TOKENS = 256  # as the pipeline's default
CLIP = ("text_encoder", "text_encoder_2")


class StableDiffusion3(Family):
    files = STABLE_DIFFUSION_3
    denoiser_class = SD3Transformer2DModel
    targets: ClassVar[Mapping[str, Sequence[str]]] = {
        "attention": (*ATTENTION, *TEXT_ATTENTION),
        "attention_ff": (*ATTENTION, *TEXT_ATTENTION, *FEED_FORWARD, *TEXT_FEED_FORWARD),
        # A transformer has no residual blocks of convolutions; this preset means all layers that there are.
        "attention_ff_resnet": (*ATTENTION, *TEXT_ATTENTION, *FEED_FORWARD, *TEXT_FEED_FORWARD),
    }

    def objective(self, scheduler: Mapping[str, Any], loss: Loss | None = None) -> Objective:
        return Flow.from_scheduler_config(scheduler, loss)

    def sampling_scheduler(self, scheduler: Mapping[str, Any], loss: Loss) -> Any:
        return FlowMatchEulerDiscreteScheduler.from_config(dict(scheduler))

    def text_encoder_class(self, part: str) -> Any:
        from transformers import CLIPTextModelWithProjection, T5EncoderModel

        return CLIPTextModelWithProjection if part in CLIP else T5EncoderModel

    def tokenizer_class(self, part: str) -> Any:
        from transformers import T5Tokenizer

        return super().tokenizer_class(part) if part in CLIP else T5Tokenizer

    def token_ids(self, part: str, tokenizer: Any, encoder_config: Any, caption: str) -> Tensor:
        if part in CLIP:
            return clip_ids(tokenizer, encoder_config, caption)
        ids: Tensor = tokenizer(
            [caption], padding="max_length", max_length=T5_TOKENS, truncation=True, return_tensors="pt"
        ).input_ids[0]
        return ids

    def encode(self, part: str, encoder: nn.Module, ids: Tensor) -> Conditioning:
        return penultimate(part, encoder, ids) if part in CLIP else {part: encoder(ids)[0]}

    def predict(self, denoiser: nn.Module, noisy: Tensor, times: Tensor, given: Conditioning) -> Tensor:
        clip = torch.cat([given[part] for part in CLIP], dim=-1)
        width = int(denoiser.config.joint_attention_dim)  # type: ignore[union-attr, arg-type]
        # Without a T5 the pipeline puts zeros in its place.
        t5 = given.get("text_encoder_3", clip.new_zeros(len(clip), T5_TOKENS, width))
        clip = torch.nn.functional.pad(clip, (0, width - clip.shape[-1]))
        predicted: Tensor = denoiser(
            hidden_states=noisy,
            timestep=times.expand(len(noisy)),
            encoder_hidden_states=torch.cat([clip, t5], dim=-2),
            pooled_projections=torch.cat([given[f"{part}.pooled"] for part in CLIP], dim=-1),
            return_dict=False,
        )[0]
        return predicted

    def trainable_text_encoders(self) -> tuple[str, ...]:
        return CLIP
