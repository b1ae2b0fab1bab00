"""Names and shapes of weights in the layout of the original implementations, which web UIs read, from diffusers'.

In the original UNet the blocks are flat: `input_blocks` counts conv_in, then for each level its residual blocks and
its downsampler; `output_blocks` counts one more residual block a level, whose last also holds the upsampler. Within a
block, module 0 is the residual block, 1 the attention (Rombach et al. 2022, openaimodel.py; the same in SDXL).
"""

from collections.abc import Mapping
import re

import torch
from torch import Tensor

from finetune.architecture import Architecture

Tensors = Mapping[str, Tensor]

UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_BLOCK = re.compile(
    r"(?:down_blocks\.(?P<down>\d+)|up_blocks\.(?P<up>\d+)|mid_block)"
    r"\.(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<layer>\d+)\.(?P<rest>.+)"
)
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# The older names of an autoencoder's attention are those that the files of many bases still hold.
VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
}
OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
SD3_ENDS = {
    "pos_embed.pos_embed": "pos_embed",
    "pos_embed.proj": "x_embedder.proj",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "context_embedder": "context_embedder",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
SD3_BLOCK = {
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
    "attn.to_out.0": "x_block.attn.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
}
SD3_JOINED = {  # three layers that the original computes as one
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
}


def unet_name(name: str, base: Architecture) -> str:
    """The original name of a module or parameter of a UNet.

    Raises:
        KeyError: the original UNet has no such part.
    """
    match = UNET_BLOCK.fullmatch(name)
    if match is None:
        return _renamed(name, UNET_ENDS)
    kind, layer, rest = match["kind"], int(match["layer"]), match["rest"]
    row = base.layers_per_block + 1
    if match["down"] is not None:
        index = 1 + int(match["down"]) * row + (base.layers_per_block if kind == "downsamplers" else layer)
        block = f"input_blocks.{index}"
    elif match["up"] is not None:
        index = int(match["up"]) * row + (base.layers_per_block if kind == "upsamplers" else layer)
        block = f"output_blocks.{index}"
    else:
        return f"middle_block.{2 * layer + (kind == 'attentions')}.{_inside(kind, rest)}"
    module = 0 if kind in ("resnets", "downsamplers") else 1
    if kind == "upsamplers" and base.attention[int(match["up"])]:
        module = 2
    return f"{block}.{module}.{_inside(kind, rest)}"


def vae_weight(name: str, value: Tensor, base: Architecture) -> tuple[str, Tensor]:
    """The original name and value of a parameter of an autoencoder, whose attention is of 1x1 convolutions."""
    name = re.sub(r"mid_block\.resnets\.(\d+)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    last = base.vae_blocks - 1
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda found: f"up.{last - int(found[1])}.block.", name)
    name = re.sub(
        r"up_blocks\.(\d+)\.upsamplers\.0", lambda found: f"up.{last - int(found[1])}.upsample", name
    )
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    head, attention, tail = name.partition("mid_block.attentions.0.")
    if not attention:
        return name, value
    return f"{head}mid.attn_1.{_renamed(tail, VAE_ATTENTION)}", value[
        :, :, None, None
    ] if value.ndim == 2 else value


def clip_name(name: str) -> str:
    """The name of a CLIP text encoder's parameter as it is in files; transformers 5.6 left `text_model.` out."""
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def open_clip_weights(tensors: Tensors) -> dict[str, Tensor]:
    """The parameters of a CLIP text encoder under OpenCLIP's names, with query, key and value as one matrix."""
    short = {clip_name(name).removeprefix("text_model."): value for name, value in tensors.items()}
    weights = {}
    for name, value in short.items():
        match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)", name)
        if name == "embeddings.position_ids":  # a constant, in files of older versions
            continue
        if name == "text_projection.weight":
            weights["text_projection"] = value.T.contiguous()
        elif match is None:
            weights[_renamed(name, OPEN_CLIP_ENDS)] = value
        elif (joined := re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", match[2])) is None:
            weights[f"transformer.resblocks.{match[1]}.{_renamed(match[2], OPEN_CLIP_LAYER)}"] = value
        elif joined[1] == "q":
            parts = [short[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            weights[f"transformer.resblocks.{match[1]}.attn.in_proj_{joined[2]}"] = torch.cat(parts)
    return weights


def sd3_weights(tensors: Tensors) -> dict[str, Tensor]:
    """The parameters of a Stable Diffusion 3 transformer under the original names (Esser et al. 2024).

    The original joins query, key and value, and its last modulations are (shift, scale) where diffusers' are
    (scale, shift).
    """
    blocks = sorted({int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks.")})
    swapped = (f"transformer_blocks.{blocks[-1]}.norm1_context.linear.", "norm_out.linear.")
    joined = {part: (whole, parts) for whole, parts in SD3_JOINED.items() for part in parts}
    weights = {}
    for name, value in tensors.items():
        if name.startswith(swapped):
            value = torch.cat(value.chunk(2)[::-1])
        match = re.fullmatch(r"transformer_blocks\.(\d+)\.(.+)", name)
        if match is None:
            weights[_renamed(name, SD3_ENDS)] = value
            continue
        module, _, kind = match[2].rpartition(".")
        if module not in joined:
            weights[f"joint_blocks.{match[1]}.{_renamed(match[2], SD3_BLOCK)}"] = value
        elif module == joined[module][1][0]:
            parts = [tensors[f"transformer_blocks.{match[1]}.{part}.{kind}"] for part in joined[module][1]]
            weights[f"joint_blocks.{match[1]}.{joined[module][0]}.{kind}"] = torch.cat(parts)
    return weights


def _inside(kind: str, rest: str) -> str:
    """The name within a block."""
    if kind == "resnets":
        return _renamed(rest, RESNET)
    return _renamed(rest, {"conv": "op"}) if kind == "downsamplers" else rest


def _renamed(name: str, table: Mapping[str, str]) -> str:
    """The name with its leading modules replaced.

    Raises:
        KeyError: the table has none of them.
    """
    for ours, theirs in table.items():
        if name == ours or name.startswith(f"{ours}."):
            return theirs + name[len(ours) :]
    raise KeyError(name)
