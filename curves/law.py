"""How the time of the minimum grows with the number of images, as a budget for more images needs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

EXPONENT_PRIOR = (0.8, 0.25)  # mean, standard deviation (docs/method.md, section 5)
LARGEST_FACTOR = 2.0  # in images, over which a budget is scaled: beyond it the law is a guess
GROUP = ("dataset", "captions", "resolution", "base_id", "method")  # the law has one exponent for each


@dataclass(frozen=True)
class Scaling:
    """Where a budget for more images than any measured cell has comes from.

    Attributes:
        images: of the measured cell.
        recommended_steps: of the measured cell.
        exponent: steps grow as images to this power.
    """

    images: int
    recommended_steps: int
    exponent: float

    def factor(self, images: int) -> float:
        """By how much the steps grow from the measured cell to so many images."""
        return float((images / self.images) ** self.exponent)


def exponent_for(law: Mapping[str, Any] | None, identity: Mapping[str, Any]) -> float:
    """The exponent that a study found for these images, captions, base, resolution and method.

    Else that of the joint law of all of its cells, else the prior's mean.

    Args:
        law: of recommendation.json, None where the study has too few sizes.
        identity: values of GROUP.
    """
    for group in (law or {}).get("groups", []):
        if all(group.get(name) == identity[name] for name in GROUP):
            return float(group["exponent"]["median"])
    joint = (law or {}).get("powers", {}).get("images")
    if joint is not None:
        return float(joint["median"])
    return EXPONENT_PRIOR[0]
