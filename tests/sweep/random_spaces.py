"""Random space files, sound and broken, for hypothesis."""

from collections.abc import Callable
from dataclasses import dataclass
import math
from typing import Any

from hypothesis import strategies as st

Declared = dict[str, Any]
GROUPS: dict[str, list[Any]] = {
    "method": ["lora", "text_to_image"],
    "dataset_size": ["n4", "n8"],
    "resolution": ["px48", "px64"],
}
CHOICES: dict[str, list[Any]] = {
    **GROUPS,
    "optimizer.schedule": ["constant", "cosine", "linear"],
    "method.rank": [2, 4, 8, 16],
    "captions.dropout": [0.0, 0.1, 0.25],
    "augmentation.flip": [True, False],
}
FLOATS = {"optimizer.lr": (1e-6, 1.0), "optimizer.weight_decay": (1e-4, 0.5), "method.dropout": (0.0, 0.9)}
WHOLE = {
    "optimizer.batch_size": (1, 64),
    "optimizer.accumulation": (1, 8),
    "seed": (0, 1000),
    "method.rank": (1, 64),
}
ADAPTER = ("method.rank", "method.dropout")  # keys that only some methods have
LINKS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    "!=": lambda left, right: left != right,
}
JUNK: list[Any] = [None, -1, 0, 0.5, 3, 1e300, math.inf, math.nan, "x", "lora", True, [], [1], {"a": 1}]


@dataclass(frozen=True)
class Bound:
    """A constraint `left * right LINK limit`, with one factor where `right` is None."""

    left: str
    right: str | None
    link: str
    limit: float

    def text(self) -> str:
        product = self.left if self.right is None else f"{self.left} * {self.right}"
        return f"{product} {self.link} {self.limit!r}"

    def holds(self, values: dict[str, Any]) -> bool:
        """Also where a trial lacks one of the two."""
        names = [name for name in (self.left, self.right) if name is not None]
        if any(name not in values for name in names):
            return True
        return LINKS[self.link](math.prod(values[name] for name in names), self.limit)


@dataclass(frozen=True)
class SpaceFile:
    """What a file holds.

    Attributes:
        bounds: its constraints.
        broken: whether something in it was replaced at random.
    """

    content: Declared
    bounds: tuple[Bound, ...]
    broken: bool


@st.composite
def space_files(draw: st.DrawFn) -> SpaceFile:
    keys = sorted(({*CHOICES} | {*FLOATS} | {*WHOLE}) - {*GROUPS})
    group = draw(st.none() | st.none() | st.sampled_from([*GROUPS]))  # each option is composed: few have one
    names = [group] if group is not None else []
    names += draw(st.lists(st.sampled_from(keys), max_size=4, unique=True))
    parameters: list[Declared] = []
    for name in names:
        item = _parameter(draw, name)
        item["when"] = _when(draw, name, parameters)
        parameters.append(item)
    bounds = _bounds(draw, parameters)
    content: Declared = {
        "name": "mine",
        "parameters": parameters,
        "constraints": [item.text() for item in bounds],
        "points": _points(draw, parameters),
    }
    broken = draw(st.integers(0, 2)) == 0 and _break(draw, content)
    return SpaceFile(content, tuple(bounds), broken)


def _parameter(draw: st.DrawFn, name: str) -> Declared:
    choosable, ranged = name in CHOICES, name in FLOATS or name in WHOLE
    if choosable and (not ranged or draw(st.booleans())):
        count = draw(st.integers(1, len(CHOICES[name])))
        return {"name": name, "choices": CHOICES[name][:count]}
    if name in WHOLE:
        low, high = sorted(draw(st.tuples(*[st.integers(*WHOLE[name])] * 2)))
        item: Declared = {"name": name, "low": low, "high": high, "integer": True}
        if low > 0 and draw(st.booleans()):
            item["log"] = True
        elif draw(st.booleans()):
            item["step"] = draw(st.integers(1, 5))
            item["high"] = low + (high - low) // item["step"] * item["step"]
        return item
    low, high = sorted(draw(st.tuples(*[st.floats(*FLOATS[name])] * 2)))
    kind = draw(st.sampled_from(["plain", "log", "step"]))
    if kind == "step":
        count, width = draw(st.integers(0, 8)), draw(st.sampled_from([0.01, 0.025, 0.1]))
        return {"name": name, "low": 0.01, "high": round(0.01 + count * width, 3), "step": width}
    return {"name": name, "low": low, "high": high, "log": kind == "log" and low > 0}


