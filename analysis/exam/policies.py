"""What is examined: the stop rules with the parameters that are tuned over, and budgets that look at nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import product
import math

import numpy as np

from analysis.exam.outcomes import PRICES, Outcome, outcome
from analysis.run import Run
from curves.stopping.appraisal import Appraisal, Outlook, appraise
from curves.stopping.evidence import PosteriorBased
from curves.stopping.registry import make_rule

Parameters = Mapping[str, float | int | None]
POSTERIOR = "posterior"


@dataclass
class Memory:
    """Appraisals of the curves so far, each made once whatever the parameters: fitting is what takes the time."""

    known: dict[object, Appraisal] = field(default_factory=dict)

    def appraiser(self, run: Run) -> Callable[[Outlook], Appraisal]:
        """`appraise` for the prefixes of one run."""

        def remembered(outlook: Outlook) -> Appraisal:
            key = (run.name, len(outlook.curve.loss), outlook.time_prior)
            if key not in self.known:
                self.known[key] = appraise(outlook)
            return self.known[key]

        return remembered


@dataclass(frozen=True)
class Policy:
    """A way to decide when to stop.

    Attributes:
        name: in the table.
        candidates: parameters to choose from; the first is the default, taken where there is nothing to tune on.
        outcome: on one run; None where it does not apply.
        remark: what a reader must know of it; empty where a live user can have it as it is.
        by_price: parameters that follow from the price alone; then nothing is tuned.
        rule: the stop rule that it is, by name; None for a budget that no rule gives.
    """

    name: str
    candidates: tuple[Parameters, ...]
    outcome: Callable[[Run, Parameters], Outcome | None]
    remark: str = ""
    by_price: Callable[[float], Parameters] | None = None
    rule: str | None = None


def replay_rule(run: Run, name: str, parameters: Parameters, memory: Memory | None = None) -> Outcome:
    """Feed a run to the object that the trainer uses; the best checkpoint is kept."""
    rule = make_rule(
        name,
        horizon_steps=run.facts.horizon,
        horizon_lr_sum=run.facts.horizon_lr_sum,
        images=run.facts.images,
        batch=int(run.facts.hyperparameters.get("batch") or 1),
        **parameters,
    )
    if memory is not None and isinstance(rule, PosteriorBased):
        rule.appraiser = memory.appraiser(run)
    kept, last = run.points[0].step, run.points[-1].step
    for point in run.points:
        decision = rule.update(point)
        kept = kept if decision.keep_step is None else decision.keep_step
        if decision.stop:
            last = point.step
            break
    return outcome(run, last, kept)


def _grid(**values: Iterable[float | int | None]) -> tuple[Parameters, ...]:
    """Every combination, in order: the first one is that of the first values."""
    return tuple(dict(zip(values, item, strict=True)) for item in product(*values.values()))


def _spread(default: float, low: float, high: float, count: int) -> list[float]:
    """A default, then values evenly spaced in log, of three digits."""
    spaced = [float(f"{value:.3g}") for value in np.geomspace(low, high, count)]
    return [default, *(value for value in spaced if value != default)]


def policies(memory: Memory) -> list[Policy]:
    """All of them, the examined rule first."""
    kappas = _spread(0.1, 0.005, 5.0, 31)

    def rule(name: str, candidates: tuple[Parameters, ...], title: str | None = None) -> Policy:
        return Policy(
            title or name, candidates, lambda run, given: replay_rule(run, name, given, memory), rule=name
        )

    return [
        Policy(
            POSTERIOR,
            _grid(kappa=PRICES),
            lambda run, given: replay_rule(run, POSTERIOR, given, memory),
            "kappa is the price: nothing is tuned",
            by_price=lambda price: {"kappa": price},
            rule=POSTERIOR,
        ),
        rule(POSTERIOR, _grid(kappa=kappas), "posterior, kappa tuned"),
        rule("none", ({},)),
        _steps_policy(),
        _images_policy("steps per image", _grid(steps_per_image=_spread(100.0, 2.0, 500.0, 25)), ""),
        _images_policy("100 steps per image", ({},), "the rule of thumb, nothing is tuned"),
        rule("patience", _grid(patience=(5, 1, 2, 3, 4, 7, 10, 15, 20), min_delta=(0.0, 0.02, 0.05, 0.1))),
        rule("gl", _grid(alpha=_spread(0.1, 0.005, 2.0, 25))),
        rule("up", _grid(successive=(3, 1, 2, 4, 5, 6), strip=(1, 2, 3, 5))),
        rule("pq", _grid(alpha=_spread(5.0, 0.1, 50.0, 16), strip=(5, 2, 3))),
        rule("dvar", _grid(threshold=_spread(0.15, 0.01, 0.6, 10), window=(6, 3, 4, 5, 8, 10, 15))),
        rule("evidence", ({},)),
        *_share_policies(),
    ]


def _steps_policy() -> Policy:
    """Fixed steps; the default is the horizon."""
    steps = tuple({"steps": round(step)} for step in _spread(1e9, 10.0, 20000.0, 60))
    return Policy("fixed steps", steps, lambda run, given: replay_rule(run, "fixed", given), rule="fixed")


def _images_policy(name: str, candidates: tuple[Parameters, ...], remark: str) -> Policy:
    def found(run: Run, given: Parameters) -> Outcome | None:
        return None if run.facts.images is None else replay_rule(run, "fixed", given)

    return Policy(name, candidates, found, remark)


def _share_policies() -> list[Policy]:
    """Budgets that are a share of the recorded length, with the best or the last checkpoint kept."""
    shares = tuple({"share": share} for share in _spread(0.5, 0.03, 1.0, 30))

    def best(run: Run, given: Parameters) -> Outcome:
        step = _nearest(run, given)
        seen = [point for point in run.points if point.step <= step]
        return outcome(run, step, min(seen, key=lambda point: point.val_loss or math.inf).step)

    def last(run: Run, given: Parameters) -> Outcome:
        step = _nearest(run, given)
        return outcome(run, step, step)

    remark = "no live user knows the recorded length"
    return [
        Policy("share of the length*", shares, best, remark),
        Policy("the same, last kept*", shares, last, f"{remark}; it looks at nothing, so it keeps the last"),
    ]


def _nearest(run: Run, given: Parameters) -> int:
    """The evaluation nearest to a share of the recorded length."""
    wanted = float(given["share"] or 0.0) * run.points[-1].step
    return min(run.points, key=lambda point: abs(point.step - wanted)).step
