"""Whole points of a space, drawn with one of Optuna's samplers: conditions and constraints hold in every one.

Optuna learns what depends on what only from trials that had it. Here the space says so, and each stage of it is
drawn together: a sampler that models parameters together (TPE does) models those of a stage, on the trials that
had them. This is what Optuna's `group=True` finds out from the trials.
"""

from collections.abc import Mapping, Sequence
import random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from conf.errors import RequestError
from conf.schema import SpaceParameter
from sweep.divergence import LR, Divergence
from sweep.history import BoundedStudy
from sweep.space import CellSpace, Parameter, Values
from sweep.values import bounds, single_value, snap

UNIFORM_TRIES = 20_000  # draws without the sampler, once its own proposals have violated the constraints
STABLE_TRIES = 2_000  # of them that also have to stay below what diverged


class SpaceSampler(BaseSampler):
    """Draws the points of one trial.

    Args:
        inner: the sampler that proposes.
        conditional: whether it takes together what only some trials have, or draws that one by one.
        tries: how many of its proposals may violate the constraints before points are drawn evenly.
        bounded: whether it learns from the best and the latest trials only.
        fixed: values by label that the trial has anyway.
        divergence: what to stay below; a learning rate that is fixed is left alone.
        source: of the even draws.
    """

    def __init__(
        self,
        space: CellSpace,
        inner: BaseSampler,
        conditional: bool,
        tries: int,
        bounded: bool,
        fixed: Mapping[str, Any],
        divergence: Divergence,
        source: random.Random,
    ) -> None:
        self._space = space
        self._inner = inner
        self._conditional = conditional
        self._tries = tries
        self._bounded = bounded
        self._fixed = dict(fixed)
        self._divergence = divergence
        self._source = source

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All parameters: the trial takes those that `sample_relative` gives it."""
        return {item.label: distribution(item.declared) for item in self._space.parameters}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The trial's values by label.

        Where constraints leave nothing below what diverged, it is forgotten: a trial has to have some values.

        Raises:
            RequestError: no draw keeps the constraints.
        """
        shown = BoundedStudy(study) if self._bounded else study
        for _ in range(self._tries):
            drawn = self._space.walk(lambda stage: self._propose(shown, trial, stage))
            if self._stable(drawn) and self._space.allows(self._space.named(drawn)):
                return drawn
        for index in range(UNIFORM_TRIES):
            drawn = self._space.draw(self._source, self._fixed)
            if (index >= STABLE_TRIES or self._stable(drawn)) and self._space.allows(
                self._space.named(drawn)
            ):
                return drawn
        texts = "; ".join(self._space.constraints.texts)
        raise RequestError(
            f"space.constraints: none of {UNIFORM_TRIES} draws keeps them ({texts}): widen the bounds or loosen one"
        )

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter that `sample_relative` gave no value."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """As the inner sampler."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """As the inner sampler."""
        self._inner.after_trial(study, trial, state, values)

    def _stable(self, drawn: Values) -> bool:
        """Whether the drawn learning rate lies below those that diverged."""
        values = self._space.named(drawn)
        rate_is_fixed = LR in self._space.named(self._fixed)
        return rate_is_fixed or self._divergence.allows(values)

    def _propose(self, study: Study, trial: FrozenTrial, stage: list[Parameter]) -> Values:
        """Values of one stage: fixed ones, then what the inner sampler proposes together, then the rest."""
        drawn: Values = {}
        free: dict[str, Parameter] = {}
        for item in stage:
            if item.label in self._fixed:
                drawn[item.label] = self._fixed[item.label]
            elif single_value(item.declared):
                drawn[item.label] = _only_value(item.declared)
            else:
                free[item.label] = item
        proposed: Values = {}
        if self._conditional or not stage[0].conditions:
            open_space = {label: distribution(item.declared) for label, item in free.items()}
            proposed = self._inner.sample_relative(study, trial, open_space)
        for label, item in free.items():
            if label not in proposed:
                proposed[label] = self._inner.sample_independent(
                    study, trial, label, distribution(item.declared)
                )
            value = snap(item.declared, proposed[label])  # exp(log(x)) may leave the bounds by a rounding
            drawn[label] = proposed[label] if item.declared.choices is not None else value
        return drawn


class PointSampler(BaseSampler):
    """Proposes one point, given by label."""

    def __init__(self, point: Mapping[str, Any]) -> None:
        self._point = point

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The point's values of these parameters."""
        return {label: self._point[label] for label in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The point's value of this parameter."""
        return self._point[param_name]


def distribution(parameter: SpaceParameter) -> BaseDistribution:
    """A parameter as Optuna knows it."""
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    low, high = bounds(parameter)
    if parameter.integer:
        return IntDistribution(int(low), int(high), log=parameter.log, step=int(parameter.step or 1))
    return FloatDistribution(low, high, log=parameter.log, step=parameter.step)


def suggest(trial: Trial, label: str, kind: BaseDistribution) -> None:
    """Have a trial take the value that its sampler drew."""
    if isinstance(kind, CategoricalDistribution):
        trial.suggest_categorical(label, kind.choices)
    elif isinstance(kind, IntDistribution):
        trial.suggest_int(label, kind.low, kind.high, log=kind.log, step=kind.step)
    elif isinstance(kind, FloatDistribution):
        trial.suggest_float(label, kind.low, kind.high, log=kind.log, step=kind.step)


def _only_value(parameter: SpaceParameter) -> Any:
    return parameter.choices[0] if parameter.choices is not None else snap(parameter, parameter.low)
