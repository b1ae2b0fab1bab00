"""From cells of runs to the recommendation: the best hyperparameters, and how long to train with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.better_schedule import with_better_schedule
from analysis.comparable import not_comparable, outside_law, with_caveats
from analysis.enough import SHARE, ImagesAnswer, SizeGain, images_enough
from analysis.horizons import compare, without_branches
from analysis.law import LEVELS, Observation, Place, law_record
from analysis.load import Cell, Study
from analysis.run import Run
from analysis.schedule import fresh_schedule
from analysis.training_loss import describe_training_loss
from conf.errors import WorkError
from curves.answer import LEAST_GAIN_PROBABILITY, LEAST_PASSED_PROBABILITY, Answer, answer
from curves.calibration import shipped_calibration
from curves.panel import paired_difference
from curves.pooling import PooledPosterior, pool
from curves.posterior import FEWEST_POINTS, CurvePosterior, fit
from curves.recommendation import FILE_NAME, CellAnswer, Recommendation, write_recommendation

KOHYA_EPOCHS = 10  # that users of sd-scripts let a run have
SMOOTHING_DRAWS = 200
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
    pooled: PooledPosterior | None = None  # of a fresh run at the best hyperparameters

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
    enough: tuple[ImagesAnswer, ...] = ()  # how many images are enough


def analyse(study: Study, price: float | None = None, share: float = SHARE) -> Analysis:
    """Fit every run, answer every cell.

    price: of a whole horizon of training, in gain. share: images are enough where doubling them buys less of the gain.
    """
    cells = tuple(_answer_schedules(cell, price) for cell in study.cells)
    reasons = [outside_law(cell.runs) for cell in study.cells]
    found = list(zip(cells, reasons, strict=True))
    left_out = {cell.answer.run or cell.answer.label(): why for cell, why in found if why}
    inside = [cell for cell, why in found if not why]
    law = law_record(observations(inside), left_out)
    enough = tuple(images_enough(size_gains(inside), share))
    if law is not None and enough:
        law["images_enough"] = [item.record() for item in enough]
    recommendation = Recommendation(study=study.name, cells=[cell.answer for cell in cells], law=law)
    return Analysis(study, cells, recommendation, enough)


def size_gains(cells: Sequence[CellResult]) -> list[SizeGain]:
    """The gain of each cell whose minimum was passed, for the question how many images are enough."""
    found = []
    for cell in cells:
        row = cell.answer
        if cell.pooled is None or not shows_minimum(cell.pooled) or row.gain is None or row.images is None:
            continue
        levels = {name: getattr(row, name) for name in (*LEVELS, "base_model", "resolution")}
        errors = np.square([item.best_loss_sd for item in cell.best if np.isfinite(item.best_loss_sd)])
        error = float(np.sqrt(errors.mean() / len(errors))) if len(errors) else 0.0
        panels = frozenset[str]().union(*(item.run.panels for item in cell.best))
        found.append(SizeGain(levels, row.images, row.gain, error, panels))
    return found


def observations(cells: Sequence[CellResult]) -> list[Observation]:
    """What each cell says of the law: those whose curves show a gain and a minimum that was passed."""
    found = [(cell, cell.pooled) for cell in cells]
    return [
        observation(cell, pooled) for cell, pooled in found if pooled is not None and shows_minimum(pooled)
    ]


def shows_minimum(pooled: PooledPosterior) -> bool:
    """Whether the curves are U's with a gain and the minimum was passed, be its interval narrow or wide."""
    return (
        not pooled.misfit.flag
        and pooled.probability_of_gain >= LEAST_GAIN_PROBABILITY
        and pooled.probability_passed() >= LEAST_PASSED_PROBABILITY
    )


