"""The weights that a run leaves, for people to hand on: an adapter file, or a folder that diffusers loads."""

from collections.abc import Mapping
from functools import partial
import json
from pathlib import Path
import shutil

from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch import Tensor

from conf.schema import Config
from curves.run_folder import RunFolder
from finetune.architecture import Architecture
from finetune.lora_files import check_lora, save_lora
from finetune.paths import replace_with
from finetune.plan import Plan
from finetune.trained import TrainedModel, is_adapted

Facts = Mapping[str, object]


def describe(plan: Plan, step: int, loss: float | None) -> dict[str, object]:
    """What is written beside the weights.

    Args:
        plan: of the run.
        step: that the weights are of.
        loss: held-out loss there, None where it is not known.
    """
    config = plan.config
    facts: dict[str, object] = {
        "base_model": config.base_model.path,
        "base_id": plan.base.base_id,
        "method": config.method.name,
        "steps": step,
        "resolution": plan.pixels,
        "training_images": len(plan.split.training),
        "dataset": plan.cell["dataset"],
    }
    if config.method.adapter == "lora":
        facts |= {"rank": config.method.rank, "alpha": config.method.alpha}
    if loss is not None:
        facts["panel_loss"] = f"{loss:.6f}"
    if plan.recommended is not None:
        facts |= {
            "recommended_by": config.budget.study,
            "recommended_steps": plan.horizon,
        }
    return facts


def save_result(model: TrainedModel, folder: RunFolder, kind: str, plan: Plan, facts: Facts) -> Path:
    """Write the trained weights as they are now.

    Args:
        model: with the weights to keep.
        folder: of the run.
        kind: best, last or recommended; the name of the file or folder.
        plan: of the run.
        facts: of `describe`.

    Returns:
        The file or folder written.
    """
    described = {key: str(value) for key, value in facts.items()}
    if plan.config.method.adapter != "lora":
        return _save_networks(model, folder, kind, described)
    tensors, configs = adapters(model)
    base = Architecture.of(plan.base.path)
    described["modelspec.title"] = f"{folder.path.name} {kind}"  # else it would be the temporary file's name
    for form in plan.config.checkpoints.formats:
        write = partial(save_lora, form=form, tensors=tensors, configs=configs, facts=described, base=base)
        replace_with(folder.adapter(kind, form), write)
    return folder.adapter(kind, plan.config.checkpoints.formats[0])


def check_formats(model: TrainedModel, config: Config) -> None:
    """Check before training that what trains can be written.

    Raises:
        RequestError: no program reads an adapter of this kind in a format that is asked for.
    """
    if config.method.adapter == "lora":
        for form in config.checkpoints.formats:
            check_lora(form, model.family.files.name, adapters(model)[1])


def adapters(model: TrainedModel) -> tuple[dict[str, Tensor], dict[str, LoraConfig]]:
    """The adapters' tensors, named component and layer as peft names them, and peft's configuration by component."""
    tensors, configs = {}, {}
    for component, module in model.components().items():
        if not is_adapted(module):
            continue
        configs[component] = module.peft_config["default"]  # type: ignore[index]
        for name, value in get_peft_model_state_dict(module, adapter_name="default").items():
            tensors[f"{component}.{name}"] = value
    return tensors, configs


def _save_networks(model: TrainedModel, folder: RunFolder, kind: str, facts: Mapping[str, str]) -> Path:
    """The whole trained networks in diffusers' layout; the folder appears when it is complete."""
    from transformers.utils import logging

    target, temporary = folder.model(kind), folder.path / f".{kind}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    logging.disable_progress_bar()
    for component, module in model.components().items():
        module.save_pretrained(temporary / component)  # type: ignore[operator]
    (temporary / "stepbudget.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    temporary.rename(target)
    return target
