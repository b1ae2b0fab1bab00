"""By how much the interval of a fresh run's minimum is stretched, learnt from recorded runs of other seeds.

`python -m benchmarks.calibrate` makes calibration.json. The posterior's own intervals are of a family of curves that is
not quite right; what they miss is measured over image sets, and the interval around the median is stretched in log by one
factor so that it holds as often as it says (split conformal prediction, the image set being the unit; Vovk et al. 2005).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from curves.answer import Interval
from curves.run_folder import read_json, write_json

FILE = Path(__file__).with_name("calibration.json")
FEWEST_SETS = 9
LEVEL = 0.9


@dataclass(frozen=True)
class Calibration:
    """What calibration.json holds.

    Attributes:
        stretch: of the log interval around the median.
        sets, pairs: image sets, and pairs of a run that predicts and another that is predicted.
        coverage: of the stretched interval, each set left out in turn.
        high_over_low: its median width.
        raw_coverage, raw_high_over_low: the same without the stretch.
    """

    stretch: float
    sets: int
    pairs: int
    coverage: float
    high_over_low: float
    raw_coverage: float
    raw_high_over_low: float


@dataclass(frozen=True)
class Prediction:
    """An interval of a run's minimum and where the minimum of another seed was; steps."""

    image_set: str
    interval: Interval
    minimum: float

    @property
    def score(self) -> float:
        """Log distance from the median over the log half-width on that side: 1 is the interval's edge."""
        median = max(self.interval.median, 1)
        away = float(np.log(self.minimum / median))
        edge = self.interval.high if away > 0 else max(self.interval.low, 1)
        return abs(away) / max(abs(float(np.log(edge / median))), 1e-3)


def stretched(interval: Interval, factor: float, horizon: int | None = None) -> Interval:
    """The interval with its log distances from the median times factor, ending at the horizon where there is one."""
    median = max(interval.median, 1)
    low = int(np.floor(median * (interval.low / median) ** factor)) if interval.low else 0
    high = int(np.ceil(median * (interval.high / median) ** factor))
    return replace(
        interval, low=low, high=high if horizon is None else min(high, max(horizon, interval.high))
    )


def stretch_of(predictions: Sequence[Prediction]) -> float:
    """The factor by which intervals hold in LEVEL of the predictions, every image set weighing the same."""
    counts = {one.image_set: 0 for one in predictions}
    for one in predictions:
        counts[one.image_set] += 1
    scores = np.array([one.score for one in predictions])
    weights = np.array([1 / counts[one.image_set] for one in predictions])
    order = np.argsort(scores)
    reached = np.cumsum(weights[order]) / weights.sum()
    return float(scores[order][min(int(np.searchsorted(reached, LEVEL)), len(scores) - 1)])


def calibrate(predictions: Sequence[Prediction]) -> Calibration:
    """The stretch, and how it does on image sets that it has not seen.

    Raises:
        ValueError: fewer than FEWEST_SETS image sets.
    """
    sets = sorted({one.image_set for one in predictions})
    if len(sets) < FEWEST_SETS:
        raise ValueError(
            f"a calibration needs at least {FEWEST_SETS} image sets, these runs have {len(sets)}"
        )
    left_out: list[Prediction] = []
    for name in sets:
        factor = stretch_of([one for one in predictions if one.image_set != name])
        mine = [one for one in predictions if one.image_set == name]
        left_out += [replace(one, interval=stretched(one.interval, factor)) for one in mine]
    return Calibration(
        stretch=round(stretch_of(predictions), 3),
        sets=len(sets),
        pairs=len(predictions),
        coverage=_coverage(left_out),
        high_over_low=_width(left_out),
        raw_coverage=_coverage(predictions),
        raw_high_over_low=_width(predictions),
    )


def _coverage(predictions: Sequence[Prediction]) -> float:
    held = [one.interval.low <= one.minimum <= one.interval.high for one in predictions]
    return round(float(np.mean(held)), 3)


def _width(predictions: Sequence[Prediction]) -> float:
    return round(float(np.median([one.interval.high / max(one.interval.low, 1) for one in predictions])), 3)


def write_calibration(calibration: Calibration, path: Path = FILE) -> None:
    write_json(path, asdict(calibration))


@lru_cache(maxsize=1)
def shipped_calibration() -> Calibration:
    """calibration.json beside this file."""
    return Calibration(**read_json(FILE))
