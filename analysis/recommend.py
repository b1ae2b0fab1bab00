"""From cells of runs to the recommendation: the best hyperparameters, and how long to train with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis.better_schedule import with_better_schedule
from analysis.comparable import not_comparable, outside_law, with_caveats
from analysis.horizons import compare, without_branches
from analysis.law import law_across_sizes
from analysis.load import Cell, Study
from analysis.run import Run
from analysis.schedule import fresh_schedule
from analysis.training_loss import describe_training_loss
from conf.errors import WorkError
from curves.answer import LEAST_PASSED_PROBABILITY, Answer, answer
from curves.panel import paired_difference
from curves.pooling import pool
from curves.posterior import FEWEST_POINTS, CurvePosterior, fit
from curves.recommendation import FILE_NAME, CellAnswer, Recommendation, write_recommendation

UNKNOWN = "unknown"  # a level that another tool's log does not say


@dataclass(frozen=True)
class FittedRun:
    """A run and what its curve says; the posterior is None where there are too few evaluations."""

    run: Run
    posterior: CurvePosterior | None
    start_loss: float  # held-out loss of the untouched base
    best_loss: float  # lowest smoothed held-out loss within what was observed
    best_loss_sd: float
    note: str = ""  # why it is not fitted

    @property
    def censored(self) -> bool:
        """Whether the run ended before it was sure to have passed its minimum; without a gain there is none."""
        if self.posterior is None:
            return True
        gains = self.posterior.probability_of_gain >= 0.5
        return gains and self.posterior.probability_passed() < LEAST_PASSED_PROBABILITY


@dataclass(frozen=True)
class CellResult:
    """A row of the table with the runs behind it."""

    answer: CellAnswer
    runs: tuple[FittedRun, ...]
    best: tuple[FittedRun, ...]  # replicates at the best hyperparameters
    best_step_lr_sum: float | None = None  # intrinsic time at the minimum's median

    @property
    def shown(self) -> FittedRun | None:
        """The best run: its samples are shown."""
        return min(self.best, key=lambda item: item.best_loss, default=None)


@dataclass(frozen=True)
class Analysis:
    """What `recommend` and `report` share."""

    study: Study
    cells: tuple[CellResult, ...]
    recommendation: Recommendation


def analyse(study: Study, price: float | None = None) -> Analysis:
    """Fit every run, answer every cell; price: of a whole horizon of training, in gain."""
    cells = tuple(_answer_schedules(cell, price) for cell in study.cells)
    reasons = [outside_law(cell.runs) for cell in study.cells]
    found = list(zip(cells, reasons, strict=True))
    left_out = {cell.answer.run or cell.answer.label(): why for cell, why in found if why}
    inside = [(cell.answer, cell.best_step_lr_sum) for cell, why in found if not why]
    law = law_across_sizes(inside, left_out)
    recommendation = Recommendation(study=study.name, cells=[cell.answer for cell in cells], law=law)
    return Analysis(study, cells, recommendation)


def write_analysis(analysis: Analysis) -> None:
    """Write RUNS/analysis/recommendation.json.

    Raises:
        WorkError: the folder cannot be written.
    """
    try:
        write_recommendation(recommendation_path(analysis.study), analysis.recommendation)
    except OSError as error:
        raise WorkError(f"{recommendation_path(analysis.study)}: cannot be written: {error}") from error


def recommendation_path(study: Study) -> Path:
    return study.root / "analysis" / FILE_NAME


def recommendation_text(analysis: Analysis) -> str:
    """The file's content."""
    return recommendation_path(analysis.study).read_text(encoding="utf-8")


def fit_run(run: Run) -> FittedRun:
    """The posterior of one run's evaluations, and the best loss it was seen at."""
    curve = run.curve().usable()
    start = float(curve.loss[0]) if len(curve.loss) else np.nan
    lowest = float(np.min(curve.loss)) if len(curve.loss) else np.inf
    if len(curve.loss) < FEWEST_POINTS:
        note = f"{len(curve.loss)} evaluations, {FEWEST_POINTS} are needed"
        return FittedRun(run, None, start, lowest, np.nan, note)
    posterior = fit(curve, horizon_lr_sum=run.facts.horizon_lr_sum)
    if posterior.probability_of_gain < 0.5:
        return FittedRun(run, posterior, start, start, np.nan)
    latent, _ = posterior.draws(curve.lr_sum, 400)
    at = int(np.argmin(latent.mean(axis=0)))
    return FittedRun(run, posterior, start, float(latent[:, at].mean()), float(latent[:, at].std()))