def _when(draw: st.DrawFn, name: str, above: list[Declared]) -> Declared:
    deciding = [item for item in above if "choices" in item]
    conditions: Declared = {"method": "lora"} if name in ADAPTER else {}
    if deciding and draw(st.booleans()):
        item = draw(st.sampled_from(deciding))
        wanted = draw(st.lists(st.sampled_from(item["choices"]), min_size=1, unique=True))
        if item["name"] not in conditions:
            conditions[item["name"]] = wanted[0] if len(wanted) == 1 else wanted
    elif draw(st.integers(0, 5)) == 0:
        conditions.setdefault(
            "base_model", draw(st.sampled_from(["tiny", "sd15"]))
        )  # the cell's, not searched
    return conditions


def _bounds(draw: st.DrawFn, parameters: list[Declared]) -> list[Bound]:
    ranges = [item["name"] for item in parameters if "low" in item]
    if not ranges:
        return []
    one = st.builds(
        Bound,
        st.sampled_from(ranges),
        st.none() | st.sampled_from(ranges),
        st.sampled_from(list(LINKS)),
        st.floats(1e-6, 500).map(lambda value: float(f"{value:.3g}")),
    )
    return draw(st.lists(one, max_size=2))


def _points(draw: st.DrawFn, parameters: list[Declared]) -> list[Declared]:
    """Values of parameters that every trial has."""
    plain = [item for item in parameters if not item["when"]]
    points = []
    for _ in range(draw(st.integers(0, 2)) if plain else 0):
        chosen = draw(st.lists(st.sampled_from(plain), min_size=1, unique_by=lambda item: item["name"]))
        points.append(
            {item["name"]: item["choices"][-1] if "choices" in item else item["low"] for item in chosen}
        )
    return points


def _break(draw: st.DrawFn, content: Declared) -> bool:
    """Replace one value; whether there was one to replace."""
    parameters = content["parameters"]
    place = draw(st.sampled_from(["key", "name", "when", "constraint", "point", "twice"]))
    if not parameters:
        return False
    item = draw(st.sampled_from(parameters))
    if place == "key":
        key = draw(st.sampled_from(["low", "high", "step", "choices", "first"]))
        allowed = [None, [], [1], ["x"], [[1]]] if key == "choices" else JUNK
        item[key] = draw(
            st.sampled_from([value for value in allowed if key == "first" or _typed(key, value)])
        )
    elif place == "name":
        item["name"] = draw(
            st.sampled_from(["optimizer.lrr", "study", "sweep.trials", "methods", "", "a b", "dataset"])
        )
    elif place == "when":
        item["when"] = {
            draw(st.sampled_from(["method", "seed", "nothing", item["name"]])): draw(st.sampled_from(JUNK))
        }
    elif place == "constraint":
        content["constraints"] = [
            draw(st.text(max_size=20) | st.sampled_from(["seed <", "f(seed) < 1", "seed < 'a'"]))
        ]
    elif place == "point":
        content["points"] = [{draw(st.sampled_from(["nothing", item["name"]])): draw(st.sampled_from(JUNK))}]
    else:
        parameters.append(dict(item))
    return True


def _typed(key: str, value: Any) -> bool:
    """Whether the schema lets a value reach our own checks."""
    return (
        key == "choices" or value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    )
