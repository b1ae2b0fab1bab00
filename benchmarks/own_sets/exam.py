"""Held-out curves against what was predicted of them.

    python -m benchmarks.own_sets.exam PREDICTIONS_FILE HELD_OUT_FILE

One row a held-out run, then the figures that the predictions are judged by. Exit status 1 where one of them fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
import math
from pathlib import Path
import sys
import tempfile

import numpy as np

from analysis.load import Study, load_study
from analysis.recommend import Analysis
from analysis.table import print_table
from analysis.verify import Check, Verification, verification_table, verify
from benchmarks.own_sets.packed import unpack
from conf.errors import exit_status
from curves.recommendation import Recommendation, read_recommendation

MOST_REGRET = 0.05  # of gain, median at the recommended steps
COVERAGE = (0.80, 0.97)  # share of the minimum's 90 % intervals that hold
MOST_WIDTH = 2.5  # median of high / low
LEAST_ANSWERED = 0.80  # share of the cells


@dataclass(frozen=True)
class Figures:
    """Over the cells of all predictions, and over the held-out runs of those that are answered.

    Attributes:
        cells: that were predicted.
        checks: held-out runs of answered cells.
        regret: median at the recommended steps, in gain.
        coverage: share of intervals of the minimum that hold.
        width: median high / low of these intervals.
        answered: share of the predicted cells with steps.
    """

    cells: int
    checks: int
    regret: float
    coverage: float
    width: float
    answered: float

    @property
    def passed(self) -> bool:
        """Whether all limits are kept."""
        return (
            self.regret <= MOST_REGRET
            and COVERAGE[0] <= self.coverage <= COVERAGE[1]
            and self.width <= MOST_WIDTH
            and self.answered >= LEAST_ANSWERED
        )


def examine(predictions: Recommendation, held_out: Path) -> tuple[Figures, Verification]:
    """Compare a packed file of held-out runs with predictions."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "held-out"
        unpack(held_out, root)
        fresh: Study = load_study(root)
        result = verify(Analysis(fresh, (), predictions), fresh)
    return figures(predictions, result.checks), result


def figures(predictions: Recommendation, checks: Sequence[Check]) -> Figures:
    """The figures of checked predictions. A run that ends before the recommended steps counts as all of the gain."""
    answered = [check for check in checks if check.covered is not None]
    regrets = [math.nan if check.regret is None else check.regret for check in answered]
    status = [cell.status == "ok" for cell in predictions.cells]
    return Figures(
        cells=len(status),
        checks=len(answered),
        regret=float(np.median(np.nan_to_num(regrets, nan=1.0))),
        coverage=float(np.mean([check.covered for check in answered])),
        width=float(np.median([check.high_over_low for check in answered])),
        answered=float(np.mean(status)),
    )


def main() -> int:
    """Returns: 0 where all limits are kept."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    found, result = examine(read_recommendation(Path(sys.argv[1])), Path(sys.argv[2]))
    named = tuple(replace(check, cell=check.run) for check in result.checks)
    print_table(verification_table(replace(result, checks=named)))
    print(
        f"\n{found.checks} held-out runs of answered cells, {found.cells} cells\n"
        f"median regret at the recommended steps {100 * found.regret:.1f} % of gain (at most {100 * MOST_REGRET:.0f})\n"
        f"90 % intervals hold in {100 * found.coverage:.0f} % ({100 * COVERAGE[0]:.0f} to {100 * COVERAGE[1]:.0f})\n"
        f"median high/low {found.width:.2f} (at most {MOST_WIDTH})\n"
        f"answered {100 * found.answered:.0f} % of cells (at least {100 * LEAST_ANSWERED:.0f})"
    )
    for line in result.unmatched:
        print(f"left out {line}")
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(exit_status(main))
