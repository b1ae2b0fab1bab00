"""A parameter set as a trunk and its branches: when they start, what they are told, and what becomes of them."""

import json
import os
import signal
from typing import Any

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from curves.run_folder import RunFolder
from sweep.branches import branching_steps, budgets, trained_steps
from sweep.cells import make_request
from sweep.plan import make_plan
from tests.sweep.harness import Sweep, wait_until

pytestmark = pytest.mark.long

COOLDOWN = (
    "stopping=none",
    "sweep.sampler.name=qmc",
    "space.parameters=[]",
    "optimizer.lr=0.001",
    "sweep.trials=1",
    "sweep.cooldown={branches: 3, ratio: 2.0, decay_share: 0.25}",
)
STARTS = {16: 12, 32: 24, 64: 48}


def told(sweep: Sweep, folder: RunFolder) -> dict[str, str]:
    """The overrides of a trial's first session, the last of a key."""
    pairs = (item.split("=", 1) for item in sweep.sessions(folder)[0]["overrides"])
    return {key.lstrip("+"): value.strip("'") for key, value in pairs}


def test_each_budget_branches_off_the_trunk(sweep: Sweep) -> None:
    output = sweep.run(*COOLDOWN)
    trunk, *branches = sweep.folders()
    assert sweep.outcomes() == ["complete"] * 4 and sweep.states() == {"COMPLETE": 4}
    assert trunk.kept_steps() == sorted(STARTS.values())
    of_trunk = told(sweep, trunk)
    assert (of_trunk["evaluation.average_share"], of_trunk["checkpoints.keep"]) == ("0.25", "[12,24,48]")
    assert "optimizer.schedule" not in of_trunk
    for folder, budget in zip(branches, STARTS, strict=True):
        own = told(sweep, folder)
        assert own["budget.trunk"] == str(trunk.path) and own["budget.max_steps"] == str(budget)
        assert (own["optimizer.schedule"], own["optimizer.decay_share"]) == ("warmup_stable_decay", "0.25")
        assert own["seed"] == of_trunk["seed"]
        assert folder.points()[-1].step == budget
        assert f"started {folder.path.name} (budget.max_steps={budget})" in output
    # what branches did not train themselves is not spent
    spent = json.loads((sweep.study / "spent.json").read_text())["spent"]
    assert spent["steps"] == 64 + 4 + 8 + 16


def test_a_branch_starts_once_its_trunk_has_come_past_it(sweep: Sweep) -> None:
    """The trunk waits at step 32 of 64: the branches of 16 and 32 steps end meanwhile, the last one is not started."""
    process = sweep.start("run", *sweep.arguments(*COOLDOWN), hold=str(sweep.hold))

    def two_branches() -> bool:
        return [folder.outcome() for folder in sweep.folders()[1:]] == ["complete"] * 2

    wait_until(two_branches, "both branches that can start")
    assert len(list(sweep.study.glob("trials/*"))) == 3
    assert sweep.folders()[0].outcome() is None
    sweep.hold.touch()
    sweep.end_of(process, 0)
    assert sweep.outcomes() == ["complete"] * 4


@pytest.mark.parametrize("victim", ["branch", "supervisor"])
def test_kill_in_a_branch(sweep: Sweep, victim: str) -> None:
    half = "sweep.cooldown={branches: 3, ratio: 2.0, decay_share: 0.6}"  # branches hold after they have begun
    process = sweep.start("run", *sweep.arguments(*COOLDOWN[:-1], half), hold=str(sweep.hold))

    def holds() -> Any:
        folder = next(iter(sweep.study.glob("trials/0001-*")), None)
        status = RunFolder(folder).read_status() if folder else None
        return status is not None and status.step == 8 and status.pid

    pid = wait_until(holds, "the branch at half of its steps")
    branch = sweep.folders()[1]
    if victim == "branch":
        os.kill(pid, signal.SIGKILL)
        sweep.hold.touch()
        sweep.end_of(process, 0)
    else:
        process.kill()
        process.communicate()
        wait_until(lambda: not sweep.trainers(), "no trainer")
        sweep.resume()
    assert sweep.outcomes() == ["complete"] * 4 and sweep.states() == {"COMPLETE": 4}
    assert len(sweep.sessions(branch)) == 2
    assert [folder.points()[-1].step for folder in sweep.folders()] == [64, 16, 32, 64]


