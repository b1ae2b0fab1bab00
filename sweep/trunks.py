"""Trunks of a study that runs: which trial is whose branch, and whether it can start."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from curves.run_folder import RunFolder
from sweep.branches import branching_steps, budgets, can_start, values_of
from sweep.cells import Cell, Request
from sweep.policy import UNFINISHED
from sweep.study import Asked, CellStudy


class Trunks:
    """Runs of one parameter set are numbered in a row: the trunk, then its branches. Without branches nobody waits."""

    def __init__(self, request: Request, trials: Path, studies: Mapping[str, CellStudy]) -> None:
        self._runs = request.runs_a_trial
        self._trials = trials
        self._studies = studies

    def of(self, cell: Cell, number: int) -> RunFolder | None:
        """The run that a trial branches off; None of one that does not."""
        member = number % self._runs
        if member == 0 or not budgets(cell.config):
            return None
        name = self._studies[cell.label].folder(number - member)
        return None if name is None else RunFolder(self._trials / name)

    def first_step(self, cell: Cell, number: int) -> int:
        """The step that a trial begins at: of a branch the one that it leaves its trunk at."""
        member = number % self._runs
        return branching_steps(cell.config)[member - 1] if self.of(cell, number) is not None else 0

    def has_state(self, cell: Cell, number: int) -> bool:
        """Whether a trial finds what it goes on from."""
        trunk = self.of(cell, number)
        return trunk is None or can_start(cell.config, number % self._runs, trunk)

    def is_due(self, cell: Cell, number: int, unfinished: Collection[str | None]) -> bool:
        """Whether a trial need not wait: its trunk has kept the state, or has ended for good without it.

        Args:
            unfinished: names of the run folders of trials that run, or are to be tried again.
        """
        trunk = self.of(cell, number)
        if trunk is None or self.has_state(cell, number):
            return True
        return trunk.path.name not in unfinished and trunk.outcome() not in UNFINISHED

    def values(self, cell: Cell, asked: Asked) -> dict[str, Any]:
        """What a trial has otherwise than its cell, as a trunk or a branch."""
        if not budgets(cell.config):
            return {}
        return values_of(cell.config, asked.number % self._runs, self.of(cell, asked.number))
