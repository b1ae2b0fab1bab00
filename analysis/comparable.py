"""Which runs may be held against each other, and what an answer from imported runs rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from analysis.run import NO_PANEL, Run
from analysis.weighting import weighting_caveats
from curves.answer import Answer

SAME_PANEL = "import them with --set panel=NAME where it was the same images, timesteps and noise"


def not_comparable(runs: Sequence[Run]) -> str | None:
    """Why the held-out losses or the steps of a cell's runs cannot be compared; None where they can."""
    if len(runs) < 2:
        return _mixed(
            runs, _panel_names, "the run was measured on different panels, which cannot be compared"
        )
    unnamed = [run.name for run in runs if run.imported and NO_PANEL in run.panels]
    if unnamed:
        return f"what {', '.join(unnamed)} measured its held-out loss on is not known: {SAME_PANEL}"
    rules: tuple[tuple[Callable[[Run], Sequence[str]], str], ...] = (
        (_panel_names, "the runs were measured on different panels, which cannot be compared"),
        (lambda run: [run.step_unit], "the runs count different things as a step, which cannot be compared"),
        (lambda run: _logged(run, "base_model"), "the logs name different base models under one name"),
        (lambda run: _logged(run, "method"), "the logs name different methods under one name"),
        (
            lambda run: ["known" if run.lr is not None else "not known"],
            "the learning rate of some runs is not known, so that their times cannot be compared",
        ),
    )
    return next((reason for values, text in rules if (reason := _mixed(runs, values, text))), None)


def outside_law(runs: Sequence[Run]) -> str | None:
    """Why a cell says nothing about the law across dataset sizes; None where it may."""
    first = runs[0]
    if first.unknown:
        return f"{', '.join(first.unknown)} not known"
    if any(run.lr is None for run in runs):
        return "learning rate not known"
    other = [run.step_unit for run in runs if run.step_unit != "updates"]
    return f"its steps are {other[0]}, not optimizer updates" if other else None


def with_caveats(found: Answer, best: Sequence[Run]) -> Answer:
    """The answer with what it rests on; without the base's loss nobody can say that it is not improved."""
    caveats = []
    if not all(run.has_base for run in best):
        if found.status == "no_gain":
            reason = (
                f"the held-out loss does not fall after the first evaluation, at step {best[0].points[0].step}, and that of "
                "the untouched base, at step 0, was not measured: whether anything is gained is not known"
            )
            return replace(found, status="refused", reason=reason)
        caveats.append("the base was not measured at step 0: its loss is the curve carried back to it")
    caveats += [
        f"steps are {run.step_unit} of {run.imported['tool']}" for run in best if run.step_unit != "updates"
    ]
    if found.status == "ok":
        caveats += weighting_caveats(best)
    return replace(found, reason="; ".join([found.reason, *dict.fromkeys(caveats)]))


def _panel_names(run: Run) -> Sequence[str]:
    return sorted(run.panels)


def _logged(run: Run, key: str) -> Sequence[str]:
    """What the run's own log says, whatever the import was told."""
    value = run.imported.get("logged", {}).get(key)
    return [] if value is None else [str(value)]


def _mixed(runs: Sequence[Run], values: Callable[[Run], Sequence[str]], text: str) -> str | None:
    """The text with the runs of each value, where there are several values."""
    names: dict[str, list[str]] = {}
    for run in runs:
        for value in values(run):
            names.setdefault(value, []).append(run.name)
    listed = "; ".join(f"{value}: {', '.join(of)}" for value, of in names.items())
    return f"{text} ({listed})" if len(names) > 1 else None
