"""The search space of a cell: which parameters it has, and a sampled value as overrides."""

from collections.abc import Mapping, Sequence
from typing import Any

from conf.compose import groups, known_keys, options
from conf.errors import RequestError
from conf.quoting import override
from conf.schema import Config, SpaceParameter

_RESERVED = (
    "study",
    "run_dir",
    "runs_dir",
    "budget.study",
    "dataset.fold",
    "dataset.folds",
)  # the sweep's own
_FREE = ("stopping.parameters.",)  # below these any key is valid


def search_space(config: Config, levels: Mapping[str, str]) -> list[SpaceParameter]:
    """The parameters that are searched in a cell: those whose `when` fits its levels.

    Raises:
        RequestError: a parameter or its `when` names something unknown, or two parameters share a name.
    """
    chosen: dict[str, SpaceParameter] = {}
    for parameter in config.space.parameters:
        _check_name(parameter)
        if not all(
            _fits(config, levels, parameter, group, wanted) for group, wanted in parameter.when.items()
        ):
            continue
        if parameter.name in chosen:
            raise RequestError(
                f"space={config.space.name}: {parameter.name} is searched twice in the cell "
                f"{', '.join(levels.values())}: narrow one of the two with `when`"
            )
        _check_values(parameter)
        chosen[parameter.name] = parameter
    return list(chosen.values())


def trial_overrides(values: Mapping[str, Any]) -> list[str]:
    """Sampled values as overrides."""
    return [override(name, value) for name, value in values.items()]


def first_values(parameters: Sequence[SpaceParameter]) -> dict[str, Any]:
    """The values that a cell's first trial takes, where the space states them."""
    return {item.name: item.first for item in parameters if item.first is not None}


def trial_values(parameters: Sequence[SpaceParameter]) -> list[tuple[str, dict[str, Any]]]:
    """Values that trials may meet: first an example, then every extreme of each parameter, one at a time.

    Each comes with the name of the parameter that it tries. A mistake in a bound or in the last choice is
    found by them before a study starts, not when a trial draws it.
    """
    samples = {item.name: _sample_values(item) for item in parameters}
    example = {name: values[0] for name, values in samples.items()}
    return [(name, {**example, name: value}) for name, values in samples.items() for value in values]


def _sample_values(parameter: SpaceParameter) -> list[Any]:
    """The first value, every choice, the bounds, and between them one that is whole only where all are."""
    first = [] if parameter.first is None else [parameter.first]
    if parameter.choices is not None:
        return [*first, *parameter.choices]
    assert parameter.low is not None and parameter.high is not None  # conf.validate holds this
    if parameter.integer:
        return [*first, int(parameter.low), int(parameter.high)]
    between = parameter.low + 0.382 * (parameter.high - parameter.low)
    return [*first, parameter.low, parameter.high, between]


def describe(parameter: SpaceParameter) -> str:
    """One parameter in words, for example `optimizer.lr 0.0005..0.01 log`."""
    if parameter.choices is not None:
        return f"{parameter.name} {{{', '.join(map(str, parameter.choices))}}}"
    return f"{parameter.name} {parameter.low:g}..{parameter.high:g}{' log' if parameter.log else ''}"


def _fits(
    config: Config, levels: Mapping[str, str], parameter: SpaceParameter, group: str, wanted: Any
) -> bool:
    if group not in groups():
        raise RequestError(
            f"space.parameters[{parameter.name}].when: there is no group '{group}'; "
            f"valid are {', '.join(groups())}"
        )
    valid = options(group)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in valid:
            raise RequestError(
                f"space.parameters[{parameter.name}].when.{group}={name}: there is no such option; "
                f"valid are {', '.join(valid)}"
            )
    return levels.get(group, str(getattr(getattr(config, group), "name", ""))) in names


def _check_name(parameter: SpaceParameter) -> None:
    name = parameter.name
    if name in _RESERVED or name.startswith(("sweep.", "space.", "launch.")):
        raise RequestError(f"space.parameters[{name}]: {name} belongs to the sweep and cannot be searched")
    if name in groups():
        unknown = [item for item in parameter.choices or [None] if item not in options(name)]
        if unknown:
            raise RequestError(
                f"space.parameters[{name}]: {name} is a group: its choices are {', '.join(options(name))}, "
                f"not {unknown[0]}"
            )
        return
    if name not in known_keys() and not name.startswith(_FREE):
        raise RequestError(f"space.parameters[{name}]: there is no key '{name}'; {_near(name)}")


def _near(name: str) -> str:
    parent = name.rsplit(".", 1)[0]
    near = [key for key in known_keys() if key.startswith(f"{parent}.")]
    return f"valid keys are {', '.join(near or groups())}"


def _check_values(parameter: SpaceParameter) -> None:
    key = f"space.parameters[{parameter.name}]"
    for item in parameter.choices or []:
        if item is not None and not isinstance(item, bool | int | float | str):
            raise RequestError(
                f"{key}.choices: {item} is a {type(item).__name__}: only plain values can be searched"
            )
    if parameter.integer and not all(
        float(bound or 0).is_integer() for bound in (parameter.low, parameter.high)
    ):
        raise RequestError(f"{key}=[{parameter.low}, {parameter.high}]: an integer range has whole bounds")
    if parameter.first is None:
        return
    if parameter.choices is not None:
        inside = parameter.first in parameter.choices
    else:
        low, high = parameter.low, parameter.high
        inside = isinstance(parameter.first, int | float) and (low or 0) <= parameter.first <= (high or 0)
        if inside and parameter.integer and not isinstance(parameter.first, int):
            raise RequestError(f"{key}.first={parameter.first}: an integer range has a whole first value")
    if not inside:
        raise RequestError(f"{key}.first={parameter.first}: lies outside {describe(parameter)}")
