"""The stop rules fed with recorded curves: what each would have cost (method.md section 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from analysis.load import Study
from analysis.run import Run
from analysis.table import Table, print_table
from analysis.verify import RULE_OF_THUMB
from conf.errors import RequestError
from curves.stopping.registry import RULES, make_rule

PRICES = (0.05, 0.1, 0.2, 0.4)
FINISHED = ("complete", "stopped")
SHARES = (0.25, 0.5)  # of the horizon, for the rules that look at nothing


@dataclass(frozen=True)
class Replayed:
    """One rule on one run: regret of the kept checkpoint in gain, and the share of the recorded steps."""

    regret: float
    share: float


Policy = Callable[[Run], Replayed | None]


def replay(study: Study) -> dict[str, list[Replayed]]:
    """Every policy on every finished run that shows a gain over the untouched base.

    Raises:
        RequestError: there is no such run.
    """
    runs = [run for run in study.runs if run.outcome in FINISHED and run.has_base and _gain(run) > 0]
    if not runs:
        without = "" if any(run.has_base for run in study.runs) else ": none was measured at step 0"
        raise RequestError(f"{study.root}: no finished run has a gain to measure regret in{without}")
    policies: dict[str, Policy] = {name: _rule_policy(name) for name in RULES}
    policies |= {f"{share:.0%} of the horizon": _share_policy(share) for share in SHARES}
    policies[f"{RULE_OF_THUMB} steps per image / batch"] = _thumb_policy
    results = {name: [policy(run) for run in runs] for name, policy in policies.items()}
    kept = {name: [item for item in items if item is not None] for name, items in results.items()}
    return {name: items for name, items in kept.items() if items}


def _gain(run: Run) -> float:
    loss = run.curve().loss
    return float(loss[0] - loss.min()) if len(loss) > 1 else 0.0


def _rule_policy(name: str) -> Policy:
    def policy(run: Run) -> Replayed:
        rule = make_rule(name, horizon_steps=run.facts.horizon, horizon_lr_sum=run.facts.horizon_lr_sum)
        kept, last = run.points[0].step, run.points[-1].step
        for point in run.points:
            decision = rule.update(point)
            kept = kept if decision.keep_step is None else decision.keep_step
            if decision.stop:
                last = point.step
                break
        return Replayed(_regret(run, kept), last / run.points[-1].step)

    return policy


def _share_policy(share: float) -> Policy:
    return lambda run: _stopped_at(run, share * run.facts.horizon)


def _thumb_policy(run: Run) -> Replayed | None:
    if run.facts.images is None:  # of another tool's log
        return None
    return _stopped_at(
        run, RULE_OF_THUMB * run.facts.images / int(run.facts.hyperparameters.get("batch") or 1)
    )


def _stopped_at(run: Run, steps: float) -> Replayed:
    """Train so many steps without looking and keep the last checkpoint, taken at the nearest evaluation."""
    end = run.points[-1].step
    nearest = min(run.points, key=lambda point: abs(point.step - min(steps, end)))
    return Replayed(_regret(run, nearest.step), nearest.step / end)


def _regret(run: Run, step: int) -> float:
    """(recorded loss at the step - lowest recorded loss) / gain."""
    curve = run.curve()
    at = float(curve.loss[curve.steps == step][0])
    return (at - float(curve.loss.min())) / _gain(run)


def replay_table(results: dict[str, list[Replayed]]) -> Table:
    """Mean regret, 90th percentile, share of steps, and J = regret + price x share at each price."""
    titles = ["rule", "regret %", "90th %", "steps %", *(f"J({price:g})" for price in PRICES)]
    rows = []
    for name, items in results.items():
        regret = np.array([item.regret for item in items])
        share = np.array([item.share for item in items])
        costs = [f"{np.mean(regret + price * share):.3f}" for price in PRICES]
        rows.append(
            [
                name,
                f"{100 * regret.mean():.1f}",
                f"{100 * np.quantile(regret, 0.9):.1f}",
                f"{100 * share.mean():.0f}",
                *costs,
            ]
        )
    return Table(titles, rows, frozenset({"rule"}))


def print_replay(study: Study) -> None:
    """Print the table with what its columns mean."""
    results = replay(study)
    print_table(replay_table(results))
    count = len(next(iter(results.values())))
    print(
        f"\n{count} finished runs. regret: of the kept checkpoint, in gain, over the lowest recorded loss.\n"
        "steps: share of the recorded ones. J: regret + price x share of steps.\n"
        "Stop rules keep the best checkpoint; fixed budgets the last.\n"
        "A run that was itself stopped early hides what came after."
    )
