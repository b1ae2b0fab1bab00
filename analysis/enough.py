"""How many images are enough: the gain at the minimum against the number of images (docs/method.md, section 5).

    gain(N) = G - c N^-a,    c >= 0,   a on a grid,   scatter unknown

Given a it is linear, so the gain at the largest size, the rise over the sizes and the scatter are normal-inverse-gamma.
Enough is N* = [c (1 - 2^-a + share) / (share G)]^(1/a): from there on doubling the images buys less than `share` of the
gain that they give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from analysis.law import FEWEST_SIZES, LEVEL
from curves.answer import WIDEST_INTERVAL

Array = NDArray[np.float64]
Status = Literal["ok", "not_reached", "refused"]
SHARE = 0.05  # of the gain, that doubling the images buys
POWER = np.geomspace(0.15, 2.0, 40)
POWER_MEDIAN, POWER_LOG_SD = 0.5, 0.6
SCATTER_SHAPE, SCATTER_SHARE = (
    1.5,
    0.03,
)  # two cells' worth of belief in a scatter of 3 % of gain between cells
DRAWS = 4000
REACH = 2.0  # how far beyond the sizes that were run the curve is given
MOST_IMAGES = 1e6


@dataclass(frozen=True)
class SizeGain:
    """The gain of one cell whose minimum was passed.

    Attributes:
        levels: method, base_model, base_id, resolution, captions, dataset.
        gain, error: in loss units; the error of the fit, for which images were held out is common to all sizes.
        panels: that its runs were measured on.
    """

    levels: Mapping[str, Any]
    images: int
    gain: float
    error: float
    panels: frozenset[str]


@dataclass(frozen=True)
class ImagesAnswer:
    """How many images are enough for one method, base, resolution, captions and folder. Gains in loss units.

    Attributes:
        images, gains, errors: of the cells: training images, gain, standard error of the fit.
        status: ok; not_reached (more images than were tried are still worth it); refused.
        share: of the gain; enough is where doubling buys less than it.
        enough: {low, median, high, level} images; None where refused.
        doubling: {images, low, median, high, level}: share of the gain that doubling the largest size buys.
        sizes, low, median, high: the predicted gain over a grid of sizes, for drawing.
    """

    method: str
    base_model: str
    resolution: int | None
    captions: str
    dataset: str
    base_id: str
    images: tuple[int, ...]
    gains: tuple[float, ...]
    errors: tuple[float, ...]
    share: float
    status: Status
    reason: str
    enough: dict[str, float] | None = None
    doubling: dict[str, float] | None = None
    sizes: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    median: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def record(self) -> dict[str, Any]:
        """For recommendation.json."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


@dataclass(frozen=True)
class SaturatingDraws:
    """Draws of G, c and a, (draws,)."""

    limit: Array
    rise: Array
    power: Array

    def gain(self, images: Array) -> Array:
        """(draws, images)."""
        return np.asarray(self.limit[:, None] - self.rise[:, None] * images[None, :] ** -self.power[:, None])

    def doubling(self, images: float) -> Array:
        """Share of the gain that doubling so many images buys, (draws,)."""
        once, twice = self.gain(np.array([images, 2 * images])).T
        return np.asarray((twice - once) / np.maximum(once, 1e-300))

    def enough(self, share: float) -> Array:
        """N*, (draws,), between 0 and MOST_IMAGES (docs/method.md, section 5)."""
        ratio = self.rise * (1 - 2**-self.power + share) / (share * np.maximum(self.limit, 1e-300))
        return np.asarray(
            np.exp(np.minimum(np.log(np.maximum(ratio, 1e-300)) / self.power, np.log(MOST_IMAGES)))
        )


def images_enough(sizes: Sequence[SizeGain], share: float = SHARE) -> list[ImagesAnswer]:
    """One answer for each method, base, resolution, captions and folder of which two sizes or more were run."""
    groups: dict[tuple[Any, ...], list[SizeGain]] = {}
    for size in sizes:
        groups.setdefault(tuple(sorted(size.levels.items())), []).append(size)
    return [_answer(group, share) for group in groups.values() if len(group) > 1]


