"""budget=recommended: a study's answer for the matching cell becomes this run's configuration. No torch."""

from collections.abc import Mapping, Sequence
import copy
from dataclasses import fields
import math
from pathlib import Path
import re
from typing import Any

from conf.compose import options
from conf.errors import RequestError
from conf.schema import Config, Optimizer
from conf.validate import validate
from curves.law import LARGEST_FACTOR, Scaling, exponent_for
from curves.recommendation import (
    CellAnswer,
    Recommendation,
    matching_cell,
    nearest_cells,
    read_recommendation,
)

# Name in run.json and recommendation.json -> key of the configuration.
HYPERPARAMETERS = {
    "lr": "optimizer.lr",
    "optimizer": "optimizer.name",
    "batch_size": "optimizer.batch_size",
    "accumulation": "optimizer.accumulation",
    "schedule": "optimizer.schedule",
    "warmup_steps": "optimizer.warmup_steps",
    "decay_share": "optimizer.decay_share",
    "text_encoder_lr": "optimizer.text_encoder_lr",
    "weight_decay": "optimizer.weight_decay",
    "beta1": "optimizer.beta1",
    "beta2": "optimizer.beta2",
    "epsilon": "optimizer.epsilon",
    "d_coef": "optimizer.d_coef",
    "max_grad_norm": "optimizer.max_grad_norm",
    "ema_decay": "optimizer.ema_decay",
    "caption_dropout": "captions.dropout",
    "rank": "method.rank",
    "alpha": "method.alpha",
    "dropout": "method.dropout",
    "targets": "method.targets",
    "rslora": "method.rslora",
    "dora": "method.dora",
    "text_encoder": "method.text_encoder",
    "prior_weight": "method.prior_weight",
    "prior_images": "method.prior_images",
    "snr_gamma": "loss.snr_gamma",
    "noise_offset": "loss.noise_offset",
    "zero_terminal_snr": "loss.zero_terminal_snr",
    "timesteps": "loss.timesteps",
    "flip": "augmentation.flip",
    "crops": "augmentation.crops",
    "buckets": "resolution.buckets",
    "horizon": "budget.horizon",
}
ADAPTER_ONLY = ("rank", "alpha", "dropout", "targets", "rslora", "dora")
# Null is a value of these: the optimizer of the study may not have them, or the study did without.
NULLABLE = {
    *(f"optimizer.{item.name}" for item in fields(Optimizer) if item.default is None),
    "method.prior_weight",
    "loss.snr_gamma",
}


def hyperparameters(config: Config, processes: int) -> dict[str, Any]:
    """What run.json says of a run's hyperparameters; `batch` is images an update, over all processes."""
    values = {name: _get(config, key) for name, key in HYPERPARAMETERS.items() if name != "horizon"}
    if config.method.adapter == "none":
        values = {name: value for name, value in values.items() if name not in ADAPTER_ONLY}
    if config.optimizer.schedule != "constant":
        # A decaying schedule that is cut short is another one than a schedule of fewer steps.
        values["horizon"] = config.budget.horizon or config.budget.max_steps
    if config.optimizer.schedule != "warmup_stable_decay":
        del values["decay_share"]
    values["batch"] = config.optimizer.batch_size * config.optimizer.accumulation * processes
    return values


def refuse_overrides(overrides: Sequence[str]) -> None:
    """Refuse command-line overrides of what budget=recommended sets.

    Raises:
        RequestError: naming the key.
    """
    decided = {*HYPERPARAMETERS.values(), "budget.max_steps", "optimizer"}
    for item in overrides:
        key = item.split("=", 1)[0].lstrip("+~").split("@")[0]
        if key in decided:
            raise RequestError(
                f"{key} is set by budget=recommended: drop {item}, or use budget=fixed and set the steps too"
            )


def apply_recommendation(
    config: Config, identity: Mapping[str, Any], processes: int
) -> tuple[Config, CellAnswer]:
    """The configuration with the recommended steps and hyperparameters of the cell that equals `identity`.

    Args:
        config: with budget.study.
        identity: values of curves.recommendation.IDENTITY.
        processes: that the run's batch is divided among.

    Raises:
        RequestError: there is no recommendation, no matching cell, or its status is not ok.
    """
    cells = _read_study(config).cells
    cell = matching_cell(cells, identity)
    if cell is None:
        raise RequestError(_no_cell(config, cells, identity))
    if cell.status != "ok" or cell.recommended_steps is None:
        raise RequestError(_no_answer(config, cells, cell, identity))
    return _configured(config, cell, processes), cell