def observation(cell: CellResult, pooled: PooledPosterior) -> Observation:
    """Where a cell lies, and what its pooled curves say of its typical run's minimum."""
    facts, answer = cell.runs[0].run.facts.cell, cell.answer
    levels = {name: str(getattr(answer, name)) for name in (*LEVELS, "base_model")}
    run = longest(cell.best)
    batch = int(run.facts.hyperparameters.get("batch") or 1)
    place = Place(int(facts["images"]), int(facts["resolution"]), batch, run.time_rate, levels)
    mean, variance = pooled.log_time()
    return Observation(place, mean, variance)


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
    latent, _ = posterior.draws(curve.lr_sum, SMOOTHING_DRAWS)
    at = int(np.argmin(latent.mean(axis=0)))
    return FittedRun(run, posterior, start, float(latent[:, at].mean()), float(latent[:, at].std()))


def answer_cell(
    cell: Cell, price: float | None = None, fit_one: Callable[[Run], FittedRun] = fit_run
) -> CellResult:
    """One row: refused where the runs cannot be compared, otherwise what the pooled curves say.

    fit_one: fits a run, or remembers how it was fitted.
    """
    found_runs = len(cell.runs)
    reason = not_comparable(cell.runs)
    if reason is not None:
        unfitted = tuple(_unfitted(run) for run in cell.runs)
        return CellResult(
            _row(cell, "refused", reason, evidence=_evidence(unfitted, found_runs)), unfitted, ()
        )
    runs = tuple(fit_one(run) for run in cell.runs)
    fitted = [item for item in runs if item.posterior is not None]
    if not fitted:
        reason = _without_evaluations(cell.runs)
        return CellResult(_row(cell, "refused", reason, evidence=_evidence(runs, found_runs)), runs, ())
    best = best_replicates(fitted)
    comparable = _comparable(fitted, best[0])
    pooled = _pool(comparable, best)
    found = answer(pooled, fresh_schedule(longest(best)), price=price, stretch=shipped_calibration().stretch)
    found = with_caveats(found, [item.run for item in best])
    numbers = _numbers(cell, best, found, price) | {"runner_up": runner_up(fitted, best)}
    row = _row(cell, found.status, found.reason, **numbers, evidence=_evidence(comparable, found_runs))
    return CellResult(row, runs, tuple(best), pooled)


def _answer_schedules(cell: Cell, price: float | None) -> CellResult:
    """One row, of the better schedule where runs of the cell were cooled down at several budgets."""
    result, found = answer_cell(without_branches(cell), price), compare(cell, price)
    if found is None:
        return result
    return replace(result, answer=with_better_schedule(result.answer, found, price))


def best_replicates(fitted: Sequence[FittedRun]) -> list[FittedRun]:
    """The runs of the hyperparameters with the lowest held-out loss, smoothed, averaged over seeds."""
    return _by_loss(fitted)[0]


def _by_loss(fitted: Sequence[FittedRun]) -> list[list[FittedRun]]:
    """Runs by their hyperparameters, those with the lowest held-out loss first."""
    groups: dict[str, list[FittedRun]] = {}
    for item in fitted:
        groups.setdefault(_key(item.run.facts.hyperparameters), []).append(item)

    def loss(group: list[FittedRun]) -> tuple[float, float]:
        mean = np.mean(
            [item.run.curve().loss.mean() for item in group]
        )  # decides where nothing improves the base
        return float(np.mean([item.best_loss for item in group])), float(mean)

    return sorted(groups.values(), key=loss)


def runner_up(fitted: Sequence[FittedRun], best: Sequence[FittedRun]) -> dict[str, Any] | None:
    """The second-best hyperparameters, and whether they can be told from the best; None where there are none.

    `worse_by` and its `error` are in gain. The error is of the fits and, where both measured the same images, of the
    paired difference over images; that between seeds is in it as far as there are replicates.
    """
    groups, gain = _by_loss(fitted), float(np.mean([item.start_loss - item.best_loss for item in best]))
    if len(groups) < 2 or not gain > 0:
        return None
    second = groups[1]
    losses = [np.array([item.best_loss for item in group]) for group in (best, second)]
    variance = sum(_group_variance(group) for group in (best, second))
    rows = [_best_images(group) for group in (best, second)]
    if rows[0] is not None and rows[1] is not None and rows[0].shape == rows[1].shape:
        variance += paired_difference(rows[1], rows[0])[1] ** 2
    worse, error = float(losses[1].mean() - losses[0].mean()), float(np.sqrt(variance))
    own, other = (group[0].run.facts.hyperparameters for group in (best, second))
    return {
        "hyperparameters": {
            name: other.get(name) for name in {**own, **other} if own.get(name) != other.get(name)
        },
        "worse_by": round(worse / gain, 4),
        "error": round(error / gain, 4),
        "told_apart": worse > 2 * error,
    }


