"""Random adapters and trained networks for the tiny pipelines, as files."""

import json
from pathlib import Path

from diffusers import DiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
import torch

from finetune.architecture import Architecture
from finetune.lora_files import save_lora

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


@torch.no_grad()
def make_adapter(
    base: Path,
    target: Path,
    seed: int = 1,
    form: str = "diffusers",
    text: bool = True,
    rank: int = 2,
    alpha: float = 3.0,
    dora: bool = False,
    dropout: float = 0.0,
) -> Path:
    """Write a random adapter on the denoiser of a pipeline and, with `text`, on its CLIP text encoders."""
    pipeline = DiffusionPipeline.from_pretrained(base)
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # an adapter's start is random too
    tensors, configs = {}, {}
    parts = ["unet", "transformer", *(["text_encoder", "text_encoder_2"] if text else [])]
    for part in parts:
        model = getattr(pipeline, part, None)
        if model is None:
            continue
        targets = ["q_proj", "v_proj"] if part.startswith("text") else ATTENTION
        config = LoraConfig(
            r=rank, lora_alpha=alpha, target_modules=targets, use_dora=dora, lora_dropout=dropout
        )
        model.add_adapter(config)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        configs[part] = model.peft_config["default"]
        tensors |= {f"{part}.{name}": value for name, value in get_peft_model_state_dict(model).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    architecture = Architecture.of(base)
    facts = {"base_model": str(base), "resolution": str(architecture.pixels), "steps": "7"}
    save_lora(target, form, tensors, configs, facts, architecture)
    return target


@torch.no_grad()
def make_networks(base: Path, target: Path) -> Path:
    """Write what training a denoiser leaves: other weights, and where they come from."""
    pipeline = DiffusionPipeline.from_pretrained(base)
    part = "unet" if hasattr(pipeline, "unet") else "transformer"
    generator = torch.Generator().manual_seed(5)
    for parameter in getattr(pipeline, part).parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    getattr(pipeline, part).save_pretrained(target / part)
    facts = {"base_model": str(base), "resolution": "32", "steps": "9"}
    (target / "stepbudget.json").write_text(json.dumps(facts), encoding="utf-8")
    return target
