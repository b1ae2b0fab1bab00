"""What trains: the whole UNet, or a low-rank adapter on it. Both leave weights that diffusers loads."""

from collections.abc import Mapping
import json
from pathlib import Path
import shutil

from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
import torch
from torch import Tensor

from conf.schema import Method
from curves.run_folder import RunFolder
from finetune.paths import replace_with
from finetune.randomness import torch_seed

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
FEED_FORWARD = ["proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
RESNET = ["conv1", "conv2", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv"]
TARGETS = {
    "attention": ATTENTION,
    "attention_ff": ATTENTION + FEED_FORWARD,
    "attention_ff_resnet": ATTENTION + FEED_FORWARD + RESNET,
}


def make_trainable(unet: UNet2DConditionModel, method: Method, seed: int) -> None:
    """Choose the parameters that train; an adapter starts as the identity, so step 0 is the base model.

    Args:
        unet: changed in place.
        method: of the configuration.
        seed: of the adapter's start.
    """
    unet.requires_grad_(method.adapter == "none")
    if method.adapter == "none":
        return
    config = LoraConfig(
        r=method.rank or 1,
        lora_alpha=method.alpha or 1,
        lora_dropout=method.dropout,
        init_lora_weights=True,
        target_modules=TARGETS[method.targets or "attention"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed("adapter", seed))
        unet.add_adapter(config)


def trainable_parameters(unet: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that train, by name, in a fixed order."""
    return {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}


def copy_weights(unet: torch.nn.Module) -> dict[str, Tensor]:
    """The trained weights as they are now, copied to the CPU."""
    return {name: value.detach().cpu().clone() for name, value in trainable_parameters(unet).items()}


@torch.no_grad()
def load_weights(unet: torch.nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Put copied weights back."""
    for name, parameter in trainable_parameters(unet).items():
        parameter.copy_(weights[name])


def save_result(
    unet: UNet2DConditionModel, method: Method, folder: RunFolder, facts: Mapping[str, object]
) -> Path:
    """Write adapter.safetensors (peft layout, loaded by `pipeline.load_lora_weights`) or model/unet.

    Args:
        unet: with the weights to keep.
        method: of the configuration.
        folder: of the run.
        facts: base, steps and the like, written beside the weights.

    Returns:
        The file or folder written.
    """
    described = {key: str(value) for key, value in facts.items()}
    if method.adapter == "lora":
        replace_with(folder.adapter, lambda target: _save_adapter(unet, target, described))
        return folder.adapter
    temporary = folder.path / ".model.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    unet.save_pretrained(temporary / "unet")
    (temporary / "stepbudget.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder.model, ignore_errors=True)
    temporary.rename(folder.model)
    return folder.model


def _save_adapter(unet: UNet2DConditionModel, target: Path, facts: Mapping[str, str]) -> None:
    """The adapter's tensors with its peft configuration in the metadata, from which diffusers takes alpha."""
    tensors = {
        f"unet.{name}": value.contiguous().cpu() for name, value in get_peft_model_state_dict(unet).items()
    }
    config = unet.peft_config["default"].to_dict()
    plain = {
        f"unet.{key}": sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(plain, sort_keys=True, default=str),
        **facts,
    }
    save_file(tensors, target, metadata=metadata)
