"""`sweep.design=adaptive`: trials go where an answer is wide, and the sweep ends once all are narrow."""

import pytest

from tests.sweep.harness import Sweep

pytestmark = pytest.mark.long

CELLS = ("n4", "n8")
ASKED = (
    "sweep.factors.dataset_size=[n4,n8]",
    "space.parameters=[]",
    "optimizer.lr=4e-3",
    "sweep.trials=6",
    "sweep.design=adaptive",
    "sweep.narrow_enough=4",
    "launch.slots=1",
)
NOISY = {"n8": 0.4}  # seeds move the minimum of n8 by a factor 1.5 either way, that of n4 not at all


def trials(sweep: Sweep) -> dict[str, int]:
    names = [folder.path.name for folder in sweep.folders()]
    return {cell: sum(f"-{cell}-" in name for name in names) for cell in CELLS}


def order(sweep: Sweep) -> list[str]:
    return sorted(folder.path.name for folder in sweep.folders())


def test_the_noisy_cell_gets_more_trials_and_the_sweep_ends_early(sweep: Sweep) -> None:
    output = sweep.run(*ASKED, scatter=NOISY)
    done = trials(sweep)
    assert done["n4"] == 2 < done["n8"] < 6
    total = sum(done.values())
    assert f"{total} of 12 trials were enough: high/low of the minimum is at most 4 in every cell" in output
    assert sweep.states() == {"COMPLETE": total}


def test_a_sweep_that_is_even_makes_all(sweep: Sweep) -> None:
    output = sweep.run(*ASKED, "sweep.design=even", scatter=NOISY)
    assert trials(sweep) == {"n4": 6, "n8": 6} and "were enough" not in output


def test_what_was_interrupted_goes_on_with_the_same_cells(
    sweep: Sweep, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sweep.run(*ASKED, scatter=NOISY)
    other = Sweep(tmp_path_factory.mktemp("other"))
    try:
        first = other.start("run", *other.arguments(*ASKED), scatter=NOISY, step_s=0.01)
        other.await_step(3, 8)
        first.kill()
        first.wait()
        other.resume(scatter=NOISY)
        assert order(other) == order(sweep)
    finally:
        other.close()


def test_a_study_that_is_narrow_stays_ended_until_more_is_asked_for(sweep: Sweep) -> None:
    sweep.run(*ASKED, scatter=NOISY)
    before = order(sweep)
    assert "trials were enough" in sweep.resume(scatter=NOISY) and order(sweep) == before
    output = sweep.resume("sweep.narrow_enough=1.1", scatter=NOISY)
    assert trials(sweep) == {"n4": 6, "n8": 6} and "were enough" not in output
    assert order(sweep)[: len(before)] == before


def test_while_both_are_wide_the_wider_one_comes_first(sweep: Sweep) -> None:
    sweep.run(*ASKED, "sweep.narrow_enough=1.1", "sweep.limits.trials=7", status=3, scatter=NOISY)
    assert trials(sweep)["n8"] > trials(sweep)["n4"] >= 2


def test_a_limit_still_ends_it(sweep: Sweep) -> None:
    output = sweep.run(*ASKED, "sweep.limits.trials=3", status=3, scatter=NOISY)
    assert "a limit is reached: sweep.limits.trials=3" in output and len(order(sweep)) == 3


def test_with_two_slots_a_running_trial_counts(sweep: Sweep) -> None:
    output = sweep.run(*ASKED, "launch.slots=2", "sweep.least_trials=1", scatter=NOISY, step_s=0.005)
    assert "trials were enough" in output and trials(sweep)["n8"] >= trials(sweep)["n4"] >= 1
    assert sweep.outcomes() == ["complete"] * len(sweep.folders())


def test_failed_trials_are_no_answer(sweep: Sweep) -> None:
    """The clear cell's first two trials diverge at half of their steps: it gets others."""
    output = sweep.run(*ASKED, scatter=NOISY, diverge=[0, 2])
    assert "trials were enough" in output
    assert sum(f.outcome() == "complete" and "-n4-" in f.path.name for f in sweep.folders()) >= 1


def test_the_plan_says_how_it_ends(sweep: Sweep) -> None:
    output = sweep.end_of(sweep.start("plan", *sweep.arguments(*ASKED)), 0)
    assert "adaptive: ends once high/low of every minimum is at most 4" in output


@pytest.mark.parametrize(
    ("override", "why"),
    [
        ("sweep.design=clever", "sweep.design=clever"),
        (
            "sweep.narrow_enough=1",
            "sweep.narrow_enough=1: is high/low of the minimum's interval: must be above 1",
        ),
        ("sweep.least_trials=0", "sweep.least_trials=0: must be 1 or more"),
        (
            "sweep.start_from=neighbours",
            "sweep.design=adaptive: sweep.start_from=neighbours completes the cells",
        ),
        ("sweep.folds=true", "sweep.design=adaptive: a fold alone has no interval"),
    ],
)
def test_mistakes(sweep: Sweep, override: str, why: str) -> None:
    more = ["dataset.folds=3", "sweep.sampler.name=qmc", "stopping=none"] if "folds" in override else []
    output = sweep.run(*ASKED, override, *more, status=2)
    assert why in output
