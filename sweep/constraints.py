"""The constraints of a space that speak of one cell's parameters."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from conf.compose import groups, known_keys
from conf.errors import RequestError
from conf.schema import Space
from conf.validate_sweep import space_key
from sweep.expression import Constraint


class Constraints:
    """What every trial of a cell keeps.

    Attributes:
        texts: as they were written.
        plain_keys: keys in them that are not searched: their values come from the configuration.
    """

    def __init__(self, space: Space, searched: Collection[str]) -> None:
        """Read the constraints whose parameters are searched in the cell.

        Raises:
            RequestError: one cannot be read, or names what is not there.
        """
        self._searched = set(searched)
        declared = {item.name for item in space.parameters}
        self._items: list[tuple[str, Constraint]] = []
        for index, text in enumerate(space.constraints):
            constraint = _read(text, f"{space_key(space, f'constraints[{index}]')}={text}", declared)
            if declared & set(constraint.names) <= self._searched:
                self._items.append((f"{space_key(space, f'constraints[{index}]')}={text}", constraint))
        self.texts = [constraint.text for _, constraint in self._items]
        names = {name for _, constraint in self._items for name in constraint.names}
        self.plain_keys = sorted(names - self._searched)

    def kept(self, values: Mapping[str, Any], plain: Mapping[str, Any]) -> bool:
        """Whether a trial's values by name keep every constraint that speaks of what the trial has.

        Args:
            plain: the values of `plain_keys`.

        Raises:
            RequestError: a constraint cannot be computed with them.
        """
        return all(self._keeps(key, constraint, values, plain) for key, constraint in self._items)

    def refuse_impossible(self, trials: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> None:
        """Refuse the first constraint that none of these trials, values and plain values, keeps.

        Raises:
            RequestError: naming it.
        """
        tried = list(trials)
        for key, constraint in self._items:
            if not any(self._keeps(key, constraint, values, plain) for values, plain in tried):
                raise RequestError(
                    f"{key}: none of {len(tried)} random points keeps it: widen the bounds of "
                    f"{', '.join(constraint.names)} or loosen it"
                )

    def _keeps(
        self, key: str, constraint: Constraint, values: Mapping[str, Any], plain: Mapping[str, Any]
    ) -> bool:
        if any(name in self._searched and name not in values for name in constraint.names):
            return True
        try:
            return constraint.holds({**plain, **values})
        except ValueError as error:
            raise RequestError(f"{key}: {error}") from error


def _read(text: str, place: str, declared: Collection[str]) -> Constraint:
    """A constraint of keys that there are, at least one of them searched; `place` begins a message."""
    try:
        constraint = Constraint(text)
    except ValueError as error:
        raise RequestError(f"{place}: {error}") from error
    searched = ", ".join(sorted(declared))
    for name in constraint.names:
        if name not in declared and name not in known_keys() and name not in groups():
            raise RequestError(
                f"{place}: there is no key '{name}'; it may name searched parameters ({searched or 'none yet'}), "
                "groups and keys of the configuration"
            )
    if not set(declared) & set(constraint.names):
        raise RequestError(f"{place}: names no searched parameter: name one of {searched}")
    return constraint
