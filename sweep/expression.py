"""Constraints of a space: comparisons in a small language of numbers, texts and parameters.

    comparison := sum (< | <= | > | >= | == | != | in) sum ...;  and, or, not, brackets
    sum        := numbers, texts, true, false, null, keys such as optimizer.batch_size, with + - * / // %

Nothing else is evaluated: no calls, no attributes, no names but keys.
"""

import ast
from collections.abc import Callable, Mapping
import operator
from typing import Any
import warnings

LONGEST = 500  # characters
DEEPEST = 60  # levels of brackets, signs and `not`
_NUMBERS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda value, choices: value in choices,
    ast.NotIn: lambda value, choices: value not in choices,
}
_WORDS = {"true": True, "false": False, "null": None}


class Constraint:
    """A comparison that a trial's values keep or violate.

    Attributes:
        text: as it was written.
        names: the keys in it, in their order.
    """

    def __init__(self, text: str) -> None:
        """Parse a constraint.

        Raises:
            ValueError: it is no comparison of this language; the message says what is wrong.
        """
        self.text = text
        self._tree = _parse(text)
        self.names: list[str] = []
        self._check(self._tree, 0)
        if not isinstance(self._tree, ast.Compare | ast.BoolOp) and not _negated(self._tree):
            raise ValueError("compares nothing: write for example optimizer.batch_size <= 8")

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether values by key keep it. A division by zero violates it.

        Raises:
            ValueError: values that cannot be compared or computed with.
        """
        try:
            return bool(_value(self._tree, values))
        except (ZeroDivisionError, OverflowError):
            return False
        except TypeError as error:
            given = ", ".join(f"{name}={values[name]}" for name in self.names)
            raise ValueError(f"cannot be computed with {given}") from error

    def _check(self, node: ast.expr, depth: int) -> None:
        """Refuse whatever the language does not have, and collect the keys."""
        if depth > DEEPEST:
            raise ValueError(f"is nested more than {DEEPEST} levels deep: write it flatter")
        if isinstance(node, ast.Name | ast.Attribute):
            name = self._key(node)
            if name not in _WORDS and name not in self.names:
                self.names.append(name)
        elif not isinstance(node, ast.Constant) or not _plain(node.value):
            if not _known(node):
                raise ValueError(
                    f"`{self._source(node)}` is not understood: it takes keys, numbers, texts, + - * / // %, "
                    "comparisons, and, or, not"
                )
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.expr):
                    self._check(child, depth + 1)

    def _key(self, node: ast.Name | ast.Attribute) -> str:
        key = _key(node)
        if key is None:
            raise ValueError(
                f"`{self._source(node)}` is not understood: keys are words with dots between them"
            )
        return key

    def _source(self, node: ast.expr) -> str:
        return ast.get_source_segment(self.text.strip(), node) or self.text


def _parse(text: str) -> ast.expr:
    if len(text) > LONGEST:
        raise ValueError(f"is longer than {LONGEST} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ValueError(f"cannot be read ({reason})") from error


def _negated(node: ast.expr) -> bool:
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)


def _plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _known(node: ast.expr) -> bool:
    """Whether the language has this, whatever is in it."""
    return (
        (isinstance(node, ast.BinOp) and type(node.op) in _NUMBERS)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd | ast.Not))
        or (isinstance(node, ast.Compare) and all(type(item) in _COMPARISONS for item in node.ops))
        or isinstance(node, ast.BoolOp | ast.List | ast.Tuple)
    )


def _key(node: ast.expr) -> str | None:
    """A dotted key such as optimizer.batch_size; None where it is none."""
    words = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(words)]) if isinstance(node, ast.Name) else None


def _value(node: ast.expr, values: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name | ast.Attribute):
        name = _key(node) or ""
        return _WORDS[name] if name in _WORDS else values[name]
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item, values) for item in node.elts]
    if isinstance(node, ast.BoolOp):
        every = isinstance(node.op, ast.And)
        return (all if every else any)(_value(item, values) for item in node.values)
    if isinstance(node, ast.UnaryOp):
        inner = _value(node.operand, values)
        if isinstance(node.op, ast.Not):
            return not inner
        return -_number(inner) if isinstance(node.op, ast.USub) else _number(inner)
    if isinstance(node, ast.BinOp):
        left, right = _number(_value(node.left, values)), _number(_value(node.right, values))
        return _NUMBERS[type(node.op)](left, right)
    assert isinstance(node, ast.Compare)  # `_check` let nothing else pass
    left = _value(node.left, values)
    for compare, item in zip(node.ops, node.comparators, strict=True):
        right = _value(item, values)
        if not _COMPARISONS[type(compare)](left, right):
            return False
        left = right
    return True


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value
