"""Horizon and schedule together, from planted losses after a cooldown."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import json
from pathlib import Path
import shutil

import numpy as np
from numpy.typing import NDArray
import pytest

from analysis.horizons import Comparison, compare, find_families
from analysis.load import load_study
from analysis.recommend import analyse, write_analysis
from curves.panel import standard_error
from curves.point import Point
from curves.recommendation import IDENTITY
from curves.run_folder import RunFacts, RunFolder
from finetune.budget import apply_recommendation
from tests.analysis.make_runs import HELD_OUT, Spec, latent_regret, make_points, run_facts

Array = NDArray[np.float64]
BUDGETS = (75, 106, 150, 212, 300, 424, 600)
SHARE = 0.2


@dataclass(frozen=True)
class Planted:
    """A trunk, and branches whose end lies below it: `depth` of the gain, and `image_noise` of it an image."""

    depth: float = 0.3
    image_noise: float = 0.01
    averaged: bool = True
    offset: float = -0.02  # cooled minus averaged loss, in gain
    budgets: Sequence[int] = BUDGETS


def trunk_spec() -> Spec:
    return Spec(horizon=600, hyperparameters={"decay_share": None})


def cooled_loss(spec: Spec, budget: int, depth: float) -> float:
    """Below the base, in loss: its own U over the budgets, deeper by `depth` of the gain than the constant one's."""
    time = np.array([spec.lr * budget * (1 - SHARE / 2)])
    return float((1 + depth) * spec.gain * (latent_regret(time, spec.best_time)[0] - 1))


def plant(root: Path, planted: Planted) -> Path:
    """A study of one trunk and its branches."""
    spec, random = trunk_spec(), np.random.default_rng(7)
    points = make_points(spec)
    base = np.array(points[0].image_loss)

    def lowered(budget: int, shift: float = 0.0) -> Array:
        scatter = planted.image_noise * spec.gain * random.standard_normal(HELD_OUT)
        return base + cooled_loss(spec, budget, planted.depth) + shift * spec.gain + scatter - scatter.mean()

    trunk = [with_average(point, lowered(point.step, -planted.offset)) for point in points]
    write(root / "trials" / "0000-trunk", run_facts(spec), trunk if planted.averaged else points)
    for number, budget in enumerate(planted.budgets, start=1):
        facts = run_facts(spec)
        own = {"schedule": "warmup_stable_decay", "decay_share": SHARE, "horizon": budget}
        lr_sum = spec.lr * budget * (1 - SHARE / 2)
        facts = replace(
            facts,
            hyperparameters={**facts.hyperparameters, **own},
            horizon=budget,
            horizon_lr_sum=lr_sum,
            extra={"trunk": {"run": "0000-trunk", "step": int(budget * (1 - SHARE))}},
        )
        before = [point for point in points if point.step <= budget * (1 - SHARE)]
        end = measured(before[-1], budget, lr_sum, lowered(budget))
        write(root / "trials" / f"{number:04d}-branch", facts, [*before, end])
    return root


def with_average(point: Point, losses: Array) -> Point:
    if point.step == 0:
        losses = np.array(point.image_loss)
    return replace(point, averaged_loss=float(losses.mean()), averaged_image_loss=losses.tolist())


def measured(point: Point, step: int, lr_sum: float, losses: Array) -> Point:
    return replace(
        point,
        step=step,
        lr_sum=lr_sum,
        val_loss=float(losses.mean()),
        val_se=standard_error(losses),
        image_loss=losses.tolist(),
    )


def write(path: Path, facts: RunFacts, points: Sequence[Point]) -> None:
    folder = RunFolder(path)
    path.mkdir(parents=True)
    folder.write_facts(facts)
    for point in points:
        folder.append_point(point)


def compared(root: Path) -> Comparison:
    (cell,) = load_study(root).cells
    found = compare(cell)
    assert found is not None
    return found


def truth(depth: float) -> int:
    """The budget of the lowest planted loss."""
    return int(min(range(20, 601), key=lambda budget: cooled_loss(trunk_spec(), budget, depth)))


@pytest.mark.parametrize("averaged", [True, False])
def test_the_planted_horizon_lies_in_the_interval(tmp_path: Path, averaged: bool) -> None:
    found = compared(plant(tmp_path / "s", Planted(averaged=averaged)))
    chosen = found.answer
    likely = chosen.minimum or chosen.expected_minimum  # six losses alone may leave it open
    assert likely is not None and likely.low <= truth(0.3) <= likely.high
    assert chosen.status == "ok" or not averaged
    assert chosen.recommended_steps is None or chosen.recommended_steps <= likely.median
    sources = {item.source for item in found.cooled}
    assert sources == ({"branch", "average"} if averaged else {"branch"})


def test_no_horizon_below_the_smallest_budget_is_recommended(tmp_path: Path) -> None:
    """Between the base and the smallest budget nothing was measured."""
    late = [budget for budget in BUDGETS if budget >= 0.8 * truth(0.3)]
    found = compared(plant(tmp_path / "s", Planted(budgets=late))).answer
    if found.status == "ok":
        assert found.recommended_steps is not None and found.window is not None
        assert found.recommended_steps >= late[0] and found.window.low >= late[0]
    else:
        assert found.recommended_steps is None


