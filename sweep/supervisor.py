"""The one process that owns a study: it fills the slots, follows the trials, prunes, judges and ends them.

A slot is refilled as soon as it is free; nothing waits for a batch. All state is on disk (journal and run
folders), so that a supervisor that was killed is continued by the next.
"""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
import signal
import time
from typing import Any

from optuna.storages import BaseStorage

from conf.errors import RequestError
from curves.run_folder import RunFolder, Verdict
from sweep.alarm import Alarm
from sweep.attempts import Attempt, failures_in_vain, note_end, note_start, read_attempts
from sweep.branches import verdict_without_trunk
from sweep.cells import Cell, Request, key_of
from sweep.closing import Halt, Session
from sweep.cost import measured_speed
from sweep.design import Design
from sweep.hints import shown
from sweep.inputs import NEIGHBOURS
from sweep.launch import LaunchBackend, Order, Process, trainer_command, trial_environment
from sweep.limits import (
    LIMIT_REACHED,
    Spending,
    device_share,
    exceeded,
    trials_exhausted,
)
from sweep.objectives import objective_values
from sweep.plan import expected_costs
from sweep.policy import FAILED, UNFINISHED, changes_of_next, sizes_of
from sweep.pruners import shared_grid
from sweep.record import StudyFolder
from sweep.recovery import recover, tell
from sweep.screen import Screen
from sweep.space import trial_overrides
from sweep.start import Starts
from sweep.study import Asked, CellStudy
from sweep.table import Row, Totals
from sweep.trial import Before, RunningTrial
from sweep.trunks import Trunks

CTRL_C = "Ctrl-C"
AGAIN_S = 1.0  # a Ctrl-C that comes sooner after a stop began is part of the same request


