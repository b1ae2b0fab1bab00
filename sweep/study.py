"""Optuna, and nothing else: one study per cell in one journal, asked and told by the one supervisor.

The sampler is made anew for every question, seeded by (seed, cell, trial number): what a study answers then
depends on its history alone, so that a resumed sweep goes on as the uninterrupted one would have, and repeats
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import hashlib
import json
from pathlib import Path
from typing import Any
import warnings

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from conf.errors import RequestError, WorkError
from conf.schema import Pruner, Sampler, SpaceParameter

FOLDER = "folder"  # a trial's user attribute: the name of its run folder
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


@dataclass(frozen=True)
class Asked:
    """A trial that runs in Optuna: its number within the cell, its values, its run folder once it has one."""

    number: int
    values: dict[str, Any]
    folder: str | None = None


def open_journal(path: Path) -> JournalStorage:
    """The study's journal, for the supervisor that holds the study's lock and hence is its only writer.

    A supervisor that was killed may leave a lock file and a torn last line behind; both are cleared away.

    Raises:
        WorkError: another line is damaged.
    """
    for stale in path.parent.glob(f"{path.name}.lock*"):
        stale.unlink(missing_ok=True)
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
        _check_lines(path, content[:whole])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(path)))


def _check_lines(path: Path, content: bytes) -> None:
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            damaged = not isinstance(json.loads(line), dict)
        except ValueError:
            damaged = True
        if damaged:
            raise WorkError(
                f"{path}: line {number} is damaged: restore the file from a copy, "
                "or start another study with study=NAME"
            )


class CellStudy:
    """The Optuna study of one cell."""

    def __init__(
        self,
        storage: JournalStorage,
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


def make_sampler(sampler: Sampler, label: str, number: int, trials: int) -> BaseSampler:
    """The sampler of one trial.

    Of a cell's trials a third, between 3 and 10, is drawn at random before TPE models what came of them.
    """
    seed = _seed(sampler.seed, label, number)
    if sampler.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if sampler.name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                seed=_seed(sampler.seed, label, 0),  # one sequence a cell, whose place the journal keeps
                scramble=True,
                independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
            )
    startup = max(3, min(10, trials // 3))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def make_pruner(pruner: Pruner, first_step: int, max_steps: int) -> BasePruner:
    """The pruner of a cell; `sweep.pruner.parameters` are those of Optuna's class.

    Raises:
        RequestError: the pruner has no such parameter, or not this value of it.
    """
    kinds: dict[str, tuple[type[BasePruner], dict[str, Any]]] = {
        "none": (optuna.pruners.NopPruner, {}),
        "median": (optuna.pruners.MedianPruner, {"n_startup_trials": 3}),
        "asha": (optuna.pruners.SuccessiveHalvingPruner, {"min_resource": first_step}),
        "hyperband": (
            optuna.pruners.HyperbandPruner,
            {"min_resource": first_step, "max_resource": max_steps},
        ),
    }
    kind, defaults = kinds[pruner.name]
    try:
        return kind(**{**defaults, **pruner.parameters})
    except (TypeError, ValueError) as error:
        raise RequestError(f"sweep.pruner.parameters={pruner.parameters}: {pruner.name}: {error}") from error


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


def _seed(seed: int, label: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()[:4], "big")
