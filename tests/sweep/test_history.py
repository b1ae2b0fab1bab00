"""What a model is shown of a long study, and that a short one is shown whole."""

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweep.history import BEST, LATEST, BoundedStudy, shown_trials

LENGTH = BEST + LATEST + 100


def long_study(length: int, objectives: int = 1) -> list[FrozenTrial]:
    """The first trials are the best, every tenth was pruned, the last two run."""
    trials = []
    for number in range(length):
        state = TrialState.PRUNED if number % 10 == 9 else TrialState.COMPLETE
        if number >= length - 2:
            state = TrialState.RUNNING
        values = [float(number), float(-number)][:objectives] if state == TrialState.COMPLETE else None
        trial = create_trial(state=state, values=values)
        trial.number = number
        trials.append(trial)
    return trials


def test_a_short_study_is_shown_whole() -> None:
    trials = long_study(BEST + LATEST)
    assert shown_trials(trials, 1) == trials


def test_of_a_long_study_the_best_the_latest_and_those_that_run() -> None:
    trials = long_study(LENGTH)
    shown = [trial.number for trial in shown_trials(trials, 1)]
    best = [number for number in range(LENGTH) if number % 10 != 9][:BEST]
    assert shown == [*best, *range(LENGTH - 2 - LATEST, LENGTH)]


def test_the_best_of_each_objective() -> None:
    trials = long_study(LENGTH, objectives=2)
    shown = {trial.number for trial in shown_trials(trials, 2)}
    assert {0, 1, 2, LENGTH - 3} <= shown
    assert len(shown) == BEST + LATEST + 2  # the latest are the best of the second one


def test_a_sampler_reads_the_bounded_study() -> None:
    """Through Optuna's own ways to its trials, whichever a sampler takes."""
    study = optuna.create_study()
    study.add_trials([create_trial(state=TrialState.COMPLETE, value=float(n)) for n in range(LENGTH)])
    bounded = BoundedStudy(study)
    assert len(bounded.get_trials(deepcopy=False)) == BEST + LATEST
    assert len(bounded._get_trials(states=(TrialState.COMPLETE,), use_cache=True)) == BEST + LATEST
    assert bounded.get_trials(states=(TrialState.PRUNED,)) == []
    assert len(study.trials) == LENGTH
