"""`when`: in which cells, and in which trials of a cell, a parameter is searched."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from conf.compose import groups, options
from conf.errors import RequestError
from conf.schema import SpaceParameter
from sweep.values import same

Condition = tuple[str, tuple[Any, ...]]  # name of a searched parameter, and what it has to be


def read_conditions(
    parameter: SpaceParameter,
    key: str,
    above: Sequence[SpaceParameter],
    own: Collection[str],
    cell: Mapping[str, str | None],
    declared: Sequence[SpaceParameter],
) -> tuple[Condition, ...] | None:
    """What a parameter's `when` asks of a trial of the cell; None where the cell itself does not fit.

    Args:
        above: parameters that the space declares before this one.
        own: names of those that the cell searches.
        cell: the cell's option of every group.
        declared: all parameters of the space.

    Raises:
        RequestError: `when` names something unknown.
    """
    conditions: list[Condition] = []
    fits = True
    for name, value in parameter.when.items():
        place = f"{key}.when.{name}"
        wanted = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not wanted:
            raise RequestError(f"{place}=[]: give what {name} has to be")
        _check_place(name, place, wanted, above, declared)
        _check_wanted(name, place, wanted, above)
        if name in own:
            conditions.append((name, wanted))
        elif name not in cell or cell[name] not in wanted:
            fits = False
    return tuple(conditions) if fits else None


def _check_place(
    name: str,
    place: str,
    wanted: tuple[Any, ...],
    above: Sequence[SpaceParameter],
    declared: Sequence[SpaceParameter],
) -> None:
    count = sum(item.name == name for item in declared)
    if sum(item.name == name for item in above) < count:
        raise RequestError(
            f"{place}={_shown(wanted)}: {name} is searched too and stands below: declare it above this parameter"
        )
    if not count and name not in groups():
        searched = sorted({item.name for item in above if item.choices is not None})
        raise RequestError(
            f"{place}={_shown(wanted)}: there is no group and no searched parameter '{name}'; "
            f"valid are {', '.join([*searched, *groups()])}"
        )


def _check_wanted(name: str, place: str, wanted: tuple[Any, ...], above: Sequence[SpaceParameter]) -> None:
    searched = [item for item in above if item.name == name]
    if any(item.choices is None for item in searched):
        raise RequestError(
            f"{place}={_shown(wanted)}: {name} is searched over a range: only a parameter with choices decides "
            "about another: give it choices"
        )
    valid: list[Any] = options(name) if name in groups() else []
    valid = valid or [choice for item in searched for choice in item.choices or []]
    for item in wanted:
        if not any(same(item, choice) for choice in valid):
            raise RequestError(
                f"{place}={item}: there is no such option; valid are {', '.join(map(str, valid))}"
            )


def _shown(wanted: tuple[Any, ...]) -> str:
    return str(wanted[0]) if len(wanted) == 1 else f"[{', '.join(map(str, wanted))}]"
