"""recommendation.json: what a study answers, cell by cell, and the look-up that `budget=recommended` does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from curves.run_folder import read_json, write_json

SCHEMA = 1
IDENTITY = ("dataset", "captions", "resolution", "base_id", "method", "images")  # a cell is matched on these
FILE_NAME = "recommendation.json"


@dataclass(frozen=True)
class CellAnswer:
    """One row of the table. Steps are None unless the status is `ok`.

    Attributes:
        dataset_size, resolution, method, base_model, captions: the levels; resolution in pixels.
        images: number of training images.
        dataset, base_id: content ids of the image folder and of the base model.
        hyperparameters: what `budget=recommended` sets and refuses to have overridden.
        status, reason: ok, not_reached, no_gain or refused, and why.
        recommended_steps, recommended_steps_best_kept: where the last, or the best, checkpoint is kept.
        minimum: {low, median, high, level} in steps: the posterior of the held-out minimum.
        window: {low, high} in steps within which the loss is more likely than not within 5 % of gain of the minimum.
        window_open: whether the window ends only because the horizon does.
        priced: {price, steps} where a price of the whole horizon was stated, in gain: the steps of least cost.
        lower_bound: where no run passed its minimum: steps below which it does not lie.
        expected_minimum: where no run passed its minimum: {low, median, high, level} of where it is expected, beyond
            the horizon too; it leans on the prior, so that no budget follows from it.
        images_seen, epochs: at the recommended steps.
        best_step_observed: of the cell's best run.
        gain: improvement of the held-out loss from the base to the minimum, with its standard error over images; of a
            cell that is not_reached, the improvement so far.
        stopping: stop rule advised for a run without a stated budget.
        evidence: {runs, evaluations, censored_runs} that the answer is made from, and runs_found: all of the cell.
        path: name of the run folder with the best held-out loss.
        runner_up: {hyperparameters, worse_by, error, told_apart}: the second-best hyperparameters as far as they differ
            from the best, by how much they are worse in gain, and whether that is more than twice its error.
        source: `runs` of the cell, or `law`: of other cells, through the law.
        expected_regret: of an answer from the law, at the recommended steps, in gain.
        kohya: {repeats, epochs} that come nearest to the recommended steps.
        run: of another tool's log whose levels are not all known: the run that is this cell; what is unknown is the
            text `unknown`, or None where it would be a number.
        schedules: where runs were cooled down at several budgets: what either schedule gives (docs/formats.md).
    """

    dataset_size: str
    resolution: int | None
    method: str
    base_model: str
    captions: str
    images: int | None
    dataset: str
    base_id: str
    hyperparameters: dict[str, Any]
    status: str
    reason: str = ""
    recommended_steps: int | None = None
    recommended_steps_best_kept: int | None = None
    minimum: dict[str, float] | None = None
    window: dict[str, int] | None = None
    window_open: bool = False
    priced: dict[str, float] | None = None
    lower_bound: int | None = None
    expected_minimum: dict[str, float] | None = None
    images_seen: int | None = None
    epochs: float | None = None
    best_step_observed: int | None = None
    gain: float | None = None
    gain_se: float | None = None
    stopping: str | None = None
    evidence: dict[str, int] = field(default_factory=dict)
    path: str | None = None
    run: str | None = None
    runner_up: dict[str, Any] | None = None
    source: str = "runs"
    expected_regret: float | None = None
    kohya: dict[str, int] | None = None
    schedules: dict[str, Any] | None = None

    def label(self) -> str:
        """The cell in words, as error messages name it."""
        label = f"{self.method}, {self.images} images, {self.resolution} px, {self.base_model}"
        return label if self.run is None else f"{self.run} (imported)"


@dataclass(frozen=True)
class Recommendation:
    study: str
    cells: list[CellAnswer]
    law: dict[str, Any] | None = None
    schema: int = SCHEMA


def write_recommendation(path: Path, recommendation: Recommendation) -> None:
    write_json(path, asdict(recommendation))


def read_recommendation(study: Path) -> Recommendation:
    """The recommendation of a study folder (or the file itself).

    Raises:
        ValueError: there is none yet, or it is damaged; the message says which file.
    """
    path = study if study.is_file() else study / "analysis" / FILE_NAME
    record = read_json(path)
    names = CellAnswer.__dataclass_fields__
    try:
        cells = [CellAnswer(**{key: cell[key] for key in cell if key in names}) for cell in record["cells"]]
        return Recommendation(
            study=record["study"], cells=cells, law=record.get("law"), schema=record["schema"]
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a recommendation file: {error}") from error


def matching_cell(cells: Sequence[CellAnswer], identity: Mapping[str, Any]) -> CellAnswer | None:
    """The cell whose IDENTITY values all equal those asked for, or None."""
    for cell in cells:
        if all(getattr(cell, name) == identity[name] for name in IDENTITY):
            return cell
    return None


def nearest_cells(
    cells: Sequence[CellAnswer], identity: Mapping[str, Any], count: int = 3
) -> list[CellAnswer]:
    """The cells that differ from what was asked for in the fewest identity values, nearest first."""

    def distance(cell: CellAnswer) -> tuple[int, float]:
        differing = sum(getattr(cell, name) != identity[name] for name in IDENTITY)
        return differing, abs((cell.images or 0) - float(identity["images"]))

    return sorted(cells, key=distance)[:count]
