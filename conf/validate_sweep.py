"""What a sweep searches and how: ranges, samplers and pruners that types alone cannot express."""

from collections.abc import Sequence
from decimal import Decimal
import functools
import itertools
import json
import math
from pathlib import Path
import re
from typing import Any, NoReturn

import yaml

from conf.errors import RequestError
from conf.schema import Space, SpaceParameter, Sweep
from conf.secrets import redact_text

SPACES = Path(__file__).resolve().parent / "space"
DESIGNS = ("even", "adaptive")
SAMPLERS = ("tpe", "gp", "cmaes", "qmc", "random", "grid", "nsga2")
PRUNERS = ("none", "median", "percentile", "asha", "hyperband", "patient", "threshold", "wilcoxon")
LOSS = "held_out_loss"
COSTS = ("steps", "seconds", "images")
LARGEST_WHOLE = 2**53  # up to which a float holds every whole number


def validate_sweep(sweep: Sweep) -> None:
    """Check design, sampler, pruner and objectives.

    Raises:
        RequestError: for the first that is unknown or does not fit another.
    """
    if sweep.trials < 1:
        raise RequestError(f"sweep.trials={sweep.trials}: must be 1 or more")
    if sweep.storage is not None and not re.match(r"postgres(ql(\+\w+)?)?://", sweep.storage):
        raise RequestError(
            f"sweep.storage={redact_text(sweep.storage)}: must be postgresql://USER@HOST/DATABASE, or null for a "
            "journal in the study's folder"
        )
    _check_cooldown(sweep)
    _one_of("sweep.sampler.name", sweep.sampler.name, SAMPLERS)
    _one_of("sweep.pruner.name", sweep.pruner.name, PRUNERS)
    shown = f"sweep.objectives=[{', '.join(sweep.objectives)}]"
    if sweep.objectives[:1] != [LOSS] or sweep.objectives[1:] not in ([], *([cost] for cost in COSTS)):
        raise RequestError(
            f"{shown}: must be [{LOSS}], or [{LOSS}, COST] with one of {', '.join(COSTS)} for COST"
        )
    if len(sweep.objectives) > 1 and sweep.pruner.name != "none":
        raise RequestError(
            f"sweep.pruner.name={sweep.pruner.name}: several objectives cannot be pruned: "
            f"set sweep.pruner.name=none, or sweep.objectives=[{LOSS}]"
        )
    _check_design(sweep)
    if sweep.sampler.name == "cmaes" and len(sweep.objectives) > 1:
        raise RequestError(
            f"{shown}: sweep.sampler.name=cmaes takes one objective: set sweep.sampler.name=nsga2, or "
            f"sweep.objectives=[{LOSS}]"
        )
    if sweep.sampler.name == "grid" and sweep.start_from is not None:
        raise RequestError(
            f"sweep.start_from={sweep.start_from}: sweep.sampler.name=grid tries every point in its order: "
            "leave sweep.start_from out, or take another sampler"
        )
    if sweep.sampler.name == "nsga2" and len(sweep.objectives) == 1:
        raise RequestError(
            f"sweep.sampler.name=nsga2: is for two objectives: set sweep.objectives=[{LOSS},steps], or "
            "sweep.sampler.name=tpe"
        )


def _check_design(sweep: Sweep) -> None:
    _one_of("sweep.design", sweep.design, DESIGNS)
    if not 1 < sweep.narrow_enough < math.inf:
        raise RequestError(
            f"sweep.narrow_enough={sweep.narrow_enough:g}: is high/low of the minimum's interval: must be above 1, as 2.0"
        )
    if sweep.least_trials < 1:
        raise RequestError(f"sweep.least_trials={sweep.least_trials}: must be 1 or more")
    if sweep.design == "adaptive" and sweep.folds:
        raise RequestError(
            "sweep.design=adaptive: a fold alone has no interval: use sweep.design=even with sweep.folds=true"
        )
    if sweep.design == "adaptive" and sweep.start_from == "neighbours":
        raise RequestError(
            "sweep.design=adaptive: sweep.start_from=neighbours completes the cells one by one: leave it out, or use "
            "sweep.design=even"
        )


def _check_cooldown(sweep: Sweep) -> None:
    """Budgets that rise, and a way of searching that does not take a trunk and its branches for rivals."""
    cooldown = sweep.cooldown
    if cooldown.branches < 0:
        raise RequestError(f"sweep.cooldown.branches={cooldown.branches}: must be 0 (none) or more")
    if not 1 < cooldown.ratio < math.inf:
        raise RequestError(f"sweep.cooldown.ratio={cooldown.ratio:g}: must be above 1: budgets rise by it")
    if not 0 < cooldown.decay_share <= 1:
        raise RequestError(f"sweep.cooldown.decay_share={cooldown.decay_share:g}: must lie in (0, 1]")
    shown = f"sweep.cooldown.budgets=[{', '.join(map(str, cooldown.budgets))}]"
    if any(now <= before for before, now in itertools.pairwise([0, *cooldown.budgets])):
        raise RequestError(f"{shown}: must rise from 1 on: give steps such as [90, 128, 181, 256]")
    if not (cooldown.branches or cooldown.budgets):
        return
    for key, value, wanted in (
        ("sweep.folds", str(sweep.folds).lower(), "false"),
        ("sweep.pruner.name", sweep.pruner.name, "none"),
        ("sweep.design", sweep.design, "even"),
    ):
        if value != wanted:
            raise RequestError(f"{key}={value}: does not go with sweep.cooldown: set {key}={wanted}")
    if sweep.sampler.name not in ("qmc", "random", "grid"):
        raise RequestError(
            f"sweep.sampler.name={sweep.sampler.name}: would take a trunk and its branches for rivals: use qmc, random "
            "or grid with sweep.cooldown"
        )