def apply_to_all_images(
    config: Config, identity: Mapping[str, Any], processes: int
) -> tuple[Config, CellAnswer, Scaling]:
    """The configuration that trains on every image, the held-out ones too, for the budget of the largest measured cell.

    Its steps, and the horizon of a decaying schedule, grow as the images to the power of the study's law (docs/method.md,
    section 6). Nothing is left to measure on.

    Args:
        config: with budget.study and no number of images.
        identity: values of curves.recommendation.IDENTITY; `images` are all of the folder.
        processes: that the run's batch is divided among.

    Raises:
        RequestError: no cell with an answer is like it, or none has half of its images; or something needs held-out
            images.
    """
    _refuse_held_out(config)
    study = _read_study(config)
    images = int(identity["images"])
    measured = [cell for cell in study.cells if cell.source == "runs"]
    like = [cell for cell in measured if matching_cell([cell], {**identity, "images": cell.images})]
    like = sorted(
        (cell for cell in like if cell.images is not None and cell.images <= images),
        key=lambda cell: cell.images or 0,
    )
    if not like:
        raise RequestError(_no_cell(config, study.cells, identity))
    answered = [cell for cell in like if cell.status == "ok" and cell.recommended_steps is not None]
    if not answered:
        raise RequestError(_no_answer(config, study.cells, like[-1], {**identity, "images": like[-1].images}))
    cell = answered[-1]
    assert cell.images is not None
    if images > LARGEST_FACTOR * cell.images:
        least = math.ceil(images / LARGEST_FACTOR)
        raise RequestError(
            f"budget.study={config.budget.study}: its largest cell with an answer, {cell.label()}, cannot be scaled to "
            f"{images} images, only to {LARGEST_FACTOR:g} times its own: sweep one of {least} images or more, "
            f"for example sweep.factors.dataset_size=[{_size_option(least, images)}]"
        )
    assert cell.recommended_steps is not None
    scaling = Scaling(cell.images, cell.recommended_steps, exponent_for(study.law, identity))
    changed = copy.deepcopy(config)
    changed.evaluation.enabled = False
    changed.checkpoints.final = "last"
    return _configured(changed, cell, processes, scaling.factor(images)), cell, scaling


def _read_study(config: Config) -> Recommendation:
    study = Path(config.budget.study or "").expanduser()
    try:
        return read_recommendation(study)
    except ValueError as error:
        raise RequestError(
            f"budget.study={config.budget.study}: no recommendation to read ({error}); "
            f"make one with: python -m analysis recommend {config.budget.study}"
        ) from error


def _configured(config: Config, cell: CellAnswer, processes: int, factor: float = 1.0) -> Config:
    """The configuration with a cell's hyperparameters, and its steps and horizon times a factor."""
    changed = copy.deepcopy(config)
    for name, value in cell.hyperparameters.items():
        key = HYPERPARAMETERS.get(name)
        if key is not None and (value is not None or key in NULLABLE):
            _set(changed, key, value)
    _divide_batch(changed, cell.hyperparameters.get("batch"), processes)
    assert cell.recommended_steps is not None
    changed.budget.max_steps = max(1, round(cell.recommended_steps * factor))
    if changed.budget.horizon is not None:
        changed.budget.horizon = round(changed.budget.horizon * factor)
    validate(changed)
    return changed


def _refuse_held_out(config: Config) -> None:
    """Refuse what needs images that are not trained on."""
    remedy = "trains on every image and leaves none to measure on"
    if config.stopping.name != "none":
        raise RequestError(
            f"stopping={config.stopping.name}: dataset_size=all budget=recommended {remedy}: use stopping=none, or a "
            "dataset_size of fewer images"
        )
    if config.dataset.fold is not None:
        raise RequestError(
            f"dataset.fold={config.dataset.fold}: dataset_size=all budget=recommended {remedy}: drop it"
        )


def _no_cell(config: Config, cells: Sequence[CellAnswer], identity: Mapping[str, Any]) -> str:
    asked = _asked(config, identity)
    return f"budget.study={config.budget.study}: no cell for {asked}; nearest: {_describe(cells, identity)}"


def _no_answer(
    config: Config, cells: Sequence[CellAnswer], cell: CellAnswer, identity: Mapping[str, Any]
) -> str:
    others = [item for item in cells if item.status == "ok"]
    nearest = f"; nearest with an answer: {_describe(others, identity)}" if others else ""
    reason = f" ({cell.reason})" if cell.reason else ""
    asked = _asked(config, identity)
    return f"budget.study={config.budget.study}: the cell {asked} is {cell.status}{reason}{nearest}"


def _asked(config: Config, identity: Mapping[str, Any]) -> str:
    level = f"{identity['method']}, {identity['images']} images, {identity['resolution']} px"
    return f"{level}, {config.base_model.name}"


def _size_option(least: int, images: int) -> str:
    """The dataset size of so many images or a few more that leaves some to hold out."""
    numbered = [int(name[1:]) for name in options("dataset_size") if re.fullmatch(r"n\d+", name)]
    fitting = [number for number in sorted(numbered) if least <= number < images]
    return f"n{fitting[0]}" if fitting else "all"


def _describe(cells: Sequence[CellAnswer], identity: Mapping[str, Any]) -> str:
    """The nearest cells in words, each with what differs beyond the words."""
    described = []
    for cell in nearest_cells(cells, identity):
        hidden = [
            name for name in ("dataset", "captions", "base_id") if getattr(cell, name) != identity[name]
        ]
        words = {
            "dataset": "other images or captions",
            "captions": "other captions option",
            "base_id": "other base weights",
        }
        note = "; ".join([cell.status, *(words[name] for name in hidden)])
        described.append(f"[{cell.label()}: {note}]")
    return " ".join(described) or "none, the study has no cell"


def _divide_batch(config: Config, batch: object, processes: int) -> None:
    """Keep the images an update when the number of processes differs from the study's."""
    optimizer = config.optimizer
    if not isinstance(batch, int) or optimizer.batch_size * optimizer.accumulation * processes == batch:
        return
    shares = optimizer.accumulation * processes
    if batch % shares:
        optimizer.accumulation, shares = 1, processes
    if batch % shares:
        raise RequestError(
            f"budget=recommended: a batch of {batch} images cannot be divided among {processes} processes; "
            f"launch a number of processes that divides {batch}"
        )
    optimizer.batch_size = batch // shares


def _get(config: Config, key: str) -> Any:
    group, name = key.split(".")
    return getattr(getattr(config, group), name)


def _set(config: Config, key: str, value: Any) -> None:
    group, name = key.split(".")
    setattr(getattr(config, group), name, value)
