"""Studies that grow: the same command gives them more trials, more cells, and more steps where a minimum was not passed."""

import shlex

import pytest

from curves.run_folder import RunFolder
from sweep.extension import has_risen
from tests.sweep.harness import Sweep, wait_until


def steps(folder: RunFolder) -> list[int]:
    return [point.step for point in folder.points()]


@pytest.mark.long
def test_more_cells(sweep: Sweep) -> None:
    factors = "sweep.factors={dataset_size: [n4, n8]}"
    sweep.run(factors, "sweep.trials=2")
    before = {folder.path.name: folder.curve.stat().st_mtime_ns for folder in sweep.folders()}
    refused = sweep.end_of(
        sweep.start("run", *sweep.arguments("sweep.factors={dataset_size: [n4, n8, n16]}", "sweep.trials=2")),
        2,
    )
    assert (
        "was started with sweep.factors.dataset_size=[n4, n8]: extend it with `python -m sweep resume"
        in refused
    )
    printed = shlex.split(refused.split("`")[1])
    sweep.end_of(sweep.start(*printed[3:]), 0)  # what is printed works
    names = [folder.path.name for folder in sweep.folders()]
    assert len(names) == 6 and sum("-n16-" in name for name in names) == 2
    assert {
        name: sweep.study.joinpath("trials", name, "curve.jsonl").stat().st_mtime_ns for name in before
    } == before
    assert sweep.states() == {"COMPLETE": 6}
    for wrong, words in (
        ("sweep.factors.dataset_size=[n4,n16]", "has n8 too; it can only grow"),
        ("sweep.factors.method=[lora]", "a factor may get more levels"),
    ):
        assert words in sweep.resume(wrong, status=2)


@pytest.mark.long
def test_more_steps_for_runs_that_ended_before_their_minimum(sweep: Sweep) -> None:
    """The stand-in's minimum lies at lr x step = 0.05: 50 steps for 1e-3, 5 for 1e-2."""
    choices = "space={name: own, parameters: [{name: optimizer.lr, choices: [0.001, 0.01]}]}"
    given = (choices, "sweep.sampler.name=grid", "launch.slots=1")
    sweep.run(*given)
    slow, fast = sweep.folders()
    assert [item.read_facts().hyperparameters["lr"] for item in (slow, fast)] == [0.001, 0.01]
    before = fast.curve.stat().st_mtime_ns
    output = sweep.resume("budget.max_steps=256")
    assert "continued 0000" in output and "continued 0001" not in output
    assert steps(slow) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert fast.curve.stat().st_mtime_ns == before
    assert sweep.states() == {"COMPLETE": 2}
    assert sweep.outcomes() == ["complete"] * 2
    sweep.resume()
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [2, 1]
    assert "has 256; it can only grow" in sweep.resume("budget.max_steps=128", status=2)


@pytest.mark.long
def test_sweep_that_dies_while_it_trains_further_goes_on_with_it(sweep: Sweep) -> None:
    sweep.run("optimizer.lr=0.001", "space.parameters=[]", "sweep.trials=1")
    (folder,) = sweep.folders()
    process = sweep.start("resume", str(sweep.study), "budget.max_steps=256", hold=str(sweep.hold))
    wait_until(lambda: steps(folder)[-1] == 128, "half of the new steps")
    process.kill()
    process.communicate()
    wait_until(lambda: not sweep.trainers(), "no trainer")
    sweep.resume("budget.max_steps=256")
    assert steps(folder) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert sweep.outcomes() == ["complete"] and sweep.states() == {"COMPLETE": 1}


def test_other_schedules_cannot_be_prolonged(sweep: Sweep) -> None:
    sweep.run("optimizer.schedule=cosine", "sweep.trials=1")
    output = sweep.resume("budget.max_steps=256", status=2)
    assert "with optimizer.schedule=cosine more steps are another schedule" in output


def test_run_that_kept_no_state_is_left_as_it_is(sweep: Sweep) -> None:
    sweep.run("optimizer.lr=0.001", "space.parameters=[]", "sweep.trials=1")
    (folder,) = sweep.folders()
    (folder.checkpoints / "last" / "state.json").unlink()
    (folder.checkpoints / "last").rmdir()
    output = sweep.resume("budget.max_steps=256")
    assert "kept no training state, so it cannot be trained further" in output
    assert steps(folder)[-1] == 64


@pytest.mark.parametrize(
    ("losses", "risen"),
    [
        ([1.0, 0.5, 0.4], False),
        ([1.0, 0.5, 0.57, 0.58], True),
        ([1.0, 0.5, 0.57, 0.54], False),
        ([1.0, 0.5, 0.54, 0.57], False),
        ([1.0, 0.5], False),
        ([], False),
    ],
)
def test_a_rise_is_two_evaluations_a_tenth_of_the_gain_above_the_best(
    losses: list[float], risen: bool
) -> None:
    assert has_risen(losses) is risen
