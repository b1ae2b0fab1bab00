"""budget=recommended: a study's answer for the matching cell becomes this run's configuration. No torch."""

from collections.abc import Mapping, Sequence
import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

from conf.errors import RequestError
from conf.schema import Config, Optimizer
from conf.validate import validate
from curves.recommendation import CellAnswer, matching_cell, nearest_cells, read_recommendation

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
    cells = _read_cells(config)
    cell = matching_cell(cells, identity)
    study = config.budget.study
    asked = f"{identity['method']}, {identity['images']} images, {identity['resolution']} px"
    asked += f", {config.base_model.name}"
    if cell is None:
        raise RequestError(
            f"budget.study={study}: no cell for {asked}; nearest: {_describe(cells, identity)}"
        )
    if cell.status != "ok" or cell.recommended_steps is None:
        others = [item for item in cells if item.status == "ok"]
        nearest = f"; nearest with an answer: {_describe(others, identity)}" if others else ""
        reason = f" ({cell.reason})" if cell.reason else ""
        raise RequestError(f"budget.study={study}: the cell {asked} is {cell.status}{reason}{nearest}")
    changed = copy.deepcopy(config)
    for name, value in cell.hyperparameters.items():
        key = HYPERPARAMETERS.get(name)
        if key is not None and (value is not None or key in NULLABLE):
            _set(changed, key, value)
    _divide_batch(changed, cell.hyperparameters.get("batch"), processes)
    changed.budget.max_steps = cell.recommended_steps
    validate(changed)
    return changed, cell


def _read_cells(config: Config) -> list[CellAnswer]:
    study = Path(config.budget.study or "").expanduser()
    try:
        return read_recommendation(study).cells
    except ValueError as error:
        raise RequestError(
            f"budget.study={config.budget.study}: no recommendation to read ({error}); "
            f"make one with: python -m analysis recommend {config.budget.study}"
        ) from error


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
