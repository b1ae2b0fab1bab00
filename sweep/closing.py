"""How a session of a sweep ends: what is said of it, and its exit status."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
import time

from conf.errors import RequestError, WorkError
from curves.spent import Account
from sweep.cells import Request
from sweep.hints import command, shown
from sweep.limits import LIMIT_REACHED, how_to_raise, trials_exhausted
from sweep.policy import FAILED
from sweep.record import StudyFolder
from sweep.rows import cell_summary, front_lines
from sweep.screen import say
from sweep.table import Row, Totals


@dataclass
class Halt:
    """Why and since when (monotonic seconds) no trial is started, and the exit status that this makes."""

    status: int
    reason: str
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Session:
    """What a supervisor leaves: its trials, and why it ended if they are not all there.

    Attributes:
        rows: of all trials of the study.
        diverged: by cell, in words.
        halt: None where nothing stopped it.
        enough: whether an adaptive design has ended it: no cell needs the trials that it lacks.
    """

    request: Request
    folder: StudyFolder
    rows: Sequence[Row]
    diverged: Mapping[str, str]
    totals: Totals
    halt: Halt | None
    account: Account
    enough: bool = False

    def limit_reached(self) -> str | None:
        """The limit that left trials undone, in words."""
        if self.enough or self.totals.done >= self.totals.planned:
            return None
        if self.halt is not None:
            return self.halt.reason if self.halt.status == LIMIT_REACHED else None
        return trials_exhausted(self.account)

    def conclude(self) -> int:
        """Print what came out and return the exit status: 0, LIMIT_REACHED, or that of the halt.

        Raises:
            RequestError: a trainer refused its configuration.
            WorkError: every trial of a cell failed, or trials were ended from outside.
        """
        for line in cell_summary(self.rows, list(self.diverged), self.diverged):
            say(line)
        for line in front_lines(self.rows, self.request.config.sweep.objectives):
            say(line)
        done, planned, again = (
            self.totals.done,
            self.totals.planned,
            command("resume", self.folder.path),
        )
        if self.enough:
            say(
                f"{done} of {planned} trials were enough: high/low of the minimum is at most "
                f"{self.request.config.sweep.narrow_enough:g} in every cell that has trials left"
            )
        if (reached := self.limit_reached()) is not None:
            say(f"{done} of {planned} trials are done: a limit is reached: {reached}")
            say(f"raise it and continue with: {how_to_raise(reached, self.folder.path)}")
            return LIMIT_REACHED
        if self.halt is not None and self.halt.status != LIMIT_REACHED:
            say(f"{done} of {planned} trials are done, {planned - done} remain")
            say(f"continue with: {again}")
            if self.halt.status == 2:
                raise RequestError(self.halt.reason)
            return self.halt.status
        self._refuse_failure()
        if done < planned and not self.enough:
            raise WorkError(f"{planned - done} trials were ended from outside: {again} continues them")
        say(f"next: python -m analysis report {shown(self.folder.path)}")
        return 0

    def _refuse_failure(self) -> None:
        """A cell of which nothing is left but failures says nothing about its budget."""
        own = {
            cell.label: [row for row in self.rows if row.cell == cell.label] for cell in self.request.cells
        }
        failed = {label: rows for label, rows in own.items() if all(row.outcome in FAILED for row in rows)}
        if not failed:
            return
        reasons = list(dict.fromkeys(row.reason for rows in failed.values() for row in rows if row.reason))
        first = reasons[0] if reasons else "without a reason"
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        twice = f"sweep.trials={2 * self.request.config.sweep.trials}"
        raise WorkError(
            f"every trial failed in {', '.join(failed)}: {first}{more}; see {shown(self.folder.trials)}/*/log.txt; "
            f"fix the cause, then `{command('resume', self.folder.path, twice)}`, or start another study with study=NAME"
        )