@pytest.mark.parametrize("end", ["diverge", "crash"])
def test_branches_of_a_trunk_that_fails_end_as_it_did(sweep: Sweep, end: str) -> None:
    """At step 32 of 64 the trunk has kept the states of two branches; the third is not trained."""
    sweep.run(*COOLDOWN, "launch.retries=0", **{end: [0]})
    outcome = {"diverge": "diverged", "crash": "crashed"}[end]
    assert sweep.outcomes() == [outcome, "complete", "complete"]
    (last,) = sweep.study.glob("trials/0003-*")
    verdict = RunFolder(last).read_verdict()
    assert verdict is not None and verdict.outcome == outcome
    assert f"ended ({outcome}) at step 32, before this branch" in verdict.reason
    assert sweep.states() == {"COMPLETE": 2, "FAIL": 2}
    before = sorted(path.name for path in sweep.study.glob("trials/*"))
    assert "4 of 4" in sweep.end_of(sweep.start("status", str(sweep.study)), 0)
    sweep.resume()
    assert sorted(path.name for path in sweep.study.glob("trials/*")) == before


def test_more_trunks_but_no_other_budgets(sweep: Sweep) -> None:
    sweep.run(*COOLDOWN)
    sweep.resume("sweep.trials=2")
    assert sweep.outcomes() == ["complete"] * 8
    trunks = [told(sweep, folder)["budget.trunk"] for folder in sweep.folders()[5:]]
    assert trunks == [str(sweep.folders()[4].path)] * 3
    seeds = [told(sweep, folder)["seed"] for folder in sweep.folders()]
    assert len(set(seeds[:4])) == len(set(seeds[4:])) == 1 and seeds[0] != seeds[4]
    assert "trunks and their branches have the budgets" in sweep.resume("budget.max_steps=128", status=2)


def test_what_all_budgets_cost() -> None:
    request = make_request(["experiment=cooldown"])
    assert budgets(request.config) == [91, 128, 181, 256, 362, 512]
    starts = branching_steps(request.config)
    assert trained_steps(request.config) == [
        512,
        *(b - s for b, s in zip(budgets(request.config), starts, strict=True)),
    ]
    text = "\n".join(make_plan(request).lines())
    assert "1 cells x 1 trials x (a trunk and 6 branches) = 7 trials" in text
    assert "1.46 times the longest, 2.99 from scratch" in text and "steps: at most 745" in text


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (["optimizer.schedule=cosine"], "set optimizer.schedule=constant with sweep.cooldown"),
        (
            ["sweep.cooldown={budgets: [128, 600]}"],
            "600 lies beyond the trunk, which has budget.max_steps=512",
        ),
        (["stopping=evidence"], "stopping=none with sweep.cooldown"),
        (["optimizer.warmup_steps=90"], "the shortest branch, of 91 steps, decays from step 77 on"),
        (["budget.trunk=runs/x"], "budget.trunk=runs/x: sweep.cooldown decides it"),
        (["evaluation.average_share=0.2"], "evaluation.average_share=0.2: sweep.cooldown decides it"),
        (["space.parameters=[{name: budget.max_steps, choices: [64, 128]}]"], "searches budget.max_steps"),
        (["sweep.sampler.name=tpe"], "use qmc, random or grid"),
        (["sweep.pruner.name=median"], "set sweep.pruner.name=none"),
        (["sweep.cooldown.ratio=1"], "sweep.cooldown.ratio=1: must be above 1"),
        (["sweep.cooldown={budgets: [128, 64]}"], "must rise"),
        (["sweep.cooldown.decay_share=0"], "must lie in (0, 1]"),
        (["sweep.cooldown.branches=-1"], "must be 0 (none) or more"),
    ],
)
def test_mistakes(given: list[str], complaint: str) -> None:
    with pytest.raises(RequestError) as refused:
        make_request(["experiment=cooldown", *given])
    assert complaint in str(refused.value)


def test_without_cooldowns_nothing_is_different() -> None:
    assert budgets(load_config([])) == [] and make_request([]).runs_a_trial == 1
