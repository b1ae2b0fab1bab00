"""What a policy costs on one recorded run: regret of the checkpoint that it keeps, and the steps that it trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.load import Study
from analysis.run import Run
from conf.errors import RequestError

Array = NDArray[np.float64]
FINISHED = ("complete", "stopped")
PRICES = (0.05, 0.1, 0.2, 0.4)
UNITS = ("horizon", "minimum")


@dataclass(frozen=True)
class Outcome:
    """One policy on one run.

    Attributes:
        regret: of the kept checkpoint, in gain, over the lowest recorded loss.
        horizons: steps trained, as a share of the run's horizon.
        minima: steps trained, as a multiple of the step of the run's lowest recorded loss.
    """

    regret: float
    horizons: float
    minima: float

    def cost(self, price: float, unit: str = "horizon") -> float:
        """J = regret + price * steps, in that unit of steps (docs/method.md, section 4)."""
        return self.regret + price * (self.horizons if unit == "horizon" else self.minima)


def gain(run: Run) -> float:
    """Lowest recorded loss below that of the untouched base."""
    loss = run.curve().loss
    return float(loss[0] - loss.min()) if len(loss) > 1 else 0.0


def outcome(run: Run, last_step: int, kept_step: int) -> Outcome:
    """Of a run that trains up to one recorded step and keeps another, or the same (docs/method.md, section 4)."""
    curve = run.curve()
    kept = float(curve.loss[curve.steps == kept_step][0])
    lowest = int(np.argmin(curve.loss))
    return Outcome(
        (kept - float(curve.loss[lowest])) / gain(run),
        last_step / run.facts.horizon,
        last_step / float(curve.steps[lowest]),
    )


def examined_runs(study: Study) -> list[Run]:
    """Finished runs measured at step 0 that show a gain, repeats of one recording left out.

    Raises:
        RequestError: there is none.
    """
    runs = [run for run in study.runs if run.outcome in FINISHED and run.has_base and gain(run) > 0]
    if not runs:
        without = "" if any(run.has_base for run in study.runs) else ": none was measured at step 0"
        raise RequestError(f"{study.root}: no finished run has a gain to measure regret in{without}")
    unique: dict[bytes, Run] = {}
    for run in runs:
        curve = run.curve()
        unique.setdefault(curve.steps.tobytes() + curve.loss.tobytes(), run)
    return list(unique.values())


def image_sets(runs: list[Run], level: str = "dataset") -> NDArray[np.str_]:
    """The image set of every run: its dataset, or another level of its cell.

    Raises:
        RequestError: cells have no such level.
    """
    valid = sorted(runs[0].facts.cell)
    if level != "run" and level not in valid:
        raise RequestError(f"--sets {level}: must be run or a level of the cells: {', '.join(valid)}")
    return np.array([run.name if level == "run" else str(run.facts.cell.get(level)) for run in runs])
