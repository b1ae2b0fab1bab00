"""Stop rules: one suite over all of them, then what each is for."""

from __future__ import annotations

from collections import defaultdict
import csv
from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np
import pytest

from curves.posterior import Curve
from curves.stopping.base import Decision, EvaluationRule
from curves.stopping.registry import RULES, make_rule
from tests.curves.simulate import Truth, evaluation_steps, simulated

LR = 1e-4
EXAM = Path(__file__).parents[2].parent / "shared" / "exam" / "val_curves.csv"


@dataclass(frozen=True)
class Record:
    """A point as the trainer gives it."""

    step: int
    lr_sum: float | None
    val_loss: float | None
    image_loss: list[float] | None = None
    delta: float | None = None
    delta_se: float | None = None


def records(curve: Curve) -> list[Record]:
    return [
        Record(int(s), float(t), float(v))
        for s, t, v in zip(curve.steps, curve.lr_sum, curve.loss, strict=True)
    ]


def rule_for(name: str, horizon: int, **parameters: float) -> EvaluationRule:
    return make_rule(name, horizon_steps=horizon, horizon_lr_sum=horizon * LR, **parameters)


def replay(rule: EvaluationRule, points: list[Record]) -> tuple[int, Decision]:
    """Step of the stop, or the last one; and the decision there."""
    decision = Decision(False)
    for point in points:
        decision = rule.update(point)
        if decision.stop:
            return point.step, decision
    return points[-1].step, decision


def full_run(seed: int = 1) -> tuple[Curve, Truth]:
    return simulated(seed, cut=6.0)


@pytest.mark.parametrize("name", sorted(RULES))
def test_state_round_trips_through_json_with_identical_decisions(name: str) -> None:
    curve, truth = full_run()
    points = records(curve)
    one, other = (rule_for(name, 6 * truth.step) for _ in range(2))
    for index, point in enumerate(points[-16:]):
        state = json.loads(json.dumps(one.state_dict()))
        other = rule_for(name, 6 * truth.step)
        other.load_state_dict(state)
        assert other.update(point) == one.update(point), index


@pytest.mark.parametrize("name", sorted(RULES))
def test_training_points_and_non_finite_losses_are_survived(name: str) -> None:
    rule = rule_for(name, 1000)
    assert rule.update(Record(0, 0.0, None)) == Decision(False)
    for step, loss in enumerate([1.0, float("nan"), float("inf"), 0.9], start=1):
        assert not rule.update(Record(step, step * LR, loss)).stop
    assert rule.update(Record(9, None, None)).keep_step == 4


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_warm_up_at_zero_and_a_divergence_are_survived(name: str) -> None:
    curve, truth = full_run()
    rule = rule_for(name, 6 * truth.step)
    for point in records(curve)[:6]:
        assert not rule.update(Record(point.step, 0.0, point.val_loss)).stop
    for point in records(curve)[6:20]:
        rule.update(point)
    for step, loss in ((50_000, 1e30), (60_000, 1e300)):
        rule.update(Record(step, step * LR, loss))
    assert rule.best is not None and rule.best.val_loss < 1


@pytest.mark.parametrize("name", sorted(RULES))
def test_another_rules_state_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="state of rule"):
        rule_for(name, 100).load_state_dict({"rule": "other", "evaluations": [], "stopped": None})


def test_unknown_names_and_parameters_list_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="evidence, none, patience, posterior"):
        rule_for("patiense", 100)
    with pytest.raises(ValueError, match=r"no parameter kapa; it has .*kappa"):
        rule_for("posterior", 100, kapa=1.0)
    with pytest.raises(ValueError, match="needs horizon_lr_sum"):
        make_rule("none", horizon_steps=10)
    with pytest.raises(ValueError, match="positive horizon"):
        make_rule("none", horizon_steps=0, horizon_lr_sum=1.0)


@pytest.mark.parametrize(
    ("losses", "patience", "min_delta", "stops_at"),
    [
        ([5, 4, 3, 3, 3], 2, 0.0, 4),
        ([5, 4, 3, 2, 1], 2, 0.0, None),
        ([5, 4, 3, 3.1, 2.9, 3, 3], 2, 0.0, 6),
        ([5, 3, 2.9, 2.8, 2.7], 2, 0.2, 3),
        ([5, float("nan"), float("nan")], 2, 0.0, 2),
        ([5, 6, 7], 2, 0.0, 2),
    ],
)
def test_patience(losses: list[float], patience: int, min_delta: float, stops_at: int | None) -> None:
    rule = rule_for("patience", 100, patience=patience, min_delta=min_delta)
    stops = [rule.update(Record(i, i * LR, loss)).stop for i, loss in enumerate(losses)]
    assert (stops.index(True) if True in stops else None) == stops_at


