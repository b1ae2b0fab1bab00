"""Stop rules by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

from curves.stopping.base import RUN_FACTS, EvaluationRule
from curves.stopping.calibration import Calibration, find_calibration
from curves.stopping.dvar import DeterministicVariance
from curves.stopping.evidence import Evidence
from curves.stopping.fixed import FixedSteps
from curves.stopping.gl import GeneralizationLoss
from curves.stopping.none import NoRule
from curves.stopping.patience import Patience
from curves.stopping.posterior import PosteriorRule
from curves.stopping.pq import ProgressQuotient
from curves.stopping.up import SuccessiveRises

RULES: dict[str, type[EvaluationRule]] = {
    rule.name: rule
    for rule in (
        NoRule,
        FixedSteps,
        Patience,
        GeneralizationLoss,
        SuccessiveRises,
        ProgressQuotient,
        DeterministicVariance,
        Evidence,
        PosteriorRule,
    )
}
CALIBRATED = "calibrated"
Parameter = float | int | str | None


def parameter_names(name: str) -> list[str]:
    """What a user may set of the rule of that name."""
    return [item.name for item in fields(RULES[name]) if item.init and item.name not in RUN_FACTS]


def make_rule(name: str, **parameters: Parameter) -> EvaluationRule:
    """The rule of that name; of `calibrated`, the one that a calibration names (parameters path and price).

    parameters: the rule's own, and what is known of the run (RUN_FACTS): horizon_steps and horizon_lr_sum must be,
    images and batch may be.

    Raises:
        ValueError: an unknown name or parameter, with the valid ones, or a value that it does not take.
    """
    if name == CALIBRATED:
        facts = {key: value for key, value in parameters.items() if key in RUN_FACTS}
        return calibrated_rule(
            calibration_for({key: value for key, value in parameters.items() if key not in facts}), facts
        )
    if name not in RULES:
        listed = ", ".join(sorted([*RULES, CALIBRATED]))
        raise ValueError(f"unknown stop rule {name!r}; choose one of {listed}")
    _refuse_unknown(name, parameters, [*parameter_names(name), *RUN_FACTS])
    missing = sorted({"horizon_steps", "horizon_lr_sum"} - set(parameters))
    if missing:
        raise ValueError(f"stop rule {name!r} needs {', '.join(missing)}")
    return RULES[name](**parameters)  # type: ignore[arg-type]


def calibration_for(parameters: Mapping[str, Parameter]) -> Calibration:
    """What `stopping=calibrated` with these parameters means.

    Raises:
        ValueError: an unknown parameter, no such file, or no such price in it.
    """
    _refuse_unknown(CALIBRATED, parameters, ["path", "price"])
    path, price = parameters.get("path"), parameters.get("price")
    if isinstance(price, bool | str):
        raise ValueError(f"price={price!r} must be a number")
    return find_calibration(None if path is None else str(path), price)


def calibrated_rule(calibration: Calibration, facts: Mapping[str, Parameter]) -> EvaluationRule:
    """The rule of a calibration.

    Raises:
        ValueError: the file names a rule or parameters that do not exist.
    """
    try:
        if calibration.rule == CALIBRATED:
            raise ValueError(f"unknown stop rule {CALIBRATED!r}; choose one of {', '.join(sorted(RULES))}")
        return make_rule(calibration.rule, **facts, **calibration.parameters)
    except (TypeError, ValueError) as error:
        raise ValueError(f"path: the calibration cannot be used: {error}") from error


def _refuse_unknown(name: str, parameters: Mapping[str, Parameter], valid: Sequence[str]) -> None:
    unknown = sorted(set(parameters) - set(valid))
    if unknown:
        own = [item for item in valid if item not in RUN_FACTS]
        listed = f"it has {', '.join(own)}" if own else "it has none"
        raise ValueError(f"stop rule {name!r} has no parameter {', '.join(unknown)}; {listed}")
