"""`sweep.design=adaptive`: the next trial goes to the cell whose answer it narrows most for each step that it costs.

Depends on the run folders alone, so that a sweep that was interrupted goes on as it would have. Trials that run count
as runs whose result is expected (analysis.design).
"""

from collections.abc import Mapping, Sequence
import math

from analysis.design import expected_ratio, ratio_of
from analysis.load import group_cells, read_run
from analysis.recommend import CellResult, FittedRun, answer_cell, fit_run
from analysis.run import Run
from conf.schema import Sweep
from curves.run_folder import RunFolder
from sweep.cells import Cell
from sweep.policy import UNFINISHED
from sweep.record import StudyFolder

LEAST = (
    1e-9  # fall of log(high/low) that a cell counts with which is not narrow, though a trial promises nothing
)


class Design:
    """Chooses cells by what their finished runs say. A run is fitted once.

    Args:
        folder: of the study.
        sweep: its narrow_enough and least_trials.
    """

    def __init__(self, folder: StudyFolder, sweep: Sweep) -> None:
        self._trials = folder.trials
        self._narrow_enough = sweep.narrow_enough
        self._least = sweep.least_trials
        self._over: set[str] = set()
        self._fitted: dict[str, FittedRun] = {}  # by run folder
        self._results: dict[
            tuple[str, ...], CellResult | None
        ] = {}  # by the run folders that it is made from

    def choose(self, cells: Sequence[Cell], folders: Mapping[str, Sequence[str]]) -> Cell | None:
        """The cell that the next trial belongs to; None where all are narrow enough, or will be once their trials end.

        Args:
            cells: that lack trials.
            folders: names of the run folders of each cell, by its label.
        """
        young = [cell for cell in cells if len(folders[cell.label]) < self._least]
        if young:
            return min(young, key=lambda cell: len(folders[cell.label]))
        worth = [(self._worth(cell, folders[cell.label]), cell) for cell in cells]
        wide = [item for item in worth if item[0] > 0]
        return max(wide, key=lambda item: item[0])[1] if wide else None

    def narrow(self, folders: Sequence[str]) -> bool:
        """Whether the answer that the finished trials of a cell give is narrow enough."""
        result = self._result(folders)
        return result is not None and result.answer.status == "ok" and ratio_of(result) <= self._narrow_enough

    def _worth(self, cell: Cell, folders: Sequence[str]) -> float:
        """Fall of log(high/low) for each step of one more trial; 0 where the cell is narrow enough without it."""
        result = self._result(folders)
        running = sum(not self._ended(name) for name in folders)
        before, after = (expected_ratio(result, running + more) for more in (0, 1))
        if result is not None and result.answer.status == "ok" and before <= self._narrow_enough:
            return 0.0
        return max(math.log(before / after), LEAST) / self._steps(cell, result)

    def _steps(self, cell: Cell, result: CellResult | None) -> float:
        """What a trial of the cell is expected to train: as its earlier ones did, else to its end."""
        trained = [item.run.last_step for item in result.runs] if result is not None else []
        return max(1.0, sum(trained) / len(trained)) if trained else float(cell.config.budget.max_steps or 1)

    def _ended(self, name: str) -> bool:
        """Whether a trial is over for good."""
        if name not in self._over:
            outcome = RunFolder(self._trials / name).outcome()
            if outcome is None or outcome in UNFINISHED:
                return False
            self._over.add(name)
        return True

    def _result(self, folders: Sequence[str]) -> CellResult | None:
        """What a cell's finished trials say; None where none of them can be read."""
        names = tuple(name for name in folders if self._ended(name))
        if names not in self._results:
            self._results[names] = self._answer(names)
        return self._results[names]

    def _answer(self, names: Sequence[str]) -> CellResult | None:
        runs: list[Run] = []
        for name in names:
            try:
                runs.append(read_run(RunFolder(self._trials / name)))
            except (ValueError, OSError):  # it ended before it had written what it is
                continue
        cells = group_cells(runs)
        return answer_cell(max(cells, key=lambda cell: len(cell.runs)), fit_one=self._fit) if cells else None

    def _fit(self, run: Run) -> FittedRun:
        if run.name not in self._fitted:
            self._fitted[run.name] = fit_run(run)
        return self._fitted[run.name]
