"""Points that a cell's first trials take: stated in its space, or taken over from elsewhere."""

from collections.abc import Callable, Mapping
from typing import Any

from conf.errors import RequestError
from conf.validate_sweep import space_key
from sweep.space import CellSpace, Parameter, Values
from sweep.values import contains, describe, snap

OPEN = object()  # instead of a value: it is drawn


def read_starts(space: CellSpace) -> list[Values]:
    """The points that a space states, by label, one mapping a trial; what a mapping lacks is drawn.

    Raises:
        RequestError: a point lies outside the space or violates a constraint.
    """
    first = _first_values(space)
    stated = [
        (space_key(space.declared, f"points[{at}]"), point) for at, point in enumerate(space.declared.points)
    ]
    starts = [_start(space, key, point, first if at == 0 else {}) for at, (key, point) in enumerate(stated)]
    if not stated and first:
        stated, starts = [(space_key(space.declared, "parameters"), {})], [first]
    for (key, point), fixed in zip(stated, starts, strict=True):
        if space.example({}, fixed) is None:
            what = "point" if point else "value of `first`"
            raise RequestError(f"{key}: no trial with this {what} keeps the constraints: change it")
    return starts


def adopt(space: CellSpace, values: Mapping[str, Any]) -> Values:
    """A trial's values from elsewhere by label: those that are searched here, moved into their bounds.

    Empty where no trial can have them.
    """

    def take(item: Parameter) -> Any:
        value = snap(item.declared, values[item.name]) if item.name in values else None
        return OPEN if value is None else value

    fixed = _fix(space, take)
    return fixed if space.example({}, fixed) is not None else {}


def _fix(space: CellSpace, take: Callable[[Parameter], Any]) -> Values:
    """Values by label that `take` gives, or leaves OPEN, where it is certain that a trial has the parameter."""
    fixed: Values = {}
    values: Values = {}
    still_open: set[str] = set()
    for stage in space.stages:
        conditions = stage[0].conditions
        if any(name in still_open for name, _ in conditions) or not space.applies(conditions, values):
            continue
        for item in stage:
            value = take(item)
            if value is OPEN:
                still_open.add(item.name)
            else:
                fixed[item.label] = values[item.name] = value
    return fixed


def _first_values(space: CellSpace) -> Values:
    """`first` of every parameter that has one, by label."""
    found: Values = {}
    for item in space.parameters:
        declared = item.declared
        if declared.first is None:
            continue
        if not contains(declared, declared.first):
            whole = ": an integer range has a whole first value" if declared.integer else ""
            raise RequestError(f"{item.key}.first={declared.first}: lies outside {describe(declared)}{whole}")
        found[item.label] = declared.first
    return found


def _start(space: CellSpace, key: str, point: Mapping[str, Any], first: Mapping[str, Any]) -> Values:
    """A point by label, with the values of `first` where it says nothing else."""
    declared = {item.name for item in space.declared.parameters}
    for name in point:
        if name not in declared:
            raise RequestError(
                f"{key}.{name}: is not searched; a point may set {', '.join(sorted(declared)) or 'nothing'}"
            )

    def take(item: Parameter) -> Any:
        if item.name not in point:
            return first.get(item.label, OPEN)
        value = point[item.name]
        if not contains(item.declared, value):
            raise RequestError(
                f"{key}.{item.name}={value}: lies outside {describe(item.declared)}: "
                "take a value of it, or state it as `first` of the parameter"
            )
        return value

    fixed = _fix(space, take)
    values = space.named(fixed)
    # What a trial has only perhaps, it takes `first` for once it has it.
    perhaps = {label: value for label, value in first.items() if label not in fixed}
    for item in space.parameters:
        if item.name in point and item.name not in values:
            needed = ", ".join(f"{name}={'|'.join(map(str, wanted))}" for name, wanted in item.conditions)
            raise RequestError(
                f"{key}.{item.name}={point[item.name]}: is searched only where {needed}: add that to the point"
            )
    return perhaps | fixed
