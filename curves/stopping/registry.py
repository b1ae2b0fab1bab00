"""Stop rules by name."""

from __future__ import annotations

from dataclasses import fields

from curves.stopping.base import EvaluationRule
from curves.stopping.evidence import Evidence
from curves.stopping.none import NoRule
from curves.stopping.patience import Patience
from curves.stopping.posterior import PosteriorRule

RULES: dict[str, type[EvaluationRule]] = {
    rule.name: rule for rule in (NoRule, Patience, Evidence, PosteriorRule)
}


def make_rule(name: str, **parameters: float | int | None) -> EvaluationRule:
    """The rule of that name; parameters include horizon_steps and horizon_lr_sum.

    Raises ValueError on an unknown name or parameter, with the valid ones.
    """
    if name not in RULES:
        raise ValueError(f"unknown stop rule {name!r}; choose one of {', '.join(sorted(RULES))}")
    valid = [f.name for f in fields(RULES[name]) if f.init]
    unknown = sorted(set(parameters) - set(valid))
    if unknown:
        raise ValueError(
            f"stop rule {name!r} has no parameter {', '.join(unknown)}; it has {', '.join(valid)}"
        )
    missing = sorted({"horizon_steps", "horizon_lr_sum"} - set(parameters))
    if missing:
        raise ValueError(f"stop rule {name!r} needs {', '.join(missing)}")
    return RULES[name](**parameters)  # type: ignore[arg-type]
