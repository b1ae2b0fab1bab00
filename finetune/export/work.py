"""Writes weights in the form that somebody else's program loads."""

from collections.abc import Mapping
import json
from pathlib import Path
import shutil
import tempfile
from typing import Any
import uuid

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
import torch
from torch import Tensor

from conf.errors import RequestError
from finetune.architecture import Architecture
from finetune.base_files import BaseFiles
from finetune.export.options import ADAPTERS, FOLDER, KOHYA, Options
from finetune.lora_files import check_lora, save_lora
from finetune.paths import replace_with
from finetune.pipeline_folder import assemble, copy_part, link_part
from finetune.pipelines import adapted, add_lora, fuse, open_pipeline
from finetune.single_file_export import export_single_file
from finetune.weights import NETWORKS, Weights

ADAPTER = "exported"
OURS = (
    "modelspec.",
    "ss_",
    "sshs_",
    "lora_adapter_metadata",
    "format",
)  # metadata that the format itself decides


def export(options: Options, form: str, weights: Weights, base: BaseFiles) -> None:
    """Write the target, whole or not at all.

    Raises:
        RequestError: the weights do not fit the base model, or the format cannot hold them.
    """
    facts = {key: value for key, value in weights.facts.items() if not key.startswith(OURS)}
    with tempfile.TemporaryDirectory(prefix="stepbudget-") as name:
        work = Path(name)
        if form in ADAPTERS:
            _export_adapter(options.to, form, weights, base, facts, work)
            return
        networks = weights.path if weights.form == NETWORKS else None
        if options.fuse is not None:
            networks = _fused(weights, base, options.fuse, work)
            facts["fused_weight"] = f"{options.fuse:g}"
        if form == FOLDER:
            _export_folder(options.to, weights, base, networks, facts)
        else:
            assemble(base, networks, weights.zero_terminal_snr, work / "whole", link_part)
            export_single_file(work / "whole", options.to, facts)


def _export_folder(
    target: Path, weights: Weights, base: BaseFiles, networks: Path | None, facts: Mapping[str, str]
) -> None:
    """A pipeline folder that stands alone; it appears when it is complete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        assemble(base, networks, weights.zero_terminal_snr, temporary, copy_part)
        (temporary / "stepbudget.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fused(weights: Weights, base: BaseFiles, weight: float, work: Path) -> Path:
    """The networks that an adapter is on, with it in them, as a folder of trained networks."""
    networks = work / "fused"
    for part, module in fuse(_pipeline(weights, base, work), base, ADAPTER, weight).items():
        module.save_pretrained(networks / part)
    return networks


def _export_adapter(
    target: Path, form: str, weights: Weights, base: BaseFiles, facts: Mapping[str, str], work: Path
) -> None:
    architecture = Architecture.of(base.path)
    if form == KOHYA and architecture.family == "sd3":  # before gigabytes are loaded
        _check(form, architecture, {})
    pipeline = _pipeline(weights, base, work)
    tensors: dict[str, Tensor] = {}
    configs: dict[str, LoraConfig] = {}
    for part, module in adapted(pipeline, base).items():
        configs[part] = module.peft_config[ADAPTER]
        state = get_peft_model_state_dict(module, adapter_name=ADAPTER)
        if form == KOHYA:
            state = _evenly_scaled(module, state, configs[part])
        tensors |= {f"{part}.{name}": value for name, value in state.items()}
    _check(form, architecture, configs)
    named = {**facts, "modelspec.title": target.stem}  # else the title would be the temporary file's
    replace_with(target, lambda path: save_lora(path, form, tensors, configs, named, architecture))


def _pipeline(weights: Weights, base: BaseFiles, work: Path) -> Any:
    """The base model on the CPU with the adapter on it."""
    assemble(base, None, weights.zero_terminal_snr, work / "base", link_part)
    pipeline = open_pipeline(base, work / "base", torch.device("cpu"))
    add_lora(pipeline, base, weights, ADAPTER)
    return pipeline


def _evenly_scaled(
    module: torch.nn.Module, state: Mapping[str, Tensor], config: LoraConfig
) -> dict[str, Tensor]:
    """An adapter whose layers all have the scale that `config` gives; where a layer's own differs, in its weights."""
    even = dict(state)
    for name, layer in module.named_modules():
        if isinstance(layer, LoraLayer) and ADAPTER in layer.scaling:
            rank = layer.r[ADAPTER]
            ratio = layer.scaling[ADAPTER] / (config.lora_alpha / (rank**0.5 if config.use_rslora else rank))
            if ratio != 1:
                even[f"{name}.lora_B.weight"] = state[f"{name}.lora_B.weight"] * ratio
    return even


def _check(form: str, base: Architecture, configs: Mapping[str, LoraConfig]) -> None:
    """check_lora, whose complaints then name the option of this command."""
    try:
        check_lora(form, base.family, configs)
    except RequestError as error:
        raise RequestError(str(error).replace("method.format=", "--format=")) from error
