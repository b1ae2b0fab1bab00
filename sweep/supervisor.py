"""The one process that owns a study: it fills the slots, follows the trials, prunes, judges and ends them.

A slot is refilled as soon as it is free; nothing waits for a batch. All state is on disk (journal and run
folders), so that a supervisor that was killed is continued by the next.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
import math
import os
from pathlib import Path
import signal
import time

from conf.errors import RequestError, WorkError
from curves.run_folder import RunFolder, Verdict
from sweep.alarm import Alarm
from sweep.cells import Cell, Request
from sweep.cost import expected_cost, read_earlier_runs
from sweep.launch import LaunchBackend, Order, Process, trainer_command
from sweep.quoting import override
from sweep.record import StudyFolder
from sweep.rows import cell_summary, row_of
from sweep.screen import Screen
from sweep.space import first_values, trial_overrides
from sweep.study import Asked, CellStudy, open_journal
from sweep.table import Row, Totals
from sweep.trial import Before, RunningTrial, await_end_of_earlier

FAILED = ("crashed", "out_of_memory", "config_error")  # told to Optuna as failed
UNFINISHED = ("preempted", "config_error")  # left running in Optuna: `resume` continues them


@dataclass
class Halt:
    """Why no trial is started any more, and the exit status that this makes."""

    status: int
    reason: str


class Supervisor:
    """Runs a study to its planned number of trials, or until it is asked to stop."""

    def __init__(
        self,
        request: Request,
        folder: StudyFolder,
        backend: LaunchBackend,
        gpus: Sequence[str],
        screen: Screen,
    ) -> None:
        self._request = request
        self._folder = folder
        self._backend = backend
        self._gpus = list(gpus)
        self._screen = screen
        self._alarm = Alarm()
        self._running: list[RunningTrial] = []
        self._waiting: deque[tuple[Cell, Asked]] = deque()  # of an earlier supervisor, to be continued
        self._rows: dict[str, Row] = {}  # by run folder
        self._halt: Halt | None = None
        self._started = time.monotonic()
        storage = open_journal(folder.journal)
        sweep = request.config.sweep
        self._studies = {
            cell.label: CellStudy(
                storage=storage,
                label=cell.label,
                parameters=cell.parameters,
                first=first_values(cell.parameters),
                sampler=sweep.sampler,
                pruner=sweep.pruner,
                trials=sweep.trials,
                first_step=cell.config.evaluation.first_step,
                max_steps=cell.config.budget.max_steps or 1,
            )
            for cell in request.cells
        }
        earlier = read_earlier_runs(folder.path.parent)
        self._expected = {cell.label: expected_cost(cell.config, earlier).seconds for cell in request.cells}
        self._durations: dict[str, list[float]] = {}  # seconds of this session's trials, by cell

    def run(self) -> int:
        """Run to the end; the exit status is 0, or 128 + signal number where it was asked to stop.

        Raises:
            RequestError: a trainer refused its configuration.
            WorkError: every trial of a cell failed.
        """
        self._folder.stop_request.unlink(missing_ok=True)
        with self._alarm, self._screen:
            self._recover()
            try:
                while self._step():
                    self._screen.update(self._totals(), list(self._rows.values()))
                    self._alarm.wait(self._request.config.launch.poll_s)
                self._screen.update(self._totals(), list(self._rows.values()))
            finally:
                for trial in self._running:  # an error of ours: no trainer outlives us
                    trial.kill()
        return self._conclude()

    def _step(self) -> bool:
        """One turn of the loop; False when nothing is left to do."""
        self._listen()
        for trial in list(self._running):
            self._follow(trial)
        if self._halt is None:
            self._fill_slots()
        return bool(self._running)

    # --- starting ---

    def _fill_slots(self) -> None:
        taken = {trial.slot for trial in self._running}
        for slot in range(self._backend.slots):
            if slot in taken:
                continue
            following = self._next()
            if following is None:
                return
            self._start(slot, *following)

    def _next(self) -> tuple[Cell, Asked] | None:
        """A trial to continue, else a new one of the cell with the fewest; the longest first among equals."""
        if self._waiting:
            return self._waiting.popleft()
        asked = {cell.label: self._studies[cell.label].asked() for cell in self._request.cells}
        open_cells = [
            cell for cell in self._request.cells if asked[cell.label] < self._request.config.sweep.trials
        ]
        if not open_cells:
            return None
        cell = min(open_cells, key=lambda item: (asked[item.label], -self._expected[item.label]))
        return cell, self._studies[cell.label].ask()

    def _start(self, slot: int, cell: Cell, asked: Asked) -> None:
        """Start a trial, new or continued, in its run folder."""
        name = asked.folder or self._new_folder(cell)
        if asked.folder is None:
            self._studies[cell.label].assign(asked.number, name)
        folder = RunFolder(self._folder.trials / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        for left in (folder.stop_request, folder.verdict):  # of the session that it continues
            left.unlink(missing_ok=True)
        number = int(name.split("-", 1)[0])
        overrides = self._overrides(cell, asked, folder)
        order = Order(
            argv=trainer_command(cell.config, overrides, self._gpus),
            log=folder.log,
            environment={"STEPBUDGET_TRIAL": str(number)},
        )
        before = Before.of(folder)
        process = _start(self._backend, slot, order)
        self._running.append(RunningTrial(number, cell, asked, folder, process, slot, before))
        self._rows[name] = Row(
            number, cell.label, max_steps=cell.config.budget.max_steps, values=asked.values
        )
        shown = ", ".join(f"{key}={_short(value)}" for key, value in asked.values.items())
        self._screen.event(
            f"{'continued' if before.status else 'started'} {name}{f' ({shown})' if shown else ''}"
        )

    def _overrides(self, cell: Cell, asked: Asked, folder: RunFolder) -> list[str]:
        """Every override of one trial: the cell's, the sampled values, seed and place."""
        own = {"study": self._folder.name, "run_dir": str(folder.path)}
        if "seed" not in asked.values:
            own = {"seed": str(self._request.config.seed + asked.number), **own}
        values = {key: int(value) if key == "seed" else value for key, value in own.items()}
        return [
            *cell.overrides,
            *trial_overrides(asked.values),
            *(override(key, item) for key, item in values.items()),
        ]

    def _new_folder(self, cell: Cell) -> str:
        """The next number over all cells, and the cell."""
        known = [name for study in self._studies.values() for name in study.folders()]
        on_disk = (
            [item.name for item in self._folder.trials.iterdir()] if self._folder.trials.is_dir() else []
        )
        numbers = [
            int(name.split("-", 1)[0]) for name in (*known, *on_disk) if name.split("-", 1)[0].isdigit()
        ]
        return f"{max(numbers, default=-1) + 1:04d}-{cell.label}"

    # --- following ---

    def _follow(self, trial: RunningTrial) -> None:
        """Take in what a trial did since the last look; prune it or record its end."""
        exit_status = trial.exit_status()  # before the last look at its files, which are then complete
        losses = trial.poll()
        prune = self._studies[trial.cell.label].report(trial.asked.number, losses) if losses else False
        self._show(trial)
        if exit_status is not None:
            self._end(trial, trial.verdict(exit_status))
        elif prune and trial.stop is None and self._halt is None:
            trial.ask_to_stop("pruned", f"{self._request.config.sweep.pruner.name} at step {max(losses)}")

    def _end(self, trial: RunningTrial, verdict: Verdict) -> None:
        self._running.remove(trial)
        trial.folder.write_verdict(verdict)
        spent = self._durations.setdefault(trial.cell.label, [])
        spent.append(time.monotonic() - trial.started)
        self._expected[trial.cell.label] = sum(spent) / len(spent)
        self._tell(trial.cell, trial.asked, trial.tail.best(), verdict)
        row = self._rows[trial.folder.path.name]
        row.outcome, row.reason, row.eta_s = verdict.outcome, verdict.reason, None
        self._announce(trial, row)
        if verdict.outcome == "config_error" and self._halt is None:
            self._stop_all(Halt(2, f"{trial.folder.path.name}: {verdict.reason or 'see its log.txt'}"))

    def _tell(self, cell: Cell, asked: Asked, best: float | None, verdict: Verdict) -> None:
        """Tell Optuna: the lowest held-out loss, however the run ended, unless it failed or goes on later."""
        study = self._studies[cell.label]
        if verdict.outcome in UNFINISHED:
            return
        if verdict.outcome == "pruned":
            study.tell(asked.number, "pruned")
        elif verdict.outcome in FAILED or best is None or not math.isfinite(best):
            study.tell(asked.number, "failed")
        else:
            study.tell(asked.number, "complete", best)

    def _announce(self, trial: RunningTrial, row: Row) -> None:
        best = f", lowest held-out loss {row.best:.4f}" if row.best is not None else ""
        reason = f" ({row.reason})" if row.reason else ""
        failed = row.outcome in (*FAILED, "diverged", "timeout")
        log = f"; see {trial.folder.log}" if failed else ""
        self._screen.event(
            f"{row.outcome} {trial.folder.path.name} at step {row.step}{best}{reason}{log}", failed
        )

    def _show(self, trial: RunningTrial) -> None:
        row = self._rows[trial.folder.path.name]
        status, last = trial.status, trial.tail.last
        row.step = max(status.step if status else 0, last.step if last else 0)
        row.max_steps = (status.max_steps if status else None) or row.max_steps
        row.losses = list(trial.tail.losses.values())
        per_step = status.seconds_per_step if status else None
        if per_step and row.max_steps:
            row.eta_s = max(0.0, row.max_steps - row.step) * per_step
        else:
            row.eta_s = max(0.0, self._expected[trial.cell.label] - (time.monotonic() - trial.started))

    # --- stopping ---

    def _listen(self) -> None:
        """Signals and the request of `sweep stop`."""
        if self._alarm.times > 1:
            for trial in self._running:
                trial.kill()
        if self._halt is not None:
            return
        if self._alarm.asked is not None:
            name = "Ctrl-C" if self._alarm.asked == signal.SIGINT else signal.Signals(self._alarm.asked).name
            self._stop_all(Halt(128 + self._alarm.asked, name))
        elif self._folder.stop_request.exists():
            self._folder.stop_request.unlink(missing_ok=True)
            self._stop_all(Halt(128 + signal.SIGINT, "asked by `sweep stop`"))

    def _stop_all(self, halt: Halt) -> None:
        """Start nothing more, and ask every trainer to end by itself with a checkpoint."""
        self._halt = halt
        again = "; Ctrl-C again ends them at once" if halt.status > 128 else ""
        self._screen.event(
            f"stopping ({halt.reason}): {len(self._running)} trials are asked to end{again}", True
        )
        for trial in self._running:
            trial.ask_to_stop("preempted", halt.reason)

    # --- continuing ---

    def _recover(self) -> None:
        """Take over what an earlier supervisor left: tell what had ended, line up what goes on."""
        for cell in self._request.cells:
            study = self._studies[cell.label]
            running = {asked.folder: asked for asked in study.running()}
            for name in study.folders():
                if name not in running:
                    self._remember(RunFolder(self._folder.trials / name), cell)
            for asked in running.values():
                if asked.folder is not None:
                    await_end_of_earlier(RunFolder(self._folder.trials / asked.folder))
                self._take_over(cell, asked)

    def _take_over(self, cell: Cell, asked: Asked) -> None:
        """A trial without an end in Optuna: its run had ended, or it goes on in the same folder."""
        if asked.folder is None:
            self._waiting.append((cell, asked))
            return
        folder = RunFolder(self._folder.trials / asked.folder)
        verdict = folder.read_verdict() or _trainers_word(folder) or _pruned_before(folder)
        if verdict is None or verdict.outcome in UNFINISHED:
            self._waiting.append((cell, asked))
            return
        folder.write_verdict(verdict)
        row = self._remember(folder, cell, asked)
        losses = {point.step: point.val_loss for point in folder.points() if point.val_loss is not None}
        if losses:
            self._studies[cell.label].report(asked.number, losses)
        self._tell(cell, asked, row.best, verdict)

    def _remember(self, folder: RunFolder, cell: Cell, asked: Asked | None = None) -> Row:
        """The row of a trial that ended in an earlier session."""
        row = row_of(folder, cell.label)
        row.values = asked.values if asked else {}
        self._rows[folder.path.name] = row
        return row

    # --- saying ---

    def _totals(self) -> Totals:
        done = sum(row.outcome is not None and row.outcome not in UNFINISHED for row in self._rows.values())
        left = self._request.planned - done - len(self._running)
        now = [self._rows[trial.folder.path.name].eta_s or 0.0 for trial in self._running]
        mean = sum(self._expected.values()) / len(self._expected)
        eta = max([(sum(now) + left * mean) / self._backend.slots, *now])
        note = "stopping" if self._halt else ""
        elapsed = time.monotonic() - self._started
        return Totals(self._folder.name, done, len(self._running), self._request.planned, elapsed, eta, note)

    def _conclude(self) -> int:
        """Print what came out and return the exit status."""
        for line in cell_summary(list(self._rows.values()), [cell.label for cell in self._request.cells]):
            print(line)
        totals = self._totals()
        if self._halt is not None:
            print(f"{totals.done} of {totals.planned} trials are done, {totals.planned - totals.done} remain")
            print(f"continue with: python -m sweep resume {_shown(self._folder.path)}")
            if self._halt.status == 2:
                raise RequestError(self._halt.reason)
            return self._halt.status
        failed = [
            cell.label
            for cell in self._request.cells
            if all(row.outcome in FAILED for row in self._rows.values() if row.cell == cell.label)
        ]
        if failed:
            raise WorkError(
                f"every trial failed in {', '.join(failed)}: "
                f"the reasons stand in {_shown(self._folder.trials)}/*/log.txt"
            )
        if totals.done < totals.planned:
            raise WorkError(
                f"{totals.planned - totals.done} trials were ended from outside: "
                f"python -m sweep resume {_shown(self._folder.path)} continues them"
            )
        print(f"next: python -m analysis report {_shown(self._folder.path)}")
        return 0


def _start(backend: LaunchBackend, slot: int, order: Order) -> Process:
    try:
        return backend.start(slot, order)
    except OSError as error:
        raise RequestError(f"launch.command={order.argv[0]}: cannot be started: {error.strerror}") from error


def _trainers_word(folder: RunFolder) -> Verdict | None:
    status = folder.read_status()
    return Verdict(status.outcome, status.reason, None, time.time()) if status and status.outcome else None


def _pruned_before(folder: RunFolder) -> Verdict | None:
    """A trial that was being pruned when its supervisor died stays pruned."""
    try:
        request = folder.stop_request.read_text(encoding="utf-8")
    except OSError:
        return None
    return (
        Verdict("pruned", "pruned before an interruption", None, time.time())
        if '"pruned"' in request
        else None
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(path: Path) -> str:
    """A path as a person would type it."""
    try:
        return os.fspath(path.relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
