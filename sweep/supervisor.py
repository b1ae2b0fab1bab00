"""The one process that owns a study: it fills the slots, follows the trials, prunes, judges and ends them.

A slot is refilled as soon as it is free; nothing waits for a batch. All state is on disk (journal and run
folders), so that a supervisor that was killed is continued by the next.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
import math
import signal
import time

from conf.errors import RequestError, WorkError
from curves.run_folder import RunFolder, Verdict, find_runs
from sweep.alarm import Alarm
from sweep.cells import Cell, Request
from sweep.cost import expected_cost, measured_speed, read_earlier_runs
from sweep.hints import command, shown
from sweep.launch import LaunchBackend, Order, Process, trainer_command, trial_environment
from sweep.record import StudyFolder
from sweep.rows import cell_summary, row_of
from sweep.screen import Screen, say
from sweep.space import first_values, trial_overrides
from sweep.storage import open_journal
from sweep.study import Asked, CellStudy
from sweep.table import Row, Totals
from sweep.tail import CurveTail
from sweep.trial import Before, RunningTrial, await_end_of_earlier

FAILED = ("crashed", "out_of_memory", "config_error")  # told to Optuna as failed
UNFINISHED = ("preempted", "config_error")  # left running in Optuna: `resume` continues them
CTRL_C = "Ctrl-C"
AGAIN_S = 1.0  # a Ctrl-C that comes sooner after a stop began is part of the same request


@dataclass
class Halt:
    """Why and since when (monotonic seconds) no trial is started, and the exit status that this makes."""

    status: int
    reason: str
    since: float = field(default_factory=time.monotonic)


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
        self._lost: Counter[str] = (
            Counter()
        )  # trials by cell whose run folder is gone: others take their place
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
                folds=request.folds,
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
                    trial.kill("the sweep failed")
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
        asked = {
            cell.label: self._studies[cell.label].asked() - self._lost[cell.label]
            for cell in self._request.cells
        }
        open_cells = [cell for cell in self._request.cells if asked[cell.label] < self._request.runs_a_cell]
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
            environment=trial_environment(number, cell.label, folder.path, overrides),
        )
        before = Before.of(folder)
        process = _start(self._backend, slot, order)
        self._running.append(RunningTrial(number, cell, asked, folder, process, slot, before))
        self._rows[name] = Row(
            number, cell.label, max_steps=cell.config.budget.max_steps, values=asked.values
        )
        fold = {key: value for key, value in self._derived(asked).items() if key == "dataset.fold"}
        shown = ", ".join(f"{key}={_short(value)}" for key, value in (asked.values | fold).items())
        self._screen.event(
            f"{'continued' if before.status else 'started'} {name}{f' ({shown})' if shown else ''}"
        )

    def _overrides(self, cell: Cell, asked: Asked, folder: RunFolder) -> list[str]:
        """Every override of one trial: the cell's, the sampled values, seed and place."""
        place = {"study": self._folder.name, "run_dir": str(folder.path)}
        return [
            *cell.overrides,
            *trial_overrides(asked.values),
            *trial_overrides(self._derived(asked)),
            *trial_overrides(place),
        ]

    def _derived(self, asked: Asked) -> dict[str, int]:
        """Seed and fold of a trial, by its number: the folds of one parameter set share its seed."""
        parameter_set, fold = divmod(asked.number, self._request.folds)
        seed = {} if "seed" in asked.values else {"seed": self._request.config.seed + parameter_set}
        return seed | ({"dataset.fold": fold} if self._request.config.sweep.folds else {})

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
        log = f"; see {shown(trial.folder.log)}" if failed else ""
        self._screen.event(
            f"{row.outcome} {trial.folder.path.name} at step {row.step}{best}{reason}{log}", failed
        )

    def _show(self, trial: RunningTrial) -> None:
        row = self._rows[trial.folder.path.name]
        status, last = trial.status, trial.tail.last
        row.step = max(status.step if status else 0, last.step if last else 0)
        row.max_steps = (status.max_steps if status else None) or row.max_steps
        row.losses = list(trial.tail.losses.values())
        speed = measured_speed(status, last, len(trial.tail.losses))
        if speed is not None and row.max_steps:
            row.eta_s = speed.seconds_left(row.step, row.max_steps, trial.cell.config.evaluation)
        else:
            row.eta_s = max(0.0, self._expected[trial.cell.label] - (time.monotonic() - trial.started))

    # --- stopping ---

    def _listen(self) -> None:
        """Signals and the request of `sweep stop`."""
        if self._halt is not None:
            self._listen_again(self._halt)
        elif self._alarm.asked is not None:
            name = CTRL_C if self._alarm.asked == signal.SIGINT else signal.Signals(self._alarm.asked).name
            self._stop_all(Halt(128 + self._alarm.asked, name))
        elif self._folder.stop_request.exists():
            self._folder.stop_request.unlink(missing_ok=True)
            self._stop_all(Halt(128 + signal.SIGINT, "asked by `sweep stop`"))

    def _listen_again(self, halt: Halt) -> None:
        """A Ctrl-C while trainers write their checkpoints, from somebody who does not want to wait for them."""
        pressed = self._alarm.pressed
        if pressed is None or pressed - halt.since < AGAIN_S:
            return
        second = "a second " if halt.reason == CTRL_C else ""
        for trial in self._running:
            trial.kill(f"killed by {second}Ctrl-C")

    def _stop_all(self, halt: Halt) -> None:
        """Start nothing more, and ask every trainer to end by itself with a checkpoint."""
        self._halt = halt
        again = "Ctrl-C again ends" if halt.reason == CTRL_C else "Ctrl-C ends"
        self._screen.event(
            f"stopping ({halt.reason}): {len(self._running)} trials are asked to end; {again} them at once",
            True,
        )
        for trial in self._running:
            trial.ask_to_stop("preempted", halt.reason)

    # --- continuing ---

    def _recover(self) -> None:
        """Take over what an earlier supervisor left: tell what had ended, line up what goes on.

        Raises:
            RequestError: there are runs that the journal does not know.
        """
        self._refuse_strangers()
        for cell in self._request.cells:
            study = self._studies[cell.label]
            running = study.running()
            going_on = {asked.folder for asked in running}
            for name in study.folders():
                if name in going_on:
                    continue
                folder = RunFolder(self._folder.trials / name)
                if folder.outcome() is not None:
                    self._remember(folder, cell)
                else:
                    self._lost[cell.label] += 1
                    self._screen.event(f"{name}: its run folder is gone; another trial takes its place", True)
            for asked in running:
                if asked.folder is not None:
                    await_end_of_earlier(RunFolder(self._folder.trials / asked.folder))
                self._take_over(cell, asked)

    def _refuse_strangers(self) -> None:
        """Without its journal a study would run everything again, and count what it has as a second result."""
        known = {name for study in self._studies.values() for name in study.folders()}
        strangers = [run.path.name for run in find_runs(self._folder.path) if run.path.name not in known]
        if strangers:
            more = f" (and {len(strangers) - 1} more)" if len(strangers) > 1 else ""
            raise RequestError(
                f"{shown(self._folder.trials / strangers[0])}{more}: {shown(self._folder.journal)} does not know "
                "this run: restore the journal, move the run elsewhere, or start another study with study=NAME"
            )

    def _take_over(self, cell: Cell, asked: Asked) -> None:
        """A trial without an end in Optuna: its run had ended, or it goes on in the same folder."""
        asked = self._studies[cell.label].complete(asked)
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
        losses = CurveTail(folder.curve).read()
        if losses:
            self._studies[cell.label].report(asked.number, losses)
        self._tell(cell, asked, row.best, verdict)

    def _remember(self, folder: RunFolder, cell: Cell, asked: Asked | None = None) -> Row:
        """The row of a trial that ended in an earlier session."""
        row = row_of(folder, cell.label, cell.config.evaluation)
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
            say(line)
        totals = self._totals()
        if self._halt is not None:
            say(f"{totals.done} of {totals.planned} trials are done, {totals.planned - totals.done} remain")
            say(f"continue with: {command('resume', self._folder.path)}")
            if self._halt.status == 2:
                raise RequestError(self._halt.reason)
            return self._halt.status
        self._refuse_failure()
        if totals.done < totals.planned:
            raise WorkError(
                f"{totals.planned - totals.done} trials were ended from outside: "
                f"{command('resume', self._folder.path)} continues them"
            )
        say(f"next: python -m analysis report {shown(self._folder.path)}")
        return 0

    def _refuse_failure(self) -> None:
        """A cell of which nothing is left but failures says nothing about its budget."""
        own = {
            cell.label: [row for row in self._rows.values() if row.cell == cell.label]
            for cell in self._request.cells
        }
        failed = {label: rows for label, rows in own.items() if all(row.outcome in FAILED for row in rows)}
        if not failed:
            return
        reasons = list(dict.fromkeys(row.reason for rows in failed.values() for row in rows if row.reason))
        first = reasons[0] if reasons else "without a reason"
        more = f" (and {len(reasons) - 1} other reasons)" if len(reasons) > 1 else ""
        again = command("resume", self._folder.path, f"sweep.trials={2 * self._request.config.sweep.trials}")
        raise WorkError(
            f"every trial failed in {', '.join(failed)}: {first}{more}; see {shown(self._folder.trials)}/*/log.txt; "
            f"fix the cause, then `{again}`, or start another study with study=NAME"
        )


def _start(backend: LaunchBackend, slot: int, order: Order) -> Process:
    try:
        return backend.start(slot, order)
    except OSError as error:
        if error.filename != order.argv[0]:  # not the program: the log, or no memory for a process
            raise
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
