"""Optuna, and nothing else: one study per cell in one storage, asked and told by the one supervisor.

The sampler is made anew for every question, seeded by (seed, cell, trial number): what a study answers then
depends on its history alone, so that a resumed sweep goes on as the uninterrupted one would have, and repeats
nothing. With the samplers random, qmc and grid an answer depends on nothing but the number.

What is needed at every turn is counted here: reading all trials takes longer the more there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
import warnings

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from conf.errors import RequestError
from conf.schema import Sweep
from sweep.divergence import Divergence
from sweep.draw import PointSampler, distribution, suggest
from sweep.points import adopt
from sweep.pruners import make_pruner, on_grid
from sweep.samplers import Question, make_sampler
from sweep.space import CellSpace

FOLDER = "folder"  # a trial's user attribute: the name of its run folder
START = "start"  # a trial's user attribute: values by label that it takes over from elsewhere
ORIGIN = "origin"  # and from where
OWNER = "stepbudget"  # a study's user attribute: the id of the study that its cell belongs to
DIVERGED = "diverged"  # a trial's user attribute: its values by name, which later ones are to stay below
_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
    "diverged": TrialState.FAIL,
}


@dataclass(frozen=True)
class Start:
    """Values by name that a cell's first trial takes over, and where they come from, in words."""

    values: dict[str, Any]
    origin: str


@dataclass(frozen=True)
class Asked:
    """A trial that runs in Optuna: its number within the cell, its values, its run folder once it has one."""

    number: int
    values: dict[str, Any]
    folder: str | None = None
    origin: str = ""  # of values that it took over from elsewhere
    told: bool = False  # it has ended in Optuna and is trained further


@dataclass(frozen=True)
class Best:
    """The trial of a cell with the lowest held-out loss."""

    loss: float
    values: dict[str, Any]


