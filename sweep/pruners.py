"""Optuna's pruners by name."""

from typing import Any

import optuna
from optuna.pruners import BasePruner

from conf.errors import RequestError
from conf.schema import Pruner


def make_pruner(pruner: Pruner, first_step: int, max_steps: int) -> BasePruner:
    """The pruner of a cell; `sweep.pruner.parameters` are those of Optuna's class.

    Raises:
        RequestError: the pruner has no such parameter, or not this value of it.
    """
    kinds: dict[str, tuple[type[BasePruner], dict[str, Any]]] = {
        "none": (optuna.pruners.NopPruner, {}),
        "median": (optuna.pruners.MedianPruner, {"n_startup_trials": 3}),
        "asha": (optuna.pruners.SuccessiveHalvingPruner, {"min_resource": first_step}),
        "hyperband": (
            optuna.pruners.HyperbandPruner,
            {"min_resource": first_step, "max_resource": max_steps},
        ),
    }
    kind, defaults = kinds[pruner.name]
    try:
        return kind(**{**defaults, **pruner.parameters})
    except (TypeError, ValueError) as error:
        raise RequestError(f"sweep.pruner.parameters={pruner.parameters}: {pruner.name}: {error}") from error
