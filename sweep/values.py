"""The values of one searched parameter: drawing them, holding them to bounds, listing them."""

from collections.abc import Iterator
from decimal import Decimal
import math
from typing import Any

from conf.schema import SpaceParameter


def from_unit(parameter: SpaceParameter, unit: float) -> Any:
    """The value at a place in [0, 1): evenly over choices and steps, over the logarithm where `log` is set."""
    if parameter.choices is not None:
        return parameter.choices[int(unit * len(parameter.choices))]
    low, high = bounds(parameter)
    count = step_count(parameter)
    if parameter.log:
        # Half a step more at both ends gives the outermost whole numbers their share.
        margin = 0.5 if parameter.integer else 0.0
        start, end = math.log(low - margin), math.log(high + margin)
        return snap(parameter, math.exp(start + unit * (end - start)))
    if count is not None:
        return _at(parameter, int(unit * count))
    return snap(parameter, low + unit * (high - low))


def snap(parameter: SpaceParameter, value: Any) -> Any:
    """The nearest value that the parameter takes; None where it is a text that it does not know."""
    if parameter.choices is not None:
        return next((item for item in parameter.choices if same(item, value)), None)
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return None
    low, high = bounds(parameter)
    inside = min(max(value, low), high)
    if parameter.log and parameter.integer:
        return int(min(max(round(inside), low), high))
    if step_count(parameter) is not None:
        width = Decimal(str(parameter.step or 1))
        return _at(parameter, round((Decimal(str(inside)) - Decimal(str(low))) / width))
    return float(inside)


def contains(parameter: SpaceParameter, value: Any) -> bool:
    """Whether the parameter takes a value as it is."""
    if parameter.choices is not None:
        return any(same(item, value) for item in parameter.choices)
    nearest = snap(parameter, value)
    if nearest is None:
        return False
    whole = not parameter.integer or isinstance(value, int) or float(value).is_integer()
    return whole and math.isclose(nearest, value, rel_tol=1e-9, abs_tol=1e-300)


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same: 1 is 1.0, but no truth value."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def bounds(parameter: SpaceParameter) -> tuple[float, float]:
    """Low and high of a range."""
    assert parameter.low is not None and parameter.high is not None  # conf.validate_sweep holds this
    return parameter.low, parameter.high


def step_count(parameter: SpaceParameter) -> int | None:
    """Number of values; None where a range has no steps."""
    if parameter.choices is not None:
        return len(parameter.choices)
    if parameter.step is None and not parameter.integer:
        return None
    low, high = bounds(parameter)
    return int((Decimal(str(high)) - Decimal(str(low))) / Decimal(str(parameter.step or 1))) + 1


def every_value(parameter: SpaceParameter) -> Iterator[Any]:
    """Choices, or the steps of a range from low to high."""
    if parameter.choices is not None:
        yield from parameter.choices
        return
    for index in range(step_count(parameter) or 0):
        yield _at(parameter, index)


def single_value(parameter: SpaceParameter) -> bool:
    """Whether there is nothing to draw."""
    if parameter.choices is not None:
        return len(parameter.choices) == 1
    return parameter.low == parameter.high


def samples(parameter: SpaceParameter) -> list[Any]:
    """The first value, every choice, the bounds, and between them one that is whole only where all are.

    A mistake in a bound or in the last choice is found by them before a study starts.
    """
    first = [] if parameter.first is None else [parameter.first]
    if parameter.choices is not None:
        return [*first, *parameter.choices]
    low, high = bounds(parameter)
    between = [] if step_count(parameter) is not None else [low + 0.382 * (high - low)]
    return [*first, snap(parameter, low), snap(parameter, high), *between]


def describe(parameter: SpaceParameter) -> str:
    """One parameter in words, for example `optimizer.lr 0.0005..0.01 log`."""
    if parameter.choices is not None:
        return f"{parameter.name} {{{', '.join(map(str, parameter.choices))}}}"
    words = f"{parameter.name} {parameter.low:g}..{parameter.high:g}"
    if parameter.step is not None:
        words += f" step {parameter.step:g}"
    return words + (" log" if parameter.log else "")


def _at(parameter: SpaceParameter, index: int) -> Any:
    """The value after so many steps, as a decimal number: 0.1 + 2 x 0.1 is 0.3."""
    value = Decimal(str(parameter.low)) + index * Decimal(str(parameter.step or 1))
    return int(value) if parameter.integer else float(value)
