"""The search space of a cell: what is searched under which conditions, and which points keep its constraints.

A point is drawn in stages: first the parameters that every trial has, together, then those whose conditions
the values so far meet, stage by stage in the order in which the space declares them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import itertools
import random
from typing import Any

from conf.compose import groups
from conf.errors import RequestError
from conf.quoting import override
from conf.schema import Config, SpaceParameter
from conf.validate_sweep import space_key
from sweep.conditions import Condition, read_conditions
from sweep.constraints import Constraints
from sweep.declared import check_declared
from sweep.values import every_value, from_unit, same, step_count

MOST_BRANCHES = 256
LARGEST_GRID = 10_000  # points
TRIES = 2_000  # random points among which one has to keep the constraints

Values = dict[str, Any]


@dataclass(frozen=True)
class Parameter:
    """A parameter of a cell.

    Attributes:
        label: its name in Optuna; its own unless the space declares that several times in this cell.
        key: where it is declared, for messages.
        conditions: what other parameters have to be.
    """

    label: str
    key: str
    declared: SpaceParameter
    conditions: tuple[Condition, ...]

    @property
    def name(self) -> str:
        return self.declared.name


class CellSpace:
    """The parameters of one cell, its conditions, constraints and points to try first.

    Values are keyed by `name` where they are a trial's (of the parameters of one name at most one is searched in a
    trial), and by `label` where Optuna knows them.

    Attributes:
        declared: the space of the configuration.
        parameters: all that some trial of the cell has, in the order of their declaration.
        stages: the same, those with equal conditions together.
        constraints: what every trial keeps.
        branches: values by name of what decides about conditions and groups: every combination that a trial can have.
        starts: values by label that the first trials take, one mapping a trial; `points.read_starts` finds them.
    """

    def __init__(self, config: Config, levels: Mapping[str, str]) -> None:
        """Read the space that a cell's configuration declares.

        Raises:
            RequestError: naming the file and the key of a mistake.
        """
        self.declared = config.space
        self._place = ", ".join(levels.values())
        self._options = {group: _option(config, levels, group) for group in groups()}
        self.parameters = self._read_parameters()
        by_conditions = itertools.groupby(
            sorted(self.parameters, key=self._stage_of), key=lambda item: item.conditions
        )
        self.stages = [list(stage) for _, stage in by_conditions]
        self._names = {item.label: item.name for item in self.parameters}
        self._searched = set(self._names.values())
        self._branching = {name for item in self.parameters for name, _ in item.conditions}
        self._branching |= {item.name for item in self.parameters if item.name in self._options}
        self.constraints = Constraints(self.declared, self._searched)
        self._plain: dict[tuple[Any, ...], Values] = {}
        self.branches = self._find_branches()
        self.starts: list[Values] = []
        self._grid: list[Values] | None = None

    # --- drawing ---

    def walk(self, choose: Callable[[list[Parameter]], Values]) -> Values:
        """Values by label of every stage that a trial comes to; `choose` gives those of one stage."""
        drawn: Values = {}
        values: Values = {}
        for stage in self.stages:
            if self.applies(stage[0].conditions, values):
                chosen = choose(stage)
                drawn |= chosen
                values |= self.named(chosen)
        return drawn

    def draw(self, source: random.Random, fixed: Mapping[str, Any]) -> Values:
        """A point by label, evenly distributed where `fixed` does not hold it; its constraints may be violated."""
        return self.walk(
            lambda stage: {
                item.label: fixed[item.label]
                if item.label in fixed
                else from_unit(item.declared, source.random())
                for item in stage
            }
        )

    def named(self, drawn: Mapping[str, Any]) -> Values:
        """Values by label as values by name."""
        return {self._names[label]: value for label, value in drawn.items()}

    def allows(self, values: Mapping[str, Any]) -> bool:
        """Whether values by name keep every constraint that speaks of what the trial has.

        Raises:
            RequestError: a constraint cannot be computed with them.
        """
        return self.constraints.kept(values, self._plain_of(values))

    def grid(self) -> list[Values]:
        """Every point by label that keeps the constraints, the last parameter changing fastest.

        Raises:
            RequestError: a parameter has a range without steps, or the points are too many or none.
        """
        if self._grid is None:
            self._grid = self._find_grid()
        return self._grid

    def _find_grid(self) -> list[Values]:
        for item in self.parameters:
            if step_count(item.declared) is None:
                raise RequestError(
                    f"{item.key}.step=null: sweep.sampler.name=grid needs steps or choices: "
                    f"give {item.name} a step, or take another sampler"
                )
        found: list[Values] = []
        for looked_at, drawn in enumerate(self._points({}, {}, 0)):
            if looked_at >= LARGEST_GRID:
                raise RequestError(
                    f"sweep.sampler.name=grid: the space has more than {LARGEST_GRID} points: take larger steps, "
                    "fewer choices, or another sampler"
                )
            if self.allows(self.named(drawn)):
                found.append(drawn)
        if not found:
            raise RequestError(
                "sweep.sampler.name=grid: no point of the grid keeps the constraints: loosen one"
            )
        return found

    def _points(self, drawn: Values, values: Values, stage: int) -> Iterator[Values]:
        if stage == len(self.stages):
            yield drawn
            return
        parameters = self.stages[stage]
        if not self.applies(parameters[0].conditions, values):
            yield from self._points(drawn, values, stage + 1)
            return
        # Counted lazily: a stage may have more points than memory holds.
        for chosen in _product([item.declared for item in parameters]):
            labelled = dict(zip((item.label for item in parameters), chosen, strict=True))
            yield from self._points(drawn | labelled, values | self.named(labelled), stage + 1)

    # --- constraints ---

    def set_plain(self, branch: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """The values in a branch of the keys that constraints name and that are not searched."""
        self._plain[self._choice(branch)] = dict(values)

    def _plain_of(self, values: Mapping[str, Any]) -> Values:
        return self._plain.get(self._choice(values), {})

    def example(self, branch: Mapping[str, Any], held: Mapping[str, Any] | None = None) -> Values | None:
        """A point of a branch by label that keeps the constraints; None where none is found.

        Raises:
            RequestError: a constraint cannot be computed.
        """
        fixed = {item.label: branch[item.name] for item in self.parameters if item.name in branch}
        fixed |= held or {}
        source = random.Random(0)
        tries = TRIES if self.constraints.texts else 1
        for _ in range(tries):
            drawn = self.draw(source, fixed)
            if self.allows(self.named(drawn)):
                return drawn
        return None

    def near(self, example: Mapping[str, Any], label: str, value: Any) -> Values | None:
        """The example with another value of one parameter, else another point of its branch with that value."""
        drawn = {**example, label: value}
        if self.allows(self.named(drawn)):
            return drawn
        branch = {name: item for name, item in self.named(example).items() if name in self._branching}
        return self.example(branch, {label: value})

    def refuse_empty(self) -> None:
        """Refuse constraints that no point keeps.

        Raises:
            RequestError: naming the first constraint that no point keeps, or all of them.
        """
        if not self.constraints.texts or any(self.example(branch) is not None for branch in self.branches):
            return
        source = random.Random(0)
        drawn = [self.named(self.draw(source, {})) for _ in range(TRIES)]
        self.constraints.refuse_impossible((values, self._plain_of(values)) for values in drawn)
        raise RequestError(
            f"{space_key(self.declared, 'constraints')}: none of {TRIES} random points keeps all "
            f"{len(self.constraints.texts)}: widen the bounds or loosen one"
        )

    # --- conditions ---

    def _read_parameters(self) -> list[Parameter]:
        found: list[tuple[str, SpaceParameter, tuple[Condition, ...]]] = []
        above: list[SpaceParameter] = []
        for index, declared in enumerate(self.declared.parameters):
            key = space_key(self.declared, f"parameters[{index}]")
            check_declared(declared, key)
            own = {item.name for _, item, _ in found}
            conditions = read_conditions(declared, key, above, own, self._options, self.declared.parameters)
            above.append(declared)
            if conditions is not None:
                found.append((key, declared, conditions))
        names = [declared.name for _, declared, _ in found]
        return [
            Parameter(
                declared.name
                if names.count(declared.name) == 1
                else f"{declared.name}[{key.rsplit('[', 1)[1]}",
                key,
                declared,
                conditions,
            )
            for key, declared, conditions in found
        ]

    def _stage_of(self, parameter: Parameter) -> int:
        """Place of the first parameter with the same conditions."""
        return next(
            index for index, item in enumerate(self.parameters) if item.conditions == parameter.conditions
        )

    def applies(self, conditions: Sequence[Condition], values: Mapping[str, Any]) -> bool:
        """Whether a trial with these values meets conditions; a group that it does not search is the cell's."""
        for name, wanted in conditions:
            if name not in values and name not in self._options:
                return False
            value = values.get(name, self._options.get(name))
            if not any(same(value, item) for item in wanted):
                return False
        return True

    def _choice(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """What tells the branch of a trial."""
        return tuple((name, values[name]) for name in sorted(self._branching) if name in values)

    def _find_branches(self) -> list[Values]:
        """Values by name of what decides about conditions and groups: every combination that a trial can have.

        Raises:
            RequestError: they are too many, or a branch has two parameters of one name.
        """
        branches: list[Values] = [{}]
        for stage in self.stages:
            deciding = [item for item in stage if item.name in self._branching]
            following: list[Values] = []
            for branch in branches:
                if not self.applies(stage[0].conditions, branch):
                    following.append(branch)
                    continue
                self._refuse_twice(stage, branch)
                names = [item.name for item in deciding]
                for chosen in itertools.product(*(item.declared.choices or [] for item in deciding)):
                    following.append(branch | dict(zip(names, chosen, strict=True)))
                if len(following) > MOST_BRANCHES:
                    raise RequestError(
                        f"{space_key(self.declared, 'parameters')}: conditions and groups make more than "
                        f"{MOST_BRANCHES} combinations: make some of {', '.join(sorted(self._branching))} factors "
                        "of the sweep, or give them fewer choices"
                    )
            branches = following
        for branch in branches:
            self._refuse_twice([], branch)
        return branches

    def _refuse_twice(self, stage: Sequence[Parameter], branch: Mapping[str, Any]) -> None:
        """One value a name: of two declarations the conditions let one through."""
        seen: dict[str, Parameter] = {}
        parameters = stage or [item for item in self.parameters if self.applies(item.conditions, branch)]
        for item in parameters:
            if item.name in seen:
                where = f" {self._place}" if self._place else ""
                chosen = ", ".join(f"{name}={value}" for name, value in branch.items())
                raise RequestError(
                    f"{item.key}.name={item.name}: is searched twice in the cell{where}"
                    f"{f' ({chosen})' if chosen else ''}: narrow one of the two with `when`"
                )
            seen[item.name] = item


def trial_overrides(values: Mapping[str, Any]) -> list[str]:
    """Sampled values as overrides."""
    return [override(name, value) for name, value in values.items()]


def _option(config: Config, levels: Mapping[str, str], group: str) -> str | None:
    return levels.get(group, getattr(getattr(config, group, None), "name", None))


def _product(parameters: Sequence[SpaceParameter]) -> Iterator[tuple[Any, ...]]:
    if not parameters:
        yield ()
        return
    for value in every_value(parameters[0]):
        for rest in _product(parameters[1:]):
            yield (value, *rest)
