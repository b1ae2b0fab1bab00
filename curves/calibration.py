"""By how much the interval of a fresh run's minimum is stretched, learnt from recorded runs of other seeds.

`python -m benchmarks.calibrate` makes calibration.json. The posterior's own intervals are of a family of curves that is
not quite right; what they miss is measured over image sets, and the interval around the median is stretched in log by one
factor downwards and one upwards so that it holds as often as it says (conformal prediction, the image set being the unit;
Vovk et al. 2005, Romano et al. 2019).
"""

from __future__ import annotations

from collections import Counter
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
NARROWEST = 1e-3  # log distance of an end from the median
LEAST = 0.8  # of a factor: what is learnt on a few sets narrows no interval by more


@dataclass(frozen=True)
class Calibration:
    """What calibration.json holds.

    Attributes:
        stretch_low, stretch_high: of the log distances of the interval's ends from its median.
        sets, pairs: image sets, and pairs of a run that predicts and another that is predicted.
        coverage: of the stretched interval, each set left out in turn.
        high_over_low: its median width.
        raw_coverage, raw_high_over_low: the same without the stretch.
    """

    stretch_low: float
    stretch_high: float
    sets: int
    pairs: int
    coverage: float
    high_over_low: float
    raw_coverage: float
    raw_high_over_low: float

    @property
    def stretch(self) -> tuple[float, float]:
        """The factors downwards and upwards."""
        return self.stretch_low, self.stretch_high


@dataclass(frozen=True)
class Prediction:
    """An interval of a run's minimum and where the minimum of another seed was; steps."""

    image_set: str
    interval: Interval
    minimum: float

    @property
    def score(self) -> float:
        """Log distance from the median over that of the interval's end on this side: -1 and 1 are the ends."""
        median = max(self.interval.median, 1)
        away = float(np.log(self.minimum / median))
        edge = self.interval.high if away > 0 else max(self.interval.low, 1)
        return away / max(abs(float(np.log(edge / median))), NARROWEST)


def stretches(predictions: Sequence[Prediction]) -> tuple[float, float]:
    """Factors by which an interval misses on either side in half of 1 - LEVEL, every image set weighing the same."""
    counts = Counter(one.image_set for one in predictions)
    scores = np.array([one.score for one in predictions])
    weights = np.array([1 / counts[one.image_set] for one in predictions])
    order = np.argsort(scores)
    # The place of each score is the middle of its weight, as of a quantile between observations.
    places = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    low, high = np.interp([(1 - LEVEL) / 2, (1 + LEVEL) / 2], places, scores[order])
    return max(-float(low), LEAST), max(float(high), LEAST)


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
        factors = stretches([one for one in predictions if one.image_set != name])
        mine = [one for one in predictions if one.image_set == name]
        left_out += [replace(one, interval=one.interval.stretched(factors)) for one in mine]
    low, high = stretches(predictions)
    return Calibration(
        stretch_low=round(low, 3),
        stretch_high=round(high, 3),
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