def answer_cell(cell: Cell, price: float | None = None) -> CellResult:
    """One row: refused where the runs cannot be compared, otherwise what the pooled curves say."""
    found_runs = len(cell.runs)
    reason = not_comparable(cell.runs)
    if reason is not None:
        unfitted = tuple(_unfitted(run) for run in cell.runs)
        return CellResult(
            _row(cell, "refused", reason, evidence=_evidence(unfitted, found_runs)), unfitted, ()
        )
    runs = tuple(fit_run(run) for run in cell.runs)
    fitted = [item for item in runs if item.posterior is not None]
    if not fitted:
        reason = _without_evaluations(cell.runs)
        return CellResult(_row(cell, "refused", reason, evidence=_evidence(runs, found_runs)), runs, ())
    best = best_replicates(fitted)
    pooled = _comparable(fitted, best[0])
    found = _pooled_answer(pooled, best, price)
    found = with_caveats(found, [item.run for item in best])
    numbers = _numbers(cell, best, found, price)
    row = _row(cell, found.status, found.reason, **numbers, evidence=_evidence(pooled, found_runs))
    return CellResult(row, runs, tuple(best), _lr_sum_at_minimum(best, found))


def _answer_schedules(cell: Cell, price: float | None) -> CellResult:
    """One row, of the better schedule where runs of the cell were cooled down at several budgets."""
    result, found = answer_cell(without_branches(cell), price), compare(cell, price)
    if found is None:
        return result
    row, lr_sum = with_better_schedule(result.answer, result.best_step_lr_sum, found, price)
    return replace(result, answer=row, best_step_lr_sum=lr_sum)


def best_replicates(fitted: Sequence[FittedRun]) -> list[FittedRun]:
    """The runs of the hyperparameters with the lowest held-out loss, smoothed, averaged over seeds."""
    groups: dict[str, list[FittedRun]] = {}
    for item in fitted:
        groups.setdefault(_key(item.run.facts.hyperparameters), []).append(item)

    def loss(group: list[FittedRun]) -> tuple[float, float]:
        mean = np.mean(
            [item.run.curve().loss.mean() for item in group]
        )  # decides where nothing improves the base
        return float(np.mean([item.best_loss for item in group])), float(mean)

    return min(groups.values(), key=loss)


def _comparable(fitted: Sequence[FittedRun], best: FittedRun) -> list[FittedRun]:
    """Runs that differ from the best in learning rate and seed alone: their curves share intrinsic time."""
    wanted = _key({**best.run.facts.hyperparameters, "lr": None})
    return [item for item in fitted if _key({**item.run.facts.hyperparameters, "lr": None}) == wanted]


def _pooled_answer(pooled: Sequence[FittedRun], best: Sequence[FittedRun], price: float | None) -> Answer:
    """The budget of a fresh run at the best hyperparameters, on the longest of their horizons."""
    posteriors = [item.posterior for item in pooled if item.posterior is not None]
    rates = [item.run.time_rate for item in pooled]
    longest = max((item.run for item in best), key=lambda run: run.facts.horizon)
    return answer(pool(posteriors, rates, longest.time_rate), fresh_schedule(longest), price=price)