def _group_variance(group: Sequence[FittedRun]) -> float:
    """Of the mean of the best losses of replicates: of their fits, and between them where there are several."""
    fits = np.nan_to_num([item.best_loss_sd for item in group])
    between = float(np.var([item.best_loss for item in group], ddof=1)) if len(group) > 1 else 0.0
    return float(max(np.mean(np.square(fits)), between) / len(group))


def _best_images(group: Sequence[FittedRun]) -> NDArray[np.float64] | None:
    """Loss of each held-out image at the lowest evaluation, mean over replicates."""
    curves = [item.run.curve() for item in group]
    rows = [curve.image_loss[int(np.argmin(curve.loss))] for curve in curves if curve.image_loss is not None]
    return (
        np.mean(rows, axis=0) if len(rows) == len(curves) and len({len(row) for row in rows}) == 1 else None
    )


def _comparable(fitted: Sequence[FittedRun], best: FittedRun) -> list[FittedRun]:
    """Runs that differ from the best in learning rate and seed alone: their curves share intrinsic time."""
    wanted = _key({**best.run.facts.hyperparameters, "lr": None})
    return [item for item in fitted if _key({**item.run.facts.hyperparameters, "lr": None}) == wanted]


def _pool(comparable: Sequence[FittedRun], best: Sequence[FittedRun]) -> PooledPosterior:
    """Of a fresh run at the best hyperparameters."""
    posteriors = [item.posterior for item in comparable if item.posterior is not None]
    return pool(posteriors, [item.run.time_rate for item in comparable], longest(best).time_rate)


def longest(best: Sequence[FittedRun]) -> Run:
    """The run whose schedule a fresh one follows: that with the longest horizon."""
    return max((item.run for item in best), key=lambda run: run.facts.horizon)


def _numbers(cell: Cell, best: Sequence[FittedRun], found: Answer, price: float | None) -> dict[str, Any]:
    """The fields of a row that follow from an answer."""
    shown = min(best, key=lambda item: item.best_loss)
    observed = shown.run.best
    gain, gain_se = _gain(best) if all(item.run.has_base for item in best) else (None, None)
    numbers: dict[str, Any] = {
        "hyperparameters": dict(shown.run.facts.hyperparameters),
        "lower_bound": found.lower_bound,
        "expected_minimum": None if found.expected_minimum is None else asdict(found.expected_minimum),
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
    return numbers | {
        "recommended_steps": found.recommended_steps,
        "recommended_steps_best_kept": found.recommended_steps_best_kept,
        "priced": None if price is None else {"price": price, "steps": found.priced_steps},
        "minimum": asdict(found.minimum),
        "window": {"low": found.window.low, "high": found.window.high},
        "window_open": found.window.open,
        "images_seen": seen,
        "epochs": None if seen is None or images is None else round(seen / int(images), 2),
        "kohya": kohya(found.recommended_steps, images, None if batch is None else int(batch)),
    }


def kohya(steps: int | None, images: int | None, batch: int | None) -> dict[str, int] | None:
    """Repeats and epochs of sd-scripts that make so many updates, about KOHYA_EPOCHS epochs; None where unknown."""
    if steps is None or images is None or batch is None:
        return None
    passes = steps * batch / images
    repeats = max(1, round(passes / KOHYA_EPOCHS))
    return {"repeats": repeats, "epochs": max(1, round(passes / repeats))}


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
