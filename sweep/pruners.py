"""Optuna's pruners by name, and the shared grid of steps at which they compare trials."""

from collections.abc import Callable, Mapping, Sequence
import inspect
from typing import Any
import warnings

import optuna
from optuna.pruners import BasePruner

from conf.errors import RequestError
from conf.schema import Config, Pruner
from curves.grid import evaluation_steps

_KINDS: dict[str, Callable[..., BasePruner]] = {
    "none": optuna.pruners.NopPruner,
    "median": optuna.pruners.MedianPruner,
    "percentile": optuna.pruners.PercentilePruner,
    "asha": optuna.pruners.SuccessiveHalvingPruner,
    "hyperband": optuna.pruners.HyperbandPruner,
    "patient": optuna.pruners.PatientPruner,
    "threshold": optuna.pruners.ThresholdPruner,
    "wilcoxon": optuna.pruners.WilcoxonPruner,
}
_WRAPPED = "wrapped_pruner"  # of `patient`: the name of the pruner that it holds back, with its defaults


def make_pruner(pruner: Pruner, first_step: int, max_steps: int) -> BasePruner:
    """The pruner of a cell; `sweep.pruner.parameters` are those of Optuna's class.

    Raises:
        RequestError: the pruner has no such parameter, or not this value of it.
    """
    given = {**_defaults(pruner.name, first_step, max_steps), **pruner.parameters}
    _check_names(pruner)
    key = f"sweep.pruner.parameters={pruner.parameters}"
    if pruner.name == "patient" and given[_WRAPPED] is not None:
        given[_WRAPPED] = _wrapped(given[_WRAPPED], first_step, max_steps)
    if pruner.name == "hyperband":
        _check_hyperband(given, key)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return _KINDS[pruner.name](**given)
    except (TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise RequestError(
            f"{key}: {pruner.name}: {reason}: set it with sweep.pruner.parameters.NAME=VALUE"
        ) from error


def shared_grid(config: Config) -> list[int]:
    """The steps at which the trials of a cell are compared: those of its configured evaluations."""
    evaluation = config.evaluation
    return evaluation_steps(evaluation.first_step, evaluation.ratio, config.budget.max_steps or 1)


def on_grid(losses: Mapping[int, float], grid: Sequence[int]) -> dict[int, float]:
    """Held-out losses at the steps of a shared grid, so that runs evaluated elsewhere can be compared.

    Between two evaluations the loss is interpolated linearly; a step that is not yet between two has no value.
    """
    evaluated = sorted(losses)
    values: dict[int, float] = {}
    after = 0
    for step in grid:
        while after < len(evaluated) and evaluated[after] < step:
            after += 1
        if after == len(evaluated):
            break
        high = evaluated[after]
        if high == step:
            values[step] = losses[step]
        elif after > 0:
            low = evaluated[after - 1]
            share = (step - low) / (high - low)
            values[step] = (1 - share) * losses[low] + share * losses[high]
    return values


def _defaults(name: str, first_step: int, max_steps: int) -> dict[str, Any]:
    first_step = min(first_step, max_steps)
    known: dict[str, dict[str, Any]] = {
        "median": {"n_startup_trials": 3},
        "percentile": {"n_startup_trials": 3, "percentile": 25.0},
        "asha": {"min_resource": first_step},
        "hyperband": {"min_resource": first_step, "max_resource": max_steps, "reduction_factor": 3},
        "patient": {_WRAPPED: "median", "patience": 2},
    }
    return known.get(name, {})


def _check_names(pruner: Pruner) -> None:
    valid = [
        name for name in inspect.signature(_KINDS[pruner.name]).parameters if name not in ("args", "kwargs")
    ]
    for name, value in pruner.parameters.items():
        if name not in valid:
            names = f"valid are {', '.join(valid)}" if valid else "it has none"
            raise RequestError(
                f"sweep.pruner.parameters.{name}={value}: {pruner.name} has no such parameter; {names}"
            )


def _wrapped(name: object, first_step: int, max_steps: int) -> BasePruner:
    valid = ("median", "percentile", "asha", "hyperband", "wilcoxon")
    if name not in valid:
        raise RequestError(
            f"sweep.pruner.parameters.{_WRAPPED}={name}: must be null or one of {', '.join(valid)}"
        )
    return make_pruner(Pruner(str(name)), first_step, max_steps)


def _check_hyperband(given: Mapping[str, Any], key: str) -> None:
    """Optuna fails on these only once a trial reports."""
    low, high, factor = given["min_resource"], given["max_resource"], given["reduction_factor"]
    if not isinstance(low, int) or low < 1:
        raise RequestError(f"{key}: hyperband: min_resource={low}: must be a whole number of 1 or more steps")
    if not isinstance(factor, int) or factor < 2:
        raise RequestError(
            f"{key}: hyperband: reduction_factor={factor}: must be a whole number of 2 or more"
        )
    if high != "auto" and (not isinstance(high, int) or high < low):
        raise RequestError(
            f"{key}: hyperband: max_resource={high}: must be auto or at least min_resource={low}"
        )