def validate_space(space: Space) -> None:
    """Check that every parameter has choices, or a range that can be drawn from.

    Raises:
        RequestError: naming the file and the key of the first mistake.
    """
    for index, parameter in enumerate(space.parameters):
        _check_parameter(parameter, space_key(space, f"parameters[{index}]"))


def space_key(space: Space, key: str) -> str:
    """A key of the space as its user finds it: in the yaml file where it stands there, else in the overrides."""
    path = SPACES / f"{space.name}.yaml"
    return f"conf/space/{space.name}.yaml: {key}" if _declares(path, space) else f"space.{key}"


def _declares(path: Path, space: Space) -> bool:
    """Whether a file declares the parameters, constraints and points of a space."""
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
        names = [item["name"] for item in content.get("parameters") or []]
    except (OSError, ValueError, AttributeError, KeyError, TypeError, yaml.YAMLError):
        return False
    return (
        names == [item.name for item in space.parameters]
        and (content.get("constraints") or []) == space.constraints
        and (content.get("points") or []) == space.points
    )


@functools.lru_cache(maxsize=4)
def _parsed(text: str) -> Any:
    """A yaml file's content; the same file is asked for once for each of its keys."""
    return yaml.safe_load(text)


def _check_parameter(parameter: SpaceParameter, key: str) -> None:
    if parameter.choices is not None:
        _check_choices(parameter, key)
        return
    for name, bound in (("low", parameter.low), ("high", parameter.high)):
        if bound is None or not math.isfinite(bound):
            _refuse(parameter, f"{key}.{name}", bound, "needs finite bounds low and high, or choices")
        if parameter.integer and not bound.is_integer():
            _refuse(parameter, f"{key}.{name}", bound, "an integer range has whole bounds")
        if parameter.integer and abs(bound) > LARGEST_WHOLE:
            _refuse(parameter, f"{key}.{name}", bound, f"an integer range lies within {LARGEST_WHOLE} of 0")
    assert parameter.low is not None and parameter.high is not None
    if not parameter.low <= parameter.high:
        _refuse(parameter, f"{key}.low", parameter.low, f"must be at most high={parameter.high:g}")
    if not math.isfinite(parameter.high - parameter.low):
        _refuse(
            parameter,
            f"{key}.high",
            parameter.high,
            f"is too far from low={parameter.low:g}: narrow the range",
        )
    if parameter.log and not parameter.low > 0:
        _refuse(parameter, f"{key}.low", parameter.low, "a log range starts above 0")
    if parameter.step is not None:
        _check_step(parameter, parameter.step, key)


def _check_choices(parameter: SpaceParameter, key: str) -> None:
    choices = parameter.choices or []
    if not choices:
        _refuse(parameter, f"{key}.choices", "[]", "give at least one choice")
    given = [name for name in ("low", "high", "step") if getattr(parameter, name) is not None]
    if given or parameter.log or parameter.integer:
        name = (given or [name for name in ("log", "integer") if getattr(parameter, name)])[0]
        _refuse(
            parameter,
            f"{key}.{name}",
            getattr(parameter, name),
            "belongs to a range: drop it, or drop the choices",
        )
    for index, item in enumerate(choices):
        if item is not None and not isinstance(item, bool | int | float | str):
            _refuse(
                parameter,
                f"{key}.choices[{index}]",
                item,
                f"is a {type(item).__name__}: only plain values are searched",
            )
        if isinstance(item, float) and math.isnan(item):
            _refuse(parameter, f"{key}.choices[{index}]", item, "is no number: give one that is")
        if item in choices[:index]:
            _refuse(parameter, f"{key}.choices[{index}]", item, "stands there twice: drop one of the two")


def _check_step(parameter: SpaceParameter, step: float, key: str) -> None:
    assert parameter.low is not None and parameter.high is not None
    if not 0 < step < math.inf:
        _refuse(parameter, f"{key}.step", step, "must be a positive number")
    if parameter.log:
        _refuse(parameter, f"{key}.step", step, "a log range has no steps: set log=false, or give choices")
    if parameter.integer and not step.is_integer():
        _refuse(parameter, f"{key}.step", step, "an integer range has a whole step")
    low, high, width = (Decimal(str(value)) for value in (parameter.low, parameter.high, step))
    count = (high - low) / width
    if count > LARGEST_WHOLE:
        _refuse(parameter, f"{key}.step", step, "is too small for the range: take a larger one, or none")
    if count != int(count):
        below = low + int(count) * width
        _refuse(
            parameter,
            f"{key}.high",
            parameter.high,
            f"is not low + a multiple of step: take {below} or {below + width}",
        )


def _refuse(parameter: SpaceParameter, key: str, value: object, remedy: str) -> NoReturn:
    shown = json.dumps(value) if value is None or isinstance(value, bool) else value
    raise RequestError(f"{key}={shown}: {parameter.name}: {remedy}")


def _one_of(key: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise RequestError(f"{key}={value}: must be one of {', '.join(valid)}")
