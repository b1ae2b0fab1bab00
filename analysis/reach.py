"""Where the law may be asked: refusals by rule, and the pilot run that lifts one (docs/method.md, section 5)."""

from __future__ import annotations

from dataclasses import replace
import math
from typing import Any

import numpy as np

from analysis.law import SET, Place
from analysis.pilots import next_seed, pilot_command, rounded_up
from analysis.recommend import longest
from analysis.unseen import ASKED_LEVELS, NEW, Unseen
from conf.compose import options
from curves.law import LARGEST_FACTOR

SURE_GAIN = 2.0  # standard errors over held-out images that the gain of the cells nearby has to be


def refused_by_rule(unseen: Unseen) -> str | None:
    """Why the law may not be asked about the cell, with what would lift that; None where it may."""
    return _too_far(unseen) or _not_run(unseen) or _doubtful_gain(unseen)


def _too_far(unseen: Unseen) -> str | None:
    """More than a factor 2 outside of the images or the resolutions that were run."""
    observed = [item.place for item in unseen.law.observed]
    for name, unit in (("images", "images"), ("resolution", "px")):
        low, high = (pick(getattr(item, name) for item in observed) for pick in (min, max))
        value = getattr(unseen.place, name)
        if low / LARGEST_FACTOR <= value <= high * LARGEST_FACTOR:
            continue
        within = _within_reach(name, value)
        nearer = (
            replace(unseen.place, images=within)
            if name == "images"
            else replace(unseen.place, resolution=within)
        )
        return (
            f"{value} {unit}: more than a factor {LARGEST_FACTOR:g} outside of what was run ({low} to {high} {unit}); "
            f"a pilot lifts this: {pilot_of(unseen, nearer)}"
        )
    return None


def _not_run(unseen: Unseen) -> str | None:
    """A method, base, captions or images of which there is no run."""
    for name in ASKED_LEVELS:
        known = sorted({item.place.levels[name] for item in unseen.law.observed})
        if str(unseen.facts[name]) not in known and unseen.facts[name] != NEW:
            asked = f"{name}={unseen.facts[name]}: was not run ({', '.join(known)} were)"
            return f"{asked}; a pilot lifts this: {pilot_of(unseen)}"
    return None


def _doubtful_gain(unseen: Unseen) -> str | None:
    """Cells like it that hardly gain: where they are best is noise, and a law over that is one over noise.

    Their gain and its standard error are means with the donors' weights; held-out images are the same in all of a set,
    so that the errors do not average out.
    """
    named = {name: str(unseen.facts[name]) for name in ASKED_LEVELS if unseen.facts[name] != NEW}
    cells = [(weight, donor.answer) for donor, weight in zip(unseen.donors, unseen.weights, strict=True)]
    alike = [
        (weight, cell.gain, cell.gain_se)
        for weight, cell in cells
        if all(str(getattr(cell, name)) == level for name, level in named.items())
        and cell.gain is not None
        and cell.gain_se is not None
    ]
    if not alike:
        return None
    weights, gains, errors = (np.array(column) for column in zip(*alike, strict=True))
    gain, error = (float(weights @ column / weights.sum()) for column in (gains, errors))
    if gain > SURE_GAIN * error:
        return None
    return (
        f"doubtful gain: the cells like it gain {gain:.2g} ± {error:.2g} in held-out loss, and {SURE_GAIN:g} standard "
        "errors are asked for: which steps are best there is hardly known; more held-out images tell, or another "
        "learning rate or rank"
    )


def _within_reach(name: str, value: int) -> int:
    """The smallest number of images or pixels from which the value is within reach; of the options where one fits."""
    least = math.ceil(value / LARGEST_FACTOR)
    group, prefix = ("dataset_size", "n") if name == "images" else ("resolution", "px")
    numbered = [int(item[len(prefix) :]) for item in options(group) if item[len(prefix) :].isdigit()]
    fitting = [number for number in sorted(numbered) if least <= number <= value]
    return fitting[0] if fitting else least


def pilot_of(unseen: Unseen, place: Place | None = None) -> str:
    """The command of the cheapest run that would let the law answer: there, or on the way there."""
    place = place or unseen.place
    mean, variance = unseen.law.moments(place)
    like = longest(unseen.nearest.best)
    known = all(
        unseen.facts[name] in (NEW, str(getattr(unseen.nearest.answer, name))) for name in ASKED_LEVELS
    )
    levels: dict[str, Any] = {
        "images": place.images,
        "resolution": place.resolution,
        "method": unseen.facts["method"],
        "base_model": unseen.facts["base_model"],
        "optimizer.lr": place.lr if known else None,  # of another method or base its own default
    }
    if unseen.facts[SET] == NEW:
        levels |= {"dataset": "folder", "dataset.path": "photos"}
    later = 2 * math.exp(mean + 1.645 * math.sqrt(variance)) / place.lr
    steps = later if known else like.facts.horizon
    return pilot_command(unseen.study, like, levels, next_seed(unseen.study.runs), rounded_up(steps))
