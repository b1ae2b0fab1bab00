"""calibration.json: a stop rule with the parameters that were best on recorded runs, at one price or several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
import json
from pathlib import Path
from typing import Any

from curves.run_folder import read_json, write_json

SCHEMA = 1
SHIPPED = Path(__file__).with_name("calibration.json")
DEFAULT_PRICE = 0.1
MAKE_ONE = "make one with: python -m analysis tune RUNS --to FILE"


@dataclass(frozen=True)
class Calibration:
    """A rule tuned for one price.

    Attributes:
        price: cost of the whole horizon, in gain.
        rule: name of the stop rule.
        parameters: of the rule.
        tuned_on: what the runs were: their number, their image sets, the mean cost reached on them.
    """

    price: float
    rule: str
    parameters: dict[str, float | int | None]
    tuned_on: dict[str, Any] = field(default_factory=dict)

    def words(self) -> str:
        """`posterior, kappa=0.1, tuned for a price of 0.1`"""
        set_to = [f"{name}={value:g}" for name, value in self.parameters.items() if value is not None]
        return f"{', '.join([self.rule, *set_to])}, tuned for a price of {self.price:g}"


def write_calibrations(path: Path, calibrations: Sequence[Calibration]) -> None:
    """Write the file, whole or not at all."""
    write_json(path, {"schema": SCHEMA, "calibrations": [asdict(item) for item in calibrations]})


def read_calibrations(path: Path) -> list[Calibration]:
    """All prices of a file.

    Raises:
        ValueError: there is no such file, or it is of another kind; the message names it and the remedy.
    """
    try:
        record = read_json(path)
    except ValueError as error:
        cause = error.__cause__
        reason = "there is no such file" if isinstance(cause, FileNotFoundError) else "cannot be read"
        raise ValueError(f"path={path}: {reason}; {MAKE_ONE}") from error
    try:
        if record["schema"] != SCHEMA:
            raise ValueError(f"schema {record['schema']!r}, this version reads {SCHEMA}")
        found = [_calibration(item) for item in record["calibrations"]]
        if not found:
            raise ValueError("no price in it")
    except (KeyError, TypeError, ValueError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"path={path}: is no calibration ({said}); {MAKE_ONE}") from error
    return found


def find_calibration(path: str | Path | None = None, price: float | None = None) -> Calibration:
    """The calibration for a price.

    Args:
        path: of the file; None: the one that comes with the project.
        price: None: the file's only one; of several DEFAULT_PRICE.

    Raises:
        ValueError: no such file, or no such price in it; the prices are listed.
    """
    known = {
        item.price: item for item in read_calibrations(SHIPPED if path is None else Path(path).expanduser())
    }
    if price is None:
        price = next(iter(known)) if len(known) == 1 else DEFAULT_PRICE
    if price not in known:
        listed = ", ".join(f"{item:g}" for item in sorted(known))
        raise ValueError(
            f"price={price:g}: the calibration has {listed}; choose one of them, or make one with: "
            f"python -m analysis tune RUNS --price {price:g} --to FILE"
        )
    return known[price]


def _calibration(record: dict[str, Any]) -> Calibration:
    rule, parameters, price = record["rule"], record["parameters"], record["price"]
    if not isinstance(rule, str) or not isinstance(parameters, dict):
        raise TypeError(f"rule={json.dumps(rule)}, parameters={json.dumps(parameters)}")
    if isinstance(price, bool) or not isinstance(price, int | float):
        raise TypeError(f"price={json.dumps(price)}")
    return Calibration(float(price), rule, dict(parameters), dict(record.get("tuned_on") or {}))
