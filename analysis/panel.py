"""How much less the paired panel scatters than the training loss: why the held-out loss can answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis import words
from analysis.load import Study
from analysis.run import Run
from analysis.table import Table, print_table
from analysis.training_loss import detrended_sd
from curves.panel import paired_difference


@dataclass(frozen=True)
class PanelScatter:
    """One run: scatter of a point's training loss, error of the difference of neighbouring evaluations."""

    run: str
    points: int
    train_loss_sd: float  # of one point about the line through its neighbours
    paired_se: float  # median over neighbouring evaluations, clustered by image

    @property
    def ratio(self) -> float:
        return self.train_loss_sd / self.paired_se if self.paired_se > 0 else float("nan")


def panel_scatter(run: Run) -> PanelScatter | None:
    """None where the run has too few evaluations, no image losses or no training losses."""
    pairs = zip(run.points[:-1], run.points[1:], strict=True)
    errors = [
        paired_difference(np.array(after.image_loss, dtype=float), np.array(before.image_loss, dtype=float))[
            1
        ]
        for before, after in pairs
        if before.image_loss and after.image_loss and len(before.image_loss) == len(after.image_loss)
    ]
    losses = [point.train_loss for point in run.points if point.train_loss is not None]
    if len(losses) < 3 or not errors or not np.isfinite(errors).any():
        return None
    return PanelScatter(run.name, len(losses), detrended_sd(losses), float(np.nanmedian(errors)))


def panel_table(study: Study) -> Table:
    """One row a run."""
    found = [scatter for run in study.runs if (scatter := panel_scatter(run)) is not None]
    rows = [
        [
            item.run,
            str(item.points),
            words.number(item.train_loss_sd),
            words.number(item.paired_se),
            f"{item.ratio:.1f}",
        ]
        for item in found
    ]
    if found:
        ratios = [item.ratio for item in found]
        rows.append(["median", str(sum(item.points for item in found)), "", "", f"{np.median(ratios):.1f}"])
    return Table(["run", "points", "train loss sd", "paired SE", "ratio"], rows, frozenset({"run"}))


def print_panel(study: Study) -> None:
    """Print the table with what its columns mean."""
    print_table(panel_table(study))
    print(
        "\ntrain loss sd: scatter of one recorded point's training loss, its trend taken out.\n"
        "paired SE: error of the held-out loss between neighbouring evaluations, clustered by image."
    )