def _answer(group: Sequence[SizeGain], share: float) -> ImagesAnswer:
    group = sorted(group, key=lambda size: size.images)
    images = tuple(size.images for size in group)
    gains, errors = tuple(size.gain for size in group), tuple(size.error for size in group)

    def told(status: Status, reason: str, **values: Any) -> ImagesAnswer:
        known: dict[str, Any] = {"images": images, "gains": gains, "errors": errors, "share": share}
        return ImagesAnswer(**group[0].levels, **known, status=status, reason=reason, **values)

    if len(set(images)) < FEWEST_SIZES:
        return told("refused", f"{len(images)} sizes show their gain, {FEWEST_SIZES} are needed")
    if len(frozenset.union(*(size.panels for size in group))) > 1:
        return told(
            "refused", "the sizes were measured on different panels, so their gains cannot be compared"
        )
    draws = fit_gain(np.array(images, dtype=float), np.array(gains), np.array(errors))
    grid = np.geomspace(images[0] / REACH, images[-1] * REACH, 41)
    low, median, high = np.quantile(draws.gain(grid), [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], axis=0)
    enough = _interval(draws.enough(share))
    doubling = {"images": images[-1], **_interval(draws.doubling(images[-1]))}
    status, reason = _verdict(enough, images)
    return told(
        status,
        reason,
        enough=None if status == "refused" else enough,
        doubling=doubling,
        sizes=tuple(grid.tolist()),
        low=tuple(low.tolist()),
        median=tuple(median.tolist()),
        high=tuple(high.tolist()),
    )


def _verdict(enough: dict[str, float], images: Sequence[int]) -> tuple[Status, str]:
    """Whether a number may be given: beyond twice what was run, and below half of it, the curve is a guess."""
    low, median, high = (enough[name] for name in ("low", "median", "high"))
    if high <= images[0]:
        return "ok", f"the smallest size, {images[0]}, is enough"
    if low >= images[-1]:
        return "not_reached", f"more than the largest size, {images[-1]}, are still worth it"
    within = (max(low, images[0] / REACH), high)
    if within[1] > WIDEST_INTERVAL * within[0] or median > REACH * images[-1]:
        return "refused", f"too wide: between {within[0]:.0f} and {_many(high)} images"
    return "ok", f"from {median:.0f} images on doubling them buys less"


def _many(images: float) -> str:
    return "any number of" if images >= MOST_IMAGES else f"{images:.0f}"


def _interval(draws: Array) -> dict[str, float]:
    low, median, high = np.quantile(draws, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    return {"low": float(low), "median": float(median), "high": float(high), "level": LEVEL}


def fit_gain(images: Array, gains: Array, errors: Array, seed: int = 0) -> SaturatingDraws:
    """The posterior of the saturating law; images, gains, errors (cells,), images ascending and not all equal.

    docs/method.md, section 5.

    The column is scaled to 1 at the smallest size and 0 at the largest, so that no power is favoured for its scale.
    """
    random = np.random.default_rng(seed)
    powers = images[None, :] ** -POWER[:, None]
    span = powers[:, :1] - powers[:, -1:]
    column = (powers - powers[:, -1:]) / span
    scale = max(float(np.mean(gains)) * SCATTER_SHARE, float(np.sqrt(np.mean(errors**2))))
    centred = column - column.mean(axis=1, keepdims=True)
    precision = (centred**2).sum(axis=1)
    slope = centred @ (gains - gains.mean()) / precision  # minus the rise over the sizes
    residual = (gains - gains.mean())[None, :] - slope[:, None] * centred
    freedom = len(images) - 2 + 2 * SCATTER_SHAPE
    rate = SCATTER_SHAPE * scale**2 + 0.5 * (residual**2).sum(axis=1)
    width = np.sqrt(2 * rate / freedom / precision)
    rises = stdtr(freedom, -slope / width)  # P(the gain grows with the images)
    score = -0.5 * freedom * np.log(rate) - 0.5 * np.log(precision) + np.log(np.maximum(rises, 1e-300))
    score -= 0.5 * (np.log(POWER / POWER_MEDIAN) / POWER_LOG_SD) ** 2
    weights = np.exp(score - score.max())
    at = random.choice(len(POWER), DRAWS, p=weights / weights.sum())
    uniform = rises[at] * random.uniform(1e-9, 1 - 1e-9, DRAWS)
    drawn = np.minimum(slope[at] + width[at] * stdtrit(freedom, uniform), 0.0)
    variance = (rate[at] + 0.5 * precision[at] * (drawn - slope[at]) ** 2) / random.gamma(
        0.5 * (freedom + 1), 1.0, DRAWS
    )
    mean = gains.mean() + np.sqrt(variance / len(images)) * random.standard_normal(DRAWS)
    rise = -drawn / span[at, 0]
    largest = mean - drawn * column[at].mean(axis=1)  # the gain at the largest size, where the column is 0
    return SaturatingDraws(largest + rise * powers[at, -1], rise, POWER[at])