class Supervisor:
    """Runs a study to its planned number of trials, or until it is asked to stop."""

    def __init__(
        self,
        request: Request,
        folder: StudyFolder,
        storage: BaseStorage,
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
        self._waiting: deque[tuple[Cell, Asked]] = deque()  # to be tried again, or of an earlier supervisor
        self._next_number = 0  # of the next run folder, over all cells
        self._rows: dict[str, Row] = {}  # by run folder
        self._lost: Counter[str] = Counter()  # trials by cell whose run folder is gone
        self._halt: Halt | None = None
        self._started = time.monotonic()
        sweep = request.config.sweep
        shared = sweep.storage is not None
        self._studies = {
            cell.label: CellStudy(
                storage=storage,
                label=cell.label,
                space=cell.space,
                sweep=sweep,
                trials=cell.trials,
                grid=shared_grid(cell.config),
                runs=request.runs_a_trial,
                name=f"{folder.name}/{cell.label}" if shared else None,
                owner=str(folder.read()["id"]) if shared else None,
            )
            for cell in request.cells
        }
        self._design = Design(folder, sweep) if sweep.design == "adaptive" else None
        self._trunks = Trunks(request, folder.trials, self._studies)
        self._starts = Starts(sweep.start_from, request.cells, self._studies, sweep.storage)
        costs = zip(request.cells, expected_costs(request), strict=True)
        self._expected = {cell.label: cost.seconds for cell, cost in costs}
        self._durations: dict[str, list[float]] = {}  # seconds of this session's trials, by cell
        self._devices = device_share(request.config.launch, gpus, backend.slots)
        self._spending = Spending(folder, sweep.limits, self._devices, bool(gpus))
        self._account = self._spending.update([])

    def run(self) -> int:
        """Run to the end.

        Returns:
            0, LIMIT_REACHED, or 128 + signal number where it was asked to stop.

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
        session = self._end_of_session()
        self._spending.save(session.limit_reached())
        return session.conclude()

    def _recover(self) -> None:
        """Take over what an earlier supervisor left.

        Raises:
            RequestError: there are runs that the journal does not know.
        """
        recovered = recover(
            self._request, self._folder, self._studies, lambda text: self._screen.event(text, True)
        )
        self._waiting.extend(recovered.waiting)
        self._rows.update(recovered.rows)
        self._lost = recovered.lost
        known = [name for study in self._studies.values() for name in study.folders()]
        trials = self._folder.trials
        on_disk = [item.name for item in trials.iterdir()] if trials.is_dir() else []
        numbers = [name.split("-", 1)[0] for name in (*known, *on_disk)]
        self._next_number = 1 + max((int(number) for number in numbers if number.isdigit()), default=-1)

    def _step(self) -> bool:
        """One turn of the loop; False when nothing is left to do."""
        self._listen()
        for trial in list(self._running):
            self._follow(trial)
        self._account = self._spending.update(self._running)
        reached = exceeded(self._account)
        if (
            self._halt is None
            and reached is not None
            and (self._running or self._waiting or self._open_cells())
        ):
            self._stop_all(Halt(LIMIT_REACHED, reached))
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
            while following is not None and self._lost_trunk(*following):
                self._end_without_trunk(*following)
                following = self._next()
            if following is None:
                return
            self._start(slot, *following)
            self._account = self._spending.update(self._running)

    def _next(self) -> tuple[Cell, Asked] | None:
        """A trial to continue, else a new one of the cell with the fewest; the longest first among equals."""
        if self._waiting:
            return self._waiting.popleft()
        open_cells = self._open_cells()
        if not open_cells or trials_exhausted(self._account) is not None:
            return None
        if self._design is not None:
            chosen = self._design.choose(open_cells, self._folders())
            if chosen is None:
                return None
            cell = chosen
        elif self._request.config.sweep.start_from == NEIGHBOURS:  # which have to have come before
            cell = open_cells[0]
        else:
            cell = min(open_cells, key=lambda item: (self._asked(item), -self._expected[item.label]))
        study = self._studies[cell.label]
        return cell, study.ask(self._starts.of(cell) if study.takes_start() else None)

    def _folders(self) -> dict[str, list[str]]:
        """The run folders of each cell's trials that are there, by its label."""
        trials = self._folder.trials
        return {
            label: [name for name in study.folders() if (trials / name).is_dir()]
            for label, study in self._studies.items()
        }

    def _narrow_enough(self) -> bool:
        """Whether an adaptive design has ended the sweep: no cell that lacks trials needs them."""
        open_cells = self._open_cells()
        unfinished = any(row.outcome in UNFINISHED for row in self._rows.values())
        if self._design is None or self._halt is not None or not open_cells or unfinished:
            return False
        folders = self._folders()
        return all(self._design.narrow(folders[cell.label]) for cell in open_cells)

    def _open_cells(self) -> list[Cell]:
        """Cells that lack trials, the next of which can start."""
        lacking = (cell for cell in self._request.cells if self._asked(cell) < self._request.runs_of(cell))
        unfinished = {asked.folder for _, asked in self._waiting}
        unfinished |= {trial.folder.path.name for trial in self._running}
        return [
            cell
            for cell in lacking
            if self._trunks.is_due(cell, self._studies[cell.label].asked(), unfinished)
        ]

    def _lost_trunk(self, cell: Cell, asked: Asked) -> bool:
        """Whether a trial is a branch that has not started and never can."""
        return asked.folder is None and not self._trunks.has_state(cell, asked.number)

    def _end_without_trunk(self, cell: Cell, asked: Asked) -> None:
        """Record a branch whose trunk has ended before it."""
        asked = self._named(cell, asked)
        folder = RunFolder(self._folder.trials / str(asked.folder))
        trunk = self._trunks.of(cell, asked.number)
        assert trunk is not None
        verdict = verdict_without_trunk(trunk)
        folder.write_verdict(verdict)
        number = int(folder.path.name.split("-", 1)[0])
        self._rows[folder.path.name] = Row(
            number, cell.label, outcome=verdict.outcome, reason=verdict.reason, values=asked.values
        )
        self._screen.event(f"{verdict.outcome} {folder.path.name} ({verdict.reason})", True)
        self._studies[cell.label].tell(asked.number, "failed")

    def _asked(self, cell: Cell) -> int:
        return self._studies[cell.label].asked() - self._lost[cell.label]

    def _start(self, slot: int, cell: Cell, asked: Asked) -> None:
        """Start a trial, new or continued, in its run folder."""
        asked = self._named(cell, asked)
        name = str(asked.folder)
        folder = RunFolder(self._folder.trials / name)
        folder.path.mkdir(parents=True, exist_ok=True)
        attempts = read_attempts(folder)
        changes = self._changes(attempts, cell, asked) or {}
        for left in (folder.stop_request, folder.verdict):  # of the attempt that it continues
            left.unlink(missing_ok=True)
        number = int(name.split("-", 1)[0])
        overrides = self._overrides(cell, asked, folder, changes)
        order = Order(
            argv=trainer_command(cell.config, overrides, self._gpus),
            log=folder.log,
            environment=trial_environment(number, cell.label, folder.path, overrides),
        )
        before = Before.of(folder)
        note_start(folder, overrides, self._devices, changes)
        process = _start(self._backend, slot, order)
        spent = sum(attempt.seconds for attempt in attempts)
        begins = self._trunks.first_step(cell, asked.number)
        trial = RunningTrial(number, cell, asked, folder, process, slot, before, spent, begins)
        self._running.append(trial)
        steps = self._derived(cell, asked).get("budget.max_steps", cell.config.budget.max_steps)
        self._rows[name] = Row(number, cell.label, max_steps=steps, values=asked.values)
        again = f"{'continued' if before.status else 'started'} {name}"
        origin = f", {asked.origin}" if asked.origin else ""
        self._screen.event(again + self._values(cell, asked, changes) + origin)

    def _named(self, cell: Cell, asked: Asked) -> Asked:
        """A trial with its run folder's name."""
        if asked.folder is not None:
            return asked
        name, self._next_number = f"{self._next_number:04d}-{cell.label}", self._next_number + 1
        self._studies[cell.label].assign(asked.number, name)
        return replace(asked, folder=name)

    def _values(self, cell: Cell, asked: Asked, changes: dict[str, Any]) -> str:
        """What a trial was sampled with, its fold or its budget as a branch, and what an attempt changes."""
        member_keys = ("dataset.fold", "budget.max_steps")
        own = {key: value for key, value in self._derived(cell, asked).items() if key in member_keys}
        values = asked.values | own | changes
        return f" ({', '.join(f'{key}={_short(value)}' for key, value in values.items())})" if values else ""

    def _changes(self, attempts: Sequence[Attempt], cell: Cell, asked: Asked) -> dict[str, Any] | None:
        """What a trial's next attempt has otherwise than its first; None where it is over."""
        return changes_of_next(attempts, sizes_of(cell.config, asked.values), cell.config.launch.retries)

    def _overrides(self, cell: Cell, asked: Asked, folder: RunFolder, changes: dict[str, Any]) -> list[str]:
        """Every override of one attempt: the cell's, the sampled values, the changes, seed and place."""
        place = {"study": self._folder.name, "run_dir": str(folder.path)}
        if self._gpus and cell.config.device == "auto":
            place["device"] = "cuda"  # rather an error than a trial that falls back on the CPU
        return [
            *(
                item for item in cell.overrides if key_of(item) != "sweep.storage"
            ),  # which may hold a password
            *trial_overrides(asked.values | changes),
            *trial_overrides(self._derived(cell, asked)),
            *trial_overrides(place),
        ]

    def _derived(self, cell: Cell, asked: Asked) -> dict[str, Any]:
        """What follows from a trial's number: its seed, which runs of one parameter set share, and which of them it is."""
        parameter_set, member = divmod(asked.number, self._request.runs_a_trial)
        seed = {} if "seed" in asked.values else {"seed": self._request.config.seed + parameter_set}
        if self._request.config.sweep.folds:
            return seed | {"dataset.fold": member}
        return seed | self._trunks.values(cell, asked)

    # --- following ---

    def _follow(self, trial: RunningTrial) -> None:
        """Take in what a trial did since the last look; prune it or record its end."""
        exit_status = trial.exit_status()  # before the last look at its files, which are then complete
        losses = trial.poll()
        prune = None
        if losses and trial.stop is None and not trial.asked.told:
            prune = self._studies[trial.cell.label].report(trial.asked.number, trial.tail.losses)
        self._show(trial)
        if exit_status is not None:
            self._end(trial, trial.verdict(exit_status))
        elif prune is not None and self._halt is None:
            trial.ask_to_stop("pruned", f"{self._request.config.sweep.pruner.name} at step {prune}")

    def _end(self, trial: RunningTrial, verdict: Verdict) -> None:
        """Record how an attempt ended; try the trial again, or tell Optuna what came of it."""
        self._running.remove(trial)
        seconds = time.monotonic() - trial.started
        trial.folder.write_verdict(verdict)
        note_end(trial.folder, verdict, trial.step, seconds, trial.first_step)
        row = self._rows[trial.folder.path.name]
        row.objectives = objective_values(trial.tail, self._request.config.sweep.objectives) or []
        row.outcome, row.reason, row.eta_s = verdict.outcome, verdict.reason, None
        if verdict.outcome == "config_error" and self._halt is None:
            self._stop_all(Halt(2, f"{trial.folder.path.name}: {verdict.reason or 'see its log.txt'}"))
        again = self._goes_on(trial, verdict)
        self._announce(trial, row, again)
        if again:
            self._waiting.append((trial.cell, trial.asked))
            return
        spent = self._durations.setdefault(trial.cell.label, [])
        spent.append(seconds)
        self._expected[trial.cell.label] = sum(spent) / len(spent)
        tell(self._studies[trial.cell.label], trial.asked, row.objectives, verdict.outcome)

    def _goes_on(self, trial: RunningTrial, verdict: Verdict) -> bool:
        """Whether another attempt follows in this session."""
        attempts = read_attempts(trial.folder)
        if verdict.outcome in UNFINISHED:  # preempted by somebody else: in vain it is left to `resume`
            by_us = self._halt is not None or trial.stop is not None or verdict.outcome == "config_error"
            return not by_us and failures_in_vain(attempts) <= trial.cell.config.launch.retries
        return self._changes(attempts, trial.cell, trial.asked) is not None

    def _announce(self, trial: RunningTrial, row: Row, again: bool) -> None:
        best = f", lowest held-out loss {row.best:.4f}" if row.best is not None else ""
        reason = f" ({row.reason})" if row.reason else ""
        failed = row.outcome in (*FAILED, "timeout")
        then = "; another attempt follows" if again else ""
        log = f"; see {shown(trial.folder.log)}" if failed else ""
        self._screen.event(
            f"{row.outcome} {trial.folder.path.name} at step {row.step}{best}{reason}{then}{log}", failed
        )

    def _show(self, trial: RunningTrial) -> None:
        row = self._rows[trial.folder.path.name]
        status, last = trial.status, trial.tail.last
        row.step = trial.step
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

    # --- saying ---

    def _totals(self) -> Totals:
        again = {asked.folder for _, asked in self._waiting}
        done = sum(
            row.outcome is not None and row.outcome not in UNFINISHED and name not in again
            for name, row in self._rows.items()
        )
        left = self._request.planned - done - len(self._running)
        now = [self._rows[trial.folder.path.name].eta_s or 0.0 for trial in self._running]
        mean = sum(self._expected.values()) / len(self._expected)
        eta = max([(sum(now) + left * mean) / self._backend.slots, *now])
        note = "stopping" if self._halt else ""
        elapsed = time.monotonic() - self._started
        planned, spent = self._request.planned, self._account.words()
        return Totals(self._folder.name, done, len(self._running), planned, elapsed, eta, note, spent)

    def _end_of_session(self) -> Session:
        return Session(
            request=self._request,
            folder=self._folder,
            rows=list(self._rows.values()),
            diverged={label: study.diverged() for label, study in self._studies.items()},
            totals=self._totals(),
            halt=self._halt,
            account=self._account,
            enough=self._narrow_enough(),
        )


def _start(backend: LaunchBackend, slot: int, order: Order) -> Process:
    try:
        return backend.start(slot, order)
    except OSError as error:
        if error.filename != order.argv[0]:  # not the program: the log, or no memory for a process
            raise
        raise RequestError(f"launch.command={order.argv[0]}: cannot be started: {error.strerror}") from error


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
