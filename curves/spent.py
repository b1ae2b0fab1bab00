"""spent.json: what a study has cost so far, against the limits that it was given."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from curves.run_folder import read_json, write_json

FILE = "spent.json"
SCHEMA = 1


@dataclass(frozen=True)
class Spent:
    """What a study has used, over all of its sessions.

    Attributes:
        trials: started.
        hours: of wall clock while a sweep ran.
        gpu_hours: devices of a trial x hours that it ran; without GPUs each process is one device.
        steps: optimizer updates, those included that were trained again.
        disk_gb: of the study's folder, in 10^9 bytes.
        cost: None without a price.
    """

    trials: int = 0
    hours: float = 0.0
    gpu_hours: float = 0.0
    steps: int = 0
    disk_gb: float = 0.0
    cost: float | None = None


NAMES = tuple(item.name for item in fields(Spent))


@dataclass(frozen=True)
class Account:
    """What is spent, and of how much.

    Attributes:
        limits: name in `Spent`: the cap; absent where there is none.
        currency: of the cost.
        on_gpus: whether the devices of `gpu_hours` are GPUs.
        reached: the limit that ended the sweep, in words.
    """

    spent: Spent
    limits: Mapping[str, float]
    currency: str = "USD"
    on_gpus: bool = False
    reached: str | None = None

    def unit(self, name: str) -> str:
        """The words behind a number: trials, hours, GPU-hours, steps, GB, USD."""
        device = "GPU-hours" if self.on_gpus else "device-hours"
        return {"gpu_hours": device, "disk_gb": "GB", "cost": self.currency}.get(name, name)

    def left(self, name: str) -> float | None:
        """What a limit leaves; None where there is no limit."""
        used = getattr(self.spent, name)
        return max(0, self.limits[name] - used) if name in self.limits and used is not None else None

    def words(self) -> list[str]:
        """Each amount that says something: `0.4 of 2 hours`, `12,345 steps`."""
        said = []
        for name in NAMES:
            used, limit = getattr(self.spent, name), self.limits.get(name)
            if used is None or (name in ("trials", "hours") and limit is None):  # which a sweep shows anyway
                continue
            of = f" of {amount(limit)}" if limit is not None else ""
            said.append(f"{amount(used)}{of} {self.unit(name)}")
        return said

    def rows(self) -> list[tuple[str, str, str, str]]:
        """A table: what, spent, limit, left; a dash where there is none."""
        return [
            (
                self._title(name),
                amount(getattr(self.spent, name)),
                amount(self.limits[name]) if name in self.limits else "–",
                "–" if (left := self.left(name)) is None else amount(left),
            )
            for name in NAMES
            if getattr(self.spent, name) is not None
        ]

    def _title(self, name: str) -> str:
        titles = {"hours": "hours of wall clock", "disk_gb": "GB on disk", "cost": f"cost in {self.currency}"}
        return titles.get(name, self.unit(name))

    def record(self) -> dict[str, Any]:
        """As plain values, with what is left."""
        left = {name: self.left(name) for name in NAMES if name in self.limits}
        return {"schema": SCHEMA, **asdict(self), "limits": dict(self.limits), "left": left}


def amount(value: float) -> str:
    """A number as it is read: 0.0042, 0.42, 4.2, 42, 4,200."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{round(value):,}"
    if abs(value) < 0.0001:
        return "0"
    return f"{value:.2g}" if abs(value) < 10 else f"{value:.3g}"


def write_account(study: Path, account: Account) -> None:
    write_json(study / FILE, account.record())


def read_account(study: Path) -> Account | None:
    """The account of a study; None where it has none, or one that cannot be read."""
    try:
        record = read_json(study / FILE)
        spent = Spent(**{name: record["spent"].get(name, getattr(Spent, name)) for name in NAMES})
        limits = {str(name): float(value) for name, value in record["limits"].items() if name in NAMES}
        for name in NAMES:
            value = getattr(spent, name)
            if not isinstance(value, int | float) and not (name == "cost" and value is None):
                return None
        currency, reached = str(record.get("currency") or "USD"), record.get("reached")
        return Account(spent, limits, currency, bool(record.get("on_gpus")), reached and str(reached))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
