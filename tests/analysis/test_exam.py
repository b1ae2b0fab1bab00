"""The exam of stop rules: costs by hand, tuning on other image sets, intervals, and the commands on simulated runs."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
import pytest

from analysis.exam.curve_scores import crps, score, true_minimum
from analysis.exam.examine import Examined, difference
from analysis.exam.intervals import bootstrap
from analysis.exam.outcomes import Outcome, examined_runs, image_sets, outcome
from analysis.exam.policies import Memory, Policy, policies, replay_rule
from analysis.exam.tuning import mean_over_sets, tune
from analysis.load import load_study, read_run
from analysis.replay import replay
from analysis.run import Run
from conf.errors import RequestError
from curves.point import Point
from curves.posterior import Curve
from curves.run_folder import RunFolder, Status
from curves.stopping.calibration import read_calibrations
from curves.stopping.registry import RULES
from tests.analysis.make_logs import Command
from tests.analysis.make_runs import Spec, make_run, run_facts

# Gain 4, minimum at 20 of 40 steps.
LOSSES = {0: 10.0, 10: 8.0, 20: 6.0, 30: 7.0, 40: 9.0}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run whose costs are easily reckoned: 4 images, batch 4."""
    folder = RunFolder(tmp_path / "by-hand")
    folder.path.mkdir()
    folder.write_facts(run_facts(Spec(horizon=40)))
    for step, loss in LOSSES.items():
        folder.append_point(Point(step, lr_sum=step * 1e-3, val_loss=loss, panel="panel-a"))
    folder.write_status(Status(state="ended", step=40, outcome="complete"))
    return read_run(folder)


@pytest.mark.parametrize(
    ("rule", "parameters", "last", "regret"),
    [
        ("none", {}, 40, 0.0),
        ("patience", {"patience": 1}, 30, 0.0),
        ("gl", {"alpha": 0.5}, 40, 0.0),  # 1 and then 3 above the best, of a gain of 4
        ("fixed", {"steps": 10}, 10, 0.5),
        ("fixed", {"steps": 1}, 10, 0.5),  # the first evaluation after it
        ("fixed", {"steps_per_image": 25.0}, 30, 0.0),  # 25 steps: the best of those before is kept
    ],
)
def test_regret_and_steps_by_hand(
    run: Run, rule: str, parameters: dict[str, float], last: int, regret: float
) -> None:
    found = replay_rule(run, rule, parameters)
    assert found == Outcome(regret, last / 40, last / 20)
    assert found.cost(0.4) == pytest.approx(regret + 0.4 * last / 40)
    assert found.cost(0.4, "minimum") == pytest.approx(regret + 0.4 * last / 20)


def test_the_last_checkpoint_is_paid_for_where_it_is_kept(run: Run) -> None:
    assert outcome(run, 40, 40).regret == pytest.approx(0.75)


def test_policies_by_hand(run: Run) -> None:
    known = {policy.name: policy for policy in policies(Memory())}
    assert {policy.rule for policy in known.values()} == {*RULES, None}
    best, last = known["share of the length*"], known["the same, last kept*"]
    assert best.outcome(run, {"share": 1.0}) == Outcome(0.0, 1.0, 2.0)
    assert last.outcome(run, {"share": 1.0}) == Outcome(0.75, 1.0, 2.0)
    assert best.outcome(run, {"share": 0.3}) == last.outcome(run, {"share": 0.3}) == Outcome(0.5, 0.25, 0.5)
    unknown = replace(run, facts=replace(run.facts, images=None))
    assert known["steps per image"].outcome(unknown, {"steps_per_image": 5.0}) is None
    for policy in known.values():
        assert policy.remark or not policy.name.endswith("*")


SETS = np.array(["a", "a", "b", "b"])


def test_tuning_takes_what_is_best_on_the_other_image_set() -> None:
    costs = np.array([[5.0, 5, 5, 5], [1, 1, 4, 4], [4, 4, 2, 2]])
    tuned = tune(costs, SETS)
    assert tuned.chosen.tolist() == [2, 2, 1, 1]
    assert tuned.cost.tolist() == [4, 4, 4, 4]


def test_tuning_with_three_sets_takes_the_best_on_the_two_others() -> None:
    sets = np.array(["a", "b", "c", "c", "c"])
    # Candidate 1 is best on c by far; by runs it would also win for a, by sets it does not.
    costs = np.array([[1.0, 0.0, 2, 2, 2], [1.0, 3.0, 0, 0, 0]])
    assert tune(costs, sets).chosen.tolist() == [0, 1, 0, 0, 0]


def test_one_image_set_leaves_the_defaults() -> None:
    costs = np.array([[5.0, 5], [1, 1]])
    assert tune(costs, np.array(["a", "a"])).cost.tolist() == [5, 5]