def _numbers(cell: Cell, best: Sequence[FittedRun], found: Answer, price: float | None) -> dict[str, Any]:
    """The fields of a row that follow from an answer."""
    shown = min(best, key=lambda item: item.best_loss)
    observed = shown.run.best
    gain, gain_se = _gain(best) if all(item.run.has_base for item in best) else (None, None)
    numbers: dict[str, Any] = {
        "hyperparameters": dict(shown.run.facts.hyperparameters),
        "lower_bound": found.lower_bound,
        "best_step_observed": None if observed is None else observed.step,
        "gain": gain,
        "gain_se": gain_se,
        "stopping": "posterior" if found.status == "ok" else "evidence",
        "path": shown.run.name,
    }
    if (
        found.status != "ok"
        or found.recommended_steps is None
        or found.minimum is None
        or found.window is None
    ):
        return numbers
    batch, images = shown.run.facts.hyperparameters.get("batch"), cell.identity["images"]
    if batch is None and not shown.run.imported:
        batch = 1
    seen = None if batch is None else found.recommended_steps * int(batch)
    minimum = {"low": found.minimum.low, "median": found.minimum.median, "high": found.minimum.high}
    return numbers | {
        "recommended_steps": found.recommended_steps,
        "recommended_steps_best_kept": found.recommended_steps_best_kept,
        "priced": None if price is None else {"price": price, "steps": found.priced_steps},
        "minimum": {**minimum, "level": found.minimum.level},
        "window": {"low": found.window.low, "high": found.window.high},
        "window_open": found.window.open,
        "images_seen": seen,
        "epochs": None if seen is None or images is None else round(seen / int(images), 2),
    }


def _gain(best: Sequence[FittedRun]) -> tuple[float, float | None]:
    """Mean over replicates of the fall from the base to the best smoothed loss, and its error.

    The error is over images and of the fit. Where nothing improves the base the best point after step 0
    counts, so that the gain may be negative.
    """
    falls, variances = [], []
    for item in best:
        later = item.run.curve().loss[1:]
        improved = np.isfinite(item.best_loss_sd)
        falls.append(item.start_loss - (item.best_loss if improved else float(later.min())))
        variances.append(item.best_loss_sd**2 if improved else 0.0)
    over_images = [_image_error(item.run) for item in best]
    variance = np.mean(variances) / len(best) + np.mean(over_images) ** 2
    return float(np.mean(falls)), float(np.sqrt(variance)) if np.isfinite(variance) else None


def _image_error(run: Run) -> float:
    """Paired standard error over held-out images of the fall from step 0 to the best later point."""
    curve = run.curve()
    if curve.image_loss is None:
        return float("nan")
    best = 1 + int(np.argmin(curve.loss[1:]))
    return paired_difference(curve.image_loss[best], curve.image_loss[0])[1]


def _lr_sum_at_minimum(best: Sequence[FittedRun], found: Answer) -> float | None:
    if found.minimum is None:
        return None
    longest = max((item.run for item in best), key=lambda run: run.facts.horizon)
    return float(fresh_schedule(longest).lr_sum[found.minimum.median])


def _without_evaluations(runs: Sequence[Run]) -> str:
    """Why no run of a cell can be fitted; of logs of the training loss alone, what that can say instead."""
    if not any(run.points for run in runs):
        told = [(run, describe_training_loss(run.folder.points())) for run in runs]
        said = [text if len(runs) == 1 else f"{run.name}: {text}" for run, text in told if text]
        if said:
            return "; ".join(said)
    return f"no run has {FEWEST_POINTS} finite evaluations"


def _evidence(runs: Sequence[FittedRun], runs_found: int) -> dict[str, int]:
    """Counts over the runs that the answer is made from, and of all runs of the cell."""
    fitted = [item for item in runs if item.posterior is not None]
    return {
        "runs": len(fitted),
        "evaluations": sum(len(item.run.points) for item in fitted),
        "censored_runs": sum(item.censored for item in fitted),
        "runs_found": runs_found,
    }


def _unfitted(run: Run) -> FittedRun:
    lowest = run.best
    loss = np.inf if lowest is None or lowest.val_loss is None else lowest.val_loss
    return FittedRun(run, None, np.nan, float(loss), np.nan, "not comparable")


def _row(cell: Cell, status: str, reason: str, **numbers: Any) -> CellAnswer:
    facts = cell.facts
    return CellAnswer(
        dataset_size=str(facts["dataset_size"] or UNKNOWN),
        resolution=facts["resolution"],
        method=str(facts["method"] or UNKNOWN),
        base_model=str(facts["base_model"] or UNKNOWN),
        captions=facts["captions"] or UNKNOWN,
        images=facts["images"],
        dataset=str(facts["dataset"] or UNKNOWN),
        base_id=str(facts["base_id"] or UNKNOWN),
        run=cell.runs[0].name if cell.runs[0].unknown else None,
        hyperparameters=numbers.pop("hyperparameters", {}),
        status=status,
        reason=reason,
        **numbers,
    )


def _key(values: dict[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, default=str)
