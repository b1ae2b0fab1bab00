"""What a study has spent, and whether a limit is reached. Trials are looked at again only while they run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import os
from pathlib import Path
import time
from typing import Protocol

from conf.schema import Launch, Limits
from curves.run_folder import RunFolder, Status
from curves.spent import NAMES, Account, Spent, amount, read_account, write_account
from sweep.attempts import Attempt, last_word, read_attempts
from sweep.hints import command
from sweep.record import StudyFolder

LIMIT_REACHED = 3  # exit status of a sweep that a limit has ended before its plan was fulfilled
SAVE_EVERY_S = 5.0
MEASURE_EVERY_S = 10.0  # the disk; walking through folders takes time


class Running(Protocol):
    """What is asked of a trial that runs now."""

    folder: RunFolder
    started: float  # monotonic seconds
    status: Status | None  # of this attempt
    first_step: int | None  # that its status has shown


@dataclass(frozen=True)
class TrialSpent:
    """Of one trial, all attempts added up; of all trials, these added up."""

    device_s: float = 0.0
    steps: int = 0
    size: int = 0  # bytes

    def plus(self, other: "TrialSpent", sign: int = 1) -> "TrialSpent":
        return TrialSpent(
            self.device_s + sign * other.device_s,
            self.steps + sign * other.steps,
            self.size + sign * other.size,
        )


class Spending:
    """Adds up what a study spends.

    Args:
        devices: of one trial in a slot.
        on_gpus: whether these are GPUs.
    """

    def __init__(self, folder: StudyFolder, limits: Limits, devices: float, on_gpus: bool) -> None:
        self._folder = folder
        self._limits = limits
        self._devices = devices
        self._on_gpus = on_gpus
        earlier = read_account(folder.path)
        self._earlier_hours = earlier.spent.hours if earlier else 0.0
        self._started = time.monotonic()
        self._before: dict[str, TrialSpent] = {}  # attempts that have ended, by run folder
        self._total = TrialSpent()  # of these
        self._running: set[str] = set()
        self._counted: set[str] = set()  # running trials whose earlier attempts are in the total
        self._saved = self._measured = -float("inf")
        self._rest = 0  # bytes beside the trials
        for path in sorted(folder.trials.glob("[0-9]*-*")):
            self._close(RunFolder(path))

    def update(self, running: Sequence[Running], reached: str | None = None) -> Account:
        """What is spent now; kept in spent.json every few seconds."""
        now = time.monotonic()
        names = {trial.folder.path.name for trial in running}
        for name in self._running - names:
            self._counted.discard(name)
            self._close(RunFolder(self._folder.trials / name))
        self._running = names
        live = [self._live(trial, now) for trial in running]
        if now - self._measured >= MEASURE_EVERY_S:
            self._measured = now
            self._rest = folder_size(self._folder.path, without=self._folder.trials)
            for trial in running:
                self._measure(trial.folder)
        account = self._account(live, now, reached)
        if now - self._saved >= SAVE_EVERY_S:
            self._saved = now
            write_account(self._folder.path, account)
        return account

    def save(self, reached: str | None = None) -> Account:
        """What is spent now that no trial runs any more, kept in spent.json."""
        self._saved = self._measured = -float("inf")
        return self.update([], reached)

    def _close(self, folder: RunFolder) -> None:
        """Take in a trial that does not run."""
        self._put(folder, self._ended(folder, read_attempts(folder)))
        self._measure(folder)

    def _measure(self, folder: RunFolder) -> None:
        known = self._before.get(folder.path.name, TrialSpent())
        self._put(folder, replace(known, size=folder_size(folder.path)))

    def _put(self, folder: RunFolder, part: TrialSpent) -> None:
        old = self._before.get(folder.path.name, TrialSpent())
        self._total = self._total.plus(old, -1).plus(part)
        self._before[folder.path.name] = part

    def _live(self, trial: Running, now: float) -> TrialSpent:
        """What the attempt that runs now adds."""
        name = trial.folder.path.name
        if name not in self._counted:
            self._counted.add(name)
            earlier = self._ended(trial.folder, read_attempts(trial.folder)[:-1])
            self._put(trial.folder, replace(earlier, size=folder_size(trial.folder.path)))
        step = trial.status.step if trial.status else 0
        steps = max(0, step - trial.first_step) if trial.first_step is not None else 0
        return TrialSpent((now - trial.started) * self._devices, steps)

    def _ended(self, folder: RunFolder, attempts: Sequence[Attempt]) -> TrialSpent:
        total, reached = TrialSpent(), 0
        for attempt in attempts:
            seconds, step = attempt.seconds, attempt.step
            if attempt.ended is None:  # the supervisor was killed: the trainer's last word tells
                status = last_word(folder, attempts)
                seconds = status.updated - attempt.started if status else 0.0
                step = status.step if status else reached
            first = reached if attempt.first_step is None else attempt.first_step
            reached = step
            devices = self._devices if attempt.devices is None else attempt.devices
            total = replace(
                total,
                device_s=total.device_s + max(0.0, seconds) * devices,
                steps=total.steps + max(0, reached - first),
            )
        return total

    def _account(self, live: Sequence[TrialSpent], now: float, reached: str | None) -> Account:
        total = self._total
        for part in live:
            total = total.plus(part)
        gpu_hours = total.device_s / 3600
        price = self._limits.price_per_gpu_hour
        spent = Spent(
            trials=len(self._before),
            hours=self._earlier_hours + (now - self._started) / 3600,
            gpu_hours=gpu_hours,
            steps=total.steps,
            disk_gb=(total.size + self._rest) / 1e9,
            cost=gpu_hours * price if price is not None else None,
        )
        return Account(spent, caps(self._limits), self._limits.currency, self._on_gpus, reached)


def caps(limits: Limits) -> dict[str, float]:
    """The limits that are set, by their names in `Spent`."""
    values = {name: getattr(limits, name) for name in NAMES}
    return {name: value for name, value in values.items() if value is not None}


def exceeded(account: Account) -> str | None:
    """The first limit that ends a sweep at once, in words; that of trials only starts no more."""
    return next((text for name in NAMES if name != "trials" and (text := _reached(account, name))), None)


def trials_exhausted(account: Account) -> str | None:
    """The limit of trials, once so many are started."""
    return _reached(account, "trials")


def how_to_raise(text: str, study: Path) -> str:
    """The command that goes on with a higher limit."""
    key, value = text.split(":", 1)[0].split("=", 1)
    return command("resume", study, f"{key}={2 * float(value):g}")


def device_share(launch: Launch, gpus: Sequence[str], slots: int) -> float:
    """Devices of one trial: its processes; where slots share GPUs, its share of them."""
    return min(float(launch.processes), len(gpus) / slots) if gpus else float(launch.processes)


def folder_size(path: Path, without: Path | None = None) -> int:
    """Bytes that a folder takes on disk; what vanishes meanwhile does not count."""
    total = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    total += (
                        0
                        if without is not None and Path(entry.path) == without
                        else folder_size(Path(entry.path))
                    )
                else:
                    total += entry.stat(follow_symlinks=False).st_blocks * 512
    except OSError:
        return total
    return total


def _reached(account: Account, name: str) -> str | None:
    limit, used = account.limits.get(name), getattr(account.spent, name)
    if limit is None or used is None or used < limit:
        return None
    return f"sweep.limits.{name}={limit:g}: {amount(used)} {account.unit(name)} are spent"