def test_runs_to_which_a_policy_does_not_apply_count_nowhere() -> None:
    costs = np.array([[np.nan, 1.0, 3.0, np.nan]])
    assert tune(costs, SETS).cost[1:3].tolist() == [1, 3]
    assert mean_over_sets(costs, SETS).tolist() == [2]


def test_every_image_set_weighs_the_same() -> None:
    assert mean_over_sets(np.array([0.0, 0, 0, 1]), np.array(["a", "a", "a", "b"])) == 0.5


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    random = np.random.default_rng(0)
    sets = np.repeat([f"s{i}" for i in range(8)], 4)
    noise = 0.05 * np.repeat(random.standard_normal(8), 4) + 0.05 * random.standard_normal(32)
    planted = bootstrap(noise - 0.2, sets)
    assert planted.low < -0.2 < planted.high < 0
    assert planted.excludes_zero
    assert planted.mean == pytest.approx(float((noise - 0.2).mean()))
    assert not bootstrap(noise - noise.mean(), sets).excludes_zero


def test_intervals_cover_about_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    sets = np.repeat([f"s{i}" for i in range(10)], 3)
    covered = [
        (found := bootstrap(np.repeat(random.standard_normal(10), 3), sets, seed)).low < 0 < found.high
        for seed in range(200)
    ]
    assert 0.85 <= np.mean(covered) <= 0.97  # the percentile interval of ten values is a little short


def test_runs_within_sets_are_drawn_only_where_there_are_few_sets() -> None:
    means, wiggle = np.array([0.1, 0.2]), np.array([-0.3, 0.3])
    flat, spread = np.repeat(means, 2), (means[:, None] + wiggle).ravel()
    few = [bootstrap(values, SETS) for values in (flat, spread)]
    assert few[0].low == pytest.approx(0.1)
    assert few[1].low < few[0].low
    sets = np.repeat(["a", "b", "c"], 2)
    many = [bootstrap(np.concatenate([values, [0.3, 0.3]]), sets) for values in (flat, spread)]
    assert many[0].low == pytest.approx(many[1].low)


def test_crps_of_a_normal_is_the_closed_form() -> None:
    draws = np.random.default_rng(0).standard_normal(20_000)
    # Gneiting and Raftery 2007, equation 20, at the mean: (2 phi(0) - 1 / sqrt(pi)) sigma.
    assert crps(draws, 0.0) == pytest.approx(2 / np.sqrt(2 * np.pi) - 1 / np.sqrt(np.pi), abs=0.01)
    assert crps(np.full(10, 3.0), 1.0) == pytest.approx(2.0)


def test_the_minimum_of_a_flat_bottom_is_its_middle() -> None:
    steps = np.array([0, 10, 20, 40, 80, 160])
    losses = np.array([2.0, 1.5, 1.015, 1.0, 1.01, 1.5])
    assert true_minimum(Curve(steps, steps * 1e-3, losses)) == pytest.approx(40)  # of 20, 40 and 80
    assert true_minimum(Curve(steps[:5], steps[:5] * 1e-3, losses[:5])) is None  # it may go on


def test_the_better_of_two_policies_is_told_by_sign() -> None:
    def examined(name: str, regrets: list[float]) -> Examined:
        outcomes = np.array([[Outcome(value, 0.5, 1.0) for value in regrets]], dtype=object)
        return Examined(Policy(name, ({},), lambda run, given: None), outcomes, SETS)

    ours, other = examined("ours", [0.1, 0.1, 0.2, 0.2]), examined("other", [0.3, 0.3, 0.4, 0.4])
    found = difference(ours, other, 0.1)
    assert found.mean == pytest.approx(-0.2)
    assert found.excludes_zero
    assert difference(ours, other, 0.1, "minimum") == found


