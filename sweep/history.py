"""What a model is shown of a study: in a long one the best trials and the latest, so that an answer costs as much
after ten thousand trials as after a few hundred."""

from collections.abc import Container
import copy
import heapq

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

BEST = 25  # of each objective; TPE models no more as good ones
LATEST = 300  # ended trials; all that run are shown too


class BoundedStudy(Study):
    """A study at the moment of a question, with the part of its trials that a model is to learn from."""

    def __init__(self, study: Study) -> None:
        """Read the trials once, however often the model asks for them."""
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._shown = shown_trials(study.get_trials(deepcopy=False), len(study.directions))

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        """Where every sampler and `get_trials` have their trials from."""
        found = [trial for trial in self._shown if states is None or trial.state in states]
        return copy.deepcopy(found) if deepcopy else found


def shown_trials(trials: list[FrozenTrial], objectives: int) -> list[FrozenTrial]:
    """The trials that run, the LATEST that have ended, and the BEST complete ones of each objective; by number."""
    taught = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    if len(taught) <= BEST + LATEST:
        return trials
    shown = {trial.number: trial for trial in taught[-LATEST:]}
    complete = [trial for trial in taught if trial.state == TrialState.COMPLETE]
    for place in range(objectives):
        best = heapq.nsmallest(BEST, complete, key=lambda trial: (trial.values[place], trial.number))
        shown |= {trial.number: trial for trial in best}
    shown |= {trial.number: trial for trial in trials if trial.state == TrialState.RUNNING}
    return [shown[number] for number in sorted(shown)]
