"""Optuna, and nothing else: one study per cell in one journal, asked and told by the one supervisor.

The sampler is made anew for every question, seeded by (seed, cell, trial number): what a study answers then
depends on its history alone, so that a resumed sweep goes on as the uninterrupted one would have, and repeats
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
import warnings

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from conf.schema import Pruner, Sampler, SpaceParameter
from sweep.pruners import make_pruner
from sweep.samplers import make_sampler

FOLDER = "folder"  # a trial's user attribute: the name of its run folder
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Asked:
    """A trial that runs in Optuna: its number within the cell, its values, its run folder once it has one."""

    number: int
    values: dict[str, Any]
    folder: str | None = None


class CellStudy:
    """The Optuna study of one cell."""

    def __init__(
        self,
        storage: BaseStorage,
        label: str,
        parameters: Sequence[SpaceParameter],
        first: Mapping[str, Any],
        sampler: Sampler,
        pruner: Pruner,
        trials: int,
        first_step: int,
        max_steps: int,
        folds: int = 1,
    ) -> None:
        self.label = label
        self._folds = folds  # runs with the same values: each is a trial of Optuna's, number by number
        self._storage = storage
        self._distributions = {item.name: _distribution(item) for item in parameters}
        self._sampler = sampler
        self._trials = trials
        self._pruner = make_pruner(pruner, first_step, max_steps)
        self._study: Study = optuna.create_study(
            storage=storage, study_name=label, direction="minimize", load_if_exists=True, pruner=self._pruner
        )
        self._id = storage.get_study_id_from_name(label)
        if first and not self._study.get_trials(deepcopy=False):
            self._study.enqueue_trial(dict(first))

    def ask(self) -> Asked:
        """A new trial with sampled values, or the first one's stated values."""
        number = self.asked()
        self._study.sampler = self._make_sampler(number)
        trial = self._study.ask(self._distributions)
        return Asked(trial.number, dict(trial.params))

    def complete(self, asked: Asked) -> Asked:
        """A trial with all of its values: a supervisor may have been killed between asking and sampling."""
        if asked.values.keys() >= self._distributions.keys():
            return asked
        self._study.sampler = self._make_sampler(asked.number)
        trial = optuna.trial.Trial(self._study, self._trial_id(asked.number))
        for name, distribution in self._distributions.items():
            _suggest(trial, name, distribution)
        return replace(asked, values=dict(trial.params))

    def assign(self, number: int, folder: str) -> None:
        """Note which run folder a trial lives in."""
        self._storage.set_trial_user_attr(self._trial_id(number), FOLDER, folder)

    def report(self, number: int, losses: Mapping[int, float]) -> bool:
        """Report new held-out losses (step: loss) and ask whether the trial is to be pruned."""
        trial_id = self._trial_id(number)
        known = self._storage.get_trial(trial_id).intermediate_values
        new = {step: loss for step, loss in losses.items() if known.get(step) != loss}
        for step, loss in sorted(new.items()):
            self._storage.set_trial_intermediate_value(trial_id, step, loss)
        return bool(new) and bool(self._pruner.prune(self._study, self._storage.get_trial(trial_id)))

    def tell(self, number: int, state: str, value: float | None = None) -> None:
        """End a trial: `complete` with its lowest held-out loss, `pruned` or `failed`."""
        self._study.sampler = self._make_sampler(number)
        self._study.tell(number, value if state == "complete" else None, state=_STATES[state])

    def asked(self) -> int:
        """Trials that were started, whatever became of them."""
        return sum(trial.state != TrialState.WAITING for trial in self._all())

    def running(self) -> list[Asked]:
        """Trials without an end: those of a supervisor that is gone."""
        return [
            Asked(trial.number, dict(trial.params), trial.user_attrs.get(FOLDER))
            for trial in self._all()
            if trial.state == TrialState.RUNNING
        ]

    def folders(self) -> list[str]:
        """The run folders of all trials, in the order of the trials."""
        return [str(trial.user_attrs[FOLDER]) for trial in self._all() if FOLDER in trial.user_attrs]

    def states(self) -> dict[str, int]:
        """Number of trials by Optuna's state."""
        names = [trial.state.name for trial in self._all() if trial.state != TrialState.WAITING]
        return {name: names.count(name) for name in sorted(set(names))}

    def _make_sampler(self, number: int) -> BaseSampler:
        """Of a parameter set's first fold the configured sampler; its other folds repeat the first one's values."""
        sampler = make_sampler(self._sampler, self.label, number, self._trials)
        first = number - number % self._folds
        if number == first:
            return sampler
        values = self._storage.get_trial(self._trial_id(first)).params
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.PartialFixedSampler(values, sampler)

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def _distribution(parameter: SpaceParameter) -> BaseDistribution:
    if parameter.choices is not None:
        return CategoricalDistribution(parameter.choices)
    assert parameter.low is not None and parameter.high is not None  # conf.validate holds this
    if parameter.integer:
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def _suggest(trial: optuna.trial.Trial, name: str, distribution: BaseDistribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