SIMULATED = [
    Spec(dataset=dataset, seed=seed, best_time=best_time, horizon=400, noise=0.02)
    for dataset, best_time in (("cats", 0.08), ("dogs", 0.12))
    for seed in range(2)
]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two image sets of two runs; one run twice, one that was pruned, one without a gain."""
    root = tmp_path_factory.mktemp("exam")
    for number, spec in enumerate(SIMULATED):
        make_run(root / f"{spec.dataset}-{number}", spec)
    make_run(root / "again", SIMULATED[0])
    make_run(root / "pruned", replace(SIMULATED[0], seed=7, outcome="pruned"))
    make_run(root / "no-gain", replace(SIMULATED[0], seed=8, gain=-0.004))
    return root


def test_which_runs_are_examined(study: Path) -> None:
    runs = examined_runs(load_study(study))
    assert [run.name for run in runs] == ["again", "cats-1", "dogs-2", "dogs-3"]
    assert image_sets(runs).tolist() == ["cats", "cats", "dogs", "dogs"]
    assert image_sets(runs, "images").tolist() == ["4"] * 4
    assert len(set(image_sets(runs, "run"))) == 4


def test_nothing_finished_is_a_wrong_request(tmp_path: Path) -> None:
    make_run(tmp_path / "pruned", Spec(outcome="pruned"))
    with pytest.raises(RequestError, match="no finished run"):
        replay(load_study(tmp_path))


@pytest.mark.parametrize("kappa", [0.05, 0.8])
def test_remembered_appraisals_change_no_decision(study: Path, kappa: float) -> None:
    run = examined_runs(load_study(study))[2]
    memory = Memory()
    replay_rule(run, "posterior", {"kappa": 0.01}, memory)
    fitted = len(memory.known)
    with_memory = replay_rule(run, "posterior", {"kappa": kappa}, memory)
    assert with_memory == replay_rule(run, "posterior", {"kappa": kappa})
    assert len(memory.known) == fitted > 0
    assert with_memory.horizons < 1


def test_the_posterior_is_scored_against_the_recorded_minimum(study: Path) -> None:
    run = examined_runs(load_study(study))[2]
    assert true_minimum(run.curve()) == pytest.approx(120, rel=0.3)  # lr_sum 0.12 at 1e-3
    late = score(run, 1.3)
    assert late is not None
    assert abs(late.log_error) < 0.7
    assert late.covered[-1]
    assert late.width == tuple(sorted(late.width))
    short = replace(run, points=run.points[:6])
    assert score(short, 1.3) is None  # its minimum was not reached


@pytest.fixture(scope="module")
def told(study: Path) -> str:
    """What the command prints, once."""
    from contextlib import redirect_stdout
    import io

    from analysis.__main__ import main

    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["replay", str(study)]) == 0
    return said.getvalue()


def test_the_exam_is_printed(told: str) -> None:
    assert "4 finished runs. Parameters are tuned for each price on the other image sets" in told
    assert "bootstrap interval over image sets and runs within them" in told
    none = next(line.split() for line in told.splitlines() if line.startswith("none"))
    assert none == ["none", "0.0", "0.0", "100", "0.050", "0.100", "0.200", "0.400"]
    for name in RULES:
        assert any(line.startswith(name) for line in told.splitlines()), name
    assert "0.8 of minimum" in told


def test_the_exam_is_recorded_and_drawn(told: str, study: Path) -> None:
    record = json.loads((study / "analysis" / "replay.json").read_text())
    assert record["image_sets"] == {"cats": 2, "dogs": 2}
    costs = {item["name"]: item["cost"]["horizon"] for item in record["policies"]}
    assert costs["none"] == pytest.approx([0.05, 0.1, 0.2, 0.4])
    # At a price at which the whole horizon is worth nearly half of the gain, looking ahead must pay.
    assert costs["posterior"][3] < costs["none"][3] - 0.1
    ours = next(item for item in record["policies"] if item["name"] == "posterior")
    assert [one[0]["kappa"] for one in ours["chosen"]["horizon"]] == [0.05, 0.1, 0.2, 0.4]
    chosen = next(item for item in record["policies"] if item["name"] == "fixed steps")["chosen"]["horizon"]
    assert all(len(one) == 2 for one in chosen)  # one set of parameters for each image set
    assert (
        chosen[3][0]["steps"] > chosen[3][1]["steps"]
    )  # cats get what was best for dogs, whose minimum is later
    figures = study / "analysis" / "figures"
    with Image.open(figures / "replay.png") as image:
        assert image.size[0] > 1000
    assert ElementTree.parse(figures / "replay.svg").getroot().tag.endswith("svg")


def test_tuned_parameters_are_what_train_py_takes(study: Path, tmp_path: Path, command: Command) -> None:
    path = tmp_path / "mine.json"
    status, said, _ = command(
        "tune", study, "--rule", "gl", "--price", "0.3", "--price", "0.02", "--to", path
    )
    assert status == 0
    assert f"stopping=calibrated stopping.parameters.path={path}" in said
    found = read_calibrations(path)
    assert [(item.price, item.rule) for item in found] == [(0.3, "gl"), (0.02, "gl")]
    assert found[0].tuned_on["image_sets"] == ["cats", "dogs"]
    assert found[0].tuned_on["runs"] == 4
    runs = examined_runs(load_study(study))
    costs = [
        np.mean([replay_rule(run, "gl", {"alpha": alpha}).cost(0.3) for run in runs])
        for alpha in (found[0].parameters["alpha"], 0.005, 0.1, 2.0)
    ]
    assert costs[0] == pytest.approx(min(costs))
    assert costs[0] == pytest.approx(found[0].tuned_on["mean_cost"], abs=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--rule", "none"], "--rule none: must be one of posterior, fixed, patience, gl, up, pq, dvar"),
        (["--sets", "colour"], "--sets colour: must be run or a level of the cells: "),
    ],
)
def test_wrong_requests(study: Path, tmp_path: Path, command: Command, words: list[str], said: str) -> None:
    status, _, error = command("tune", study, "--to", tmp_path / "c.json", *words)
    assert status == 2
    assert said in error
    assert not (tmp_path / "c.json").exists()