def test_a_clearly_better_cooldown_is_recommended_with_its_horizon(
    tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    root = plant(tmp_path / "s", Planted())
    status, text, _ = command("recommend", root)
    assert status == 0 and "best warmup_stable_decay by" in text
    (cell,) = json.loads((root / "analysis" / "recommendation.json").read_text())["cells"]
    assert cell["status"] == "ok"
    own = cell["hyperparameters"]
    assert (own["schedule"], own["decay_share"]) == ("warmup_stable_decay", SHARE)
    assert own["horizon"] == cell["recommended_steps"] == cell["schedules"]["warmup_stable_decay"]["horizon"]
    assert cell["schedules"]["better"] == "warmup_stable_decay" and cell["schedules"]["clear"]
    # planted: 1.3 gains of the constant schedule, so the difference is 0.3 of 1.3
    assert cell["schedules"]["share_of_gain"] == pytest.approx(0.3 / 1.3, abs=0.04)
    assert cell["schedules"]["constant"]["status"] == "ok"


def test_budget_recommended_takes_schedule_and_horizon(tmp_path: Path) -> None:
    from conf.compose import load_config

    root = plant(tmp_path / "s", Planted())
    analysis = analyse(load_study(root))
    write_analysis(analysis)
    row = analysis.recommendation.cells[0]
    identity = {name: getattr(row, name) for name in IDENTITY}
    config = load_config(["budget=recommended", f"budget.study={root}"])
    taken, _ = apply_recommendation(config, identity, 1)
    assert (taken.optimizer.schedule, taken.optimizer.decay_share) == ("warmup_stable_decay", SHARE)
    assert taken.budget.max_steps == taken.budget.horizon == row.recommended_steps


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (Planted(depth=-0.3), "best constant by"),
        (Planted(depth=0.02, image_noise=0.3), "which is no clear difference"),
    ],
)
def test_otherwise_the_constant_learning_rate_stays(tmp_path: Path, planted: Planted, words: str) -> None:
    row = analyse(load_study(plant(tmp_path / "s", planted))).recommendation.cells[0]
    assert row.status == "ok" and words in row.reason
    assert row.hyperparameters["schedule"] == "constant" and "horizon" not in row.hyperparameters


def test_branches_without_their_trunk_have_nothing_to_compare_with(tmp_path: Path) -> None:
    root = plant(tmp_path / "alone", Planted())
    shutil.rmtree(root / "trials" / "0000-trunk")
    (row,) = analyse(load_study(root)).recommendation.cells
    assert "there is no trunk at constant learning rate to compare with" in row.reason
    assert row.schedules is not None and row.schedules["better"] is None
    losses = row.schedules["warmup_stable_decay"]["losses"]
    assert [item["steps"] for item in losses] == list(BUDGETS)


def test_three_budgets_are_refused(tmp_path: Path) -> None:
    root = plant(tmp_path / "s", Planted(budgets=(150, 300, 600)))
    found = compared(root)
    assert (found.answer.status, found.answer.reason) == (
        "refused",
        "3 budgets were cooled down, 4 are needed",
    )
    row = analyse(load_study(root)).recommendation.cells[0]
    assert row.hyperparameters["schedule"] == "constant" and "3 budgets were cooled down" in row.reason


def test_budgets_that_all_lie_before_the_minimum_give_no_horizon(tmp_path: Path) -> None:
    found = compared(plant(tmp_path / "s", Planted(budgets=(40, 53, 75, 106), averaged=False)))
    assert found.answer.status in ("not_reached", "refused") and found.answer.recommended_steps is None


def test_the_average_reads_the_budgets_that_have_no_branch(tmp_path: Path) -> None:
    """Fitted on the smallest and the largest budget, it is right at the evaluations between, within its error."""
    planted = Planted(budgets=(75, 600))
    found = compared(plant(tmp_path / "s", planted))
    assert found.offset is not None and found.offset.fitted_on == (75, 600)
    spec = trunk_spec()
    assert found.offset.value == pytest.approx(planted.offset * spec.gain, abs=2 * found.offset.se)
    read = [item for item in found.cooled if item.source == "average"]
    base = float(np.mean(make_points(spec)[0].image_loss or []))
    assert len(read) > 8
    for item in read:
        true = base + cooled_loss(spec, item.steps, planted.depth)
        assert item.se is not None and abs(item.loss - true) < 3 * item.se


def test_runs_of_one_horizon_are_no_family(tmp_path: Path) -> None:
    root = plant(tmp_path / "s", Planted(budgets=(300,)))
    (cell,) = load_study(root).cells
    assert find_families(cell) == [] and compare(cell) is None


def test_a_branch_that_has_not_ended_is_left_out(tmp_path: Path) -> None:
    root = plant(tmp_path / "s", Planted())
    RunFolder(root / "trials" / "0007-branch").cut_curve(400)
    found = compared(root)
    assert [run.facts.horizon for run in found.family.branches] == list(BUDGETS[:-1])