class CellStudy:
    """The Optuna study of one cell.

    Args:
        label: the cell's; names the study.
        trials: planned parameter sets.
        name: of the Optuna study, where it is not the label.
        owner: id of the study that it belongs to; None where nobody else can have it.
        grid: steps at which held-out losses are compared, the last one the horizon.
        runs: with the same values, one a fold or a trunk and its branches: each is a trial of Optuna's, number by number.
    """

    def __init__(
        self,
        storage: BaseStorage,
        label: str,
        space: CellSpace,
        sweep: Sweep,
        trials: int,
        grid: Sequence[int],
        runs: int = 1,
        name: str | None = None,
        owner: str | None = None,
    ) -> None:
        self.label = label
        name = name or label
        self._storage = storage
        self._space = space
        self._sampler = sweep.sampler
        self._trials = trials
        self._grid = list(grid)
        self._runs = runs
        first_step = next((step for step in self._grid if step > 0), 1)
        self._pruner = make_pruner(sweep.pruner, first_step, max(self._grid[-1], 1))
        self._study: Study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=["minimize"] * len(sweep.objectives),
            load_if_exists=True,
            sampler=PointSampler({}),  # `tell` asks a sampler too, and needs none
            pruner=self._pruner,
        )
        self._id = storage.get_study_id_from_name(name)
        if owner is not None:
            self._refuse_other(name, owner)
        self._best: Best | None = None
        self._divergence = Divergence(space)
        earlier = self._all()
        self._asked = len(earlier)
        for trial in earlier:
            if DIVERGED in trial.user_attrs:
                self._divergence.note(trial.user_attrs[DIVERGED])
            if trial.state == TrialState.COMPLETE:
                self._note_best(trial.values[0], trial.params)

    def _refuse_other(self, name: str, owner: str) -> None:
        """In a database a name may be taken: two studies in one would each count the other's trials as its own."""
        recorded = self._study.user_attrs.get(OWNER)
        if recorded is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr(OWNER, owner)
        elif recorded != owner:
            raise RequestError(
                f"study={name.rsplit('/', 1)[0]}: sweep.storage holds a study of this name that has another folder: "
                "continue it there with `python -m sweep resume`, or take another name with study=NAME"
            )

    def asked(self) -> int:
        """Trials that were started, whatever became of them."""
        return self._asked

    def best(self) -> Best | None:
        """The best complete trial; None where there is none yet."""
        return self._best

    def diverged(self) -> str:
        """From which learning rates up trials diverged, in words."""
        return self._divergence.words()

    def takes_start(self) -> bool:
        """Whether the next trial is the one that takes over values from elsewhere: the first without a stated point."""
        return self._asked == len(self._space.starts) * self._runs

    def ask(self, start: Start | None = None) -> Asked:
        """A new trial: with the values of a stated point, of `start`, or sampled ones.

        Raises:
            RequestError: no values keep the constraints.
        """
        adopted = adopt(self._space, start.values) if start is not None else {}
        if start is not None and adopted:
            template = optuna.trial.create_trial(
                state=TrialState.RUNNING, user_attrs={START: adopted, ORIGIN: start.origin}
            )
            trial_id = self._storage.create_new_trial(self._id, template)
        else:
            trial_id = self._storage.create_new_trial(self._id)
        frozen = self._storage.get_trial(trial_id)
        self._asked = max(self._asked, frozen.number + 1)
        return self._sample(frozen)

    def complete(self, asked: Asked) -> Asked:
        """A trial with all of its values: a supervisor may have been killed between asking and sampling."""
        if asked.folder is not None:
            return asked
        return self._sample(self._storage.get_trial(self._trial_id(asked.number)))

    def assign(self, number: int, folder: str) -> None:
        """Note which run folder a trial lives in."""
        self._storage.set_trial_user_attr(self._trial_id(number), FOLDER, folder)

    def report(self, number: int, losses: Mapping[int, float]) -> int | None:
        """Report a run's held-out losses (step: loss), and ask whether the trial is to be pruned.

        Optuna is told the losses at the steps of the shared grid, each once, and asked after each.

        Returns:
            The step at which it is to be pruned; None where it is not.
        """
        trial_id = self._trial_id(number)
        known = self._storage.get_trial(trial_id).intermediate_values
        for step, loss in on_grid(losses, self._grid).items():
            if step in known:
                continue
            self._storage.set_trial_intermediate_value(trial_id, step, loss)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # wilcoxon's, on steps that the best trial lacks
                if self._pruner.prune(self._study, self._storage.get_trial(trial_id)):
                    return step
        return None

    def tell(self, number: int, state: str, values: Sequence[float] | None = None) -> None:
        """End a trial: `complete` with the values of the objectives, `pruned`, `failed` or `diverged`."""
        if state == "diverged":
            self._note_divergence(number)
        told = list(values or []) if state == "complete" else None
        self._study.tell(number, told, state=_STATES[state])
        if told is not None:
            self._note_best(told[0], self._storage.get_trial(self._trial_id(number)).params)

    def running(self) -> list[Asked]:
        """Trials without an end: those of a supervisor that is gone."""
        return [self._as_asked(trial) for trial in self._all() if trial.state == TrialState.RUNNING]

    def ended(self) -> list[Asked]:
        """Trials that have ended, in the order of their numbers."""
        return [self._as_asked(trial) for trial in self._all() if trial.state.is_finished()]

    def folder(self, number: int) -> str | None:
        """The run folder of a trial; None where it has none yet."""
        found = self._storage.get_trial(self._trial_id(number)).user_attrs.get(FOLDER)
        return None if found is None else str(found)

    def folders(self) -> list[str]:
        """The run folders of all trials, in the order of the trials."""
        return [str(trial.user_attrs[FOLDER]) for trial in self._all() if FOLDER in trial.user_attrs]

    def states(self) -> dict[str, int]:
        """Number of trials by Optuna's state."""
        names = [trial.state.name for trial in self._all()]
        return {name: names.count(name) for name in sorted(set(names))}

    def _sample(self, frozen: FrozenTrial) -> Asked:
        """Give a trial the values that it still lacks."""
        question = Question(self.label, frozen.number // self._runs, self._trials)
        fixed = {**self._fixed(frozen), **frozen.params}
        sampler = make_sampler(self._sampler, self._space, question, fixed, self._divergence)
        # Loaded anew: a study keeps trials that it has read, until it is told one itself.
        study = optuna.load_study(
            study_name=self._study.study_name, storage=self._storage, sampler=sampler, pruner=self._pruner
        )
        trial = optuna.trial.Trial(study, frozen._trial_id)
        for item in self._space.parameters:
            if item.label in trial.relative_params:
                suggest(trial, item.label, distribution(item.declared))
        return replace(self._as_asked(frozen), values=self._space.named(trial.params))

    def _fixed(self, frozen: FrozenTrial) -> dict[str, Any]:
        """Values by label that a trial has anyway.

        Those of its set's first run, of a point that the space states, or of a trial elsewhere.
        """
        place, member = divmod(frozen.number, self._runs)
        if member > 0:
            return dict(self._storage.get_trial(self._trial_id(frozen.number - member)).params)
        if START in frozen.user_attrs:
            return dict(frozen.user_attrs[START])
        stated = self._sampler.name != "grid" and place < len(self._space.starts)
        return self._space.starts[place] if stated else {}

    def _as_asked(self, trial: FrozenTrial) -> Asked:
        attributes = trial.user_attrs
        return Asked(
            trial.number, self._space.named(trial.params), attributes.get(FOLDER), attributes.get(ORIGIN, "")
        )

    def _note_best(self, loss: float, params: Mapping[str, Any]) -> None:
        if self._best is None or loss < self._best.loss:
            self._best = Best(loss, self._space.named(params))

    def _note_divergence(self, number: int) -> None:
        trial_id = self._trial_id(number)
        values = self._space.named(self._storage.get_trial(trial_id).params)
        self._storage.set_trial_user_attr(trial_id, DIVERGED, values)
        self._divergence.note(values)

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
