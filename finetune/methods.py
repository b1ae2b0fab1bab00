"""What trains, by method: whole networks or low-rank adapters, of the denoiser and of text encoders."""

from typing import Any

from peft import LoraConfig
import torch
from torch import nn

from conf.schema import Config, Method
from finetune.backbone import Backbone
from finetune.randomness import torch_seed
from finetune.trained import TrainedModel, save_memory

TEXT_TARGETS = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "attention_ff": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "attention_ff_resnet": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def trained_text_encoders(backbone: Backbone, method: Method) -> tuple[str, ...]:
    """The text encoders that a method trains."""
    if method.text_encoder == "frozen":
        return ()
    return tuple(
        part for part in backbone.family.trainable_text_encoders() if part in backbone.files.text_encoders
    )


def make_trained_model(backbone: Backbone, config: Config) -> TrainedModel:
    """Load what trains, on the backbone's device and ready for training.

    Raises:
        RequestError: the files of the base model are damaged.
    """
    method, family = config.method, backbone.family
    denoiser = backbone.load_denoiser()
    make_trainable(
        denoiser, method.adapter, method, family.targets[method.targets or "attention"], config.seed
    )
    encoders = {}
    for part in trained_text_encoders(backbone, method):
        encoder = backbone.load_text_encoder(part)
        targets = TEXT_TARGETS[method.targets or "attention"]
        make_trainable(encoder, method.text_encoder, method, targets, config.seed, part)
        for layer in family.unused_text_layers(part, encoder):
            layer.requires_grad_(False)
        encoders[part] = encoder
    model = TrainedModel(family, denoiser, encoders)
    save_memory(model, config.memory)
    return model.to(backbone.device).train()


def make_trainable(
    module: nn.Module, how: str, method: Method, targets: Any, seed: int, part: str = ""
) -> None:
    """Choose the parameters of a network that train; an adapter starts as the identity, so step 0 is the base model.

    Args:
        module: changed in place.
        how: lora for an adapter, anything else for the whole network.
        method: of the configuration.
        targets: layers that the adapter is on.
        seed: of the adapter's start.
        part: tells the adapters of one run apart.
    """
    module.requires_grad_(how != "lora")
    if how != "lora":
        return
    config = lora_config(method, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed("adapter", *([part] if part else []), seed))
        module.add_adapter(config)  # type: ignore[operator]


def lora_config(method: Method, targets: Any) -> LoraConfig:
    """Low-rank adapters (Hu et al. 2021), optionally scaled by the root of the rank (Kalajdzievski 2023) or split in
    direction and magnitude (Liu et al. 2024)."""
    return LoraConfig(
        r=method.rank or 1,
        lora_alpha=method.alpha or 1,
        lora_dropout=method.dropout,
        use_rslora=method.rslora,
        use_dora=method.dora,
        init_lora_weights=True,
        target_modules=list(targets),
    )