def test_none_runs_on_and_keeps_the_best() -> None:
    curve, _ = full_run()
    step, decision = replay(rule_for("none", int(curve.steps[-1])), records(curve))
    assert step == curve.steps[-1] and decision.keep_step == curve.steps[np.argmin(curve.loss)]


def test_evidence_passes_the_minimum_and_does_not_go_on_for_ever() -> None:
    ratios = []
    for seed in range(4):
        curve, truth = full_run(seed)
        step, decision = replay(rule_for("evidence", 6 * truth.step), records(curve))
        assert decision.stop and "minimum is passed" in decision.reason
        ratios.append(step / truth.step)
    assert min(ratios) > 0.9 and max(ratios) < 4


@pytest.mark.long
def test_the_posterior_rule_loses_little_and_a_dearer_step_stops_sooner() -> None:
    costs = []
    for seed in range(3):
        curve, truth = full_run(seed)
        steps = [
            replay(rule_for("posterior", 6 * truth.step, kappa=kappa), records(curve))[0]
            for kappa in (0.02, 1.0)
        ]
        assert steps[1] <= steps[0]
        _, decision = replay(rule_for("posterior", 6 * truth.step), records(curve))
        assert decision.stop and decision.keep_step is not None
        costs.append(truth.regret(decision.keep_step))
    assert np.mean(costs) < 0.1


@pytest.mark.parametrize("name", ["evidence", "posterior"])
def test_a_run_that_only_gets_worse_is_ended_as_futile(name: str) -> None:
    steps = evaluation_steps(1000)
    loss = 0.05 + 5e-3 * (steps / 1000) + 1e-5 * np.random.default_rng(0).standard_normal(len(steps))
    step, decision = replay(rule_for(name, 1000), records(Curve(steps, steps * LR, loss)))
    assert decision.stop and "no gain" in decision.reason and 100 <= step < 700


@pytest.mark.parametrize("name", ["evidence", "posterior"])
def test_an_early_bump_is_not_taken_for_futility(name: str) -> None:
    curve, truth = full_run()
    loss = curve.loss.copy()
    loss[1:9] = loss[0] + truth.gain * np.linspace(0.2, 0.6, 8)
    step, _ = replay(rule_for(name, 6 * truth.step), records(Curve(curve.steps, curve.lr_sum, loss)))
    assert step > curve.steps[9]


def test_gain_needs_a_paired_improvement_over_the_images() -> None:
    noisy = rule_for("evidence", 100)
    spread = np.linspace(-1, 1, 8)
    for step in range(6):
        images = [1.0 - 0.01 * step + 0.2 * step * s for s in spread]
        noisy.update(Record(step, step * LR, float(np.mean(images)), images))
    assert not noisy.gain_is_established()  # type: ignore[attr-defined]
    clean = rule_for("evidence", 100)
    for step in range(6):
        images = [1.0 - 0.01 * step + 0.002 * step * s for s in spread]
        clean.update(Record(step, step * LR, float(np.mean(images)), images))
    assert clean.gain_is_established()  # type: ignore[attr-defined]


@pytest.mark.skipif(not EXAM.exists(), reason="recorded curves are not beside this repository")
def test_recorded_curve_is_stopped_within_a_tenth_of_its_gain() -> None:
    rows: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with EXAM.open() as file:
        for row in csv.DictReader(file):
            rows[row["run"]].append((int(row["step"]), float(row["val"])))
    for name in ("dataset_size/aerochrome-50_lr5e-7", "dataset_size/aerochrome-100_lr5e-7"):
        points = [Record(step, step * 5e-7, loss) for step, loss in sorted(rows[name])]
        rule = make_rule("posterior", horizon_steps=10000, horizon_lr_sum=10000 * 5e-7)
        _, decision = replay(rule, points)
        losses = {p.step: p.val_loss for p in points if p.val_loss is not None}
        assert decision.keep_step is not None
        lowest = min(losses.values())
        assert (losses[decision.keep_step] - lowest) / (points[0].val_loss - lowest) < 0.1  # type: ignore[operator]
