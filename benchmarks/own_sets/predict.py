"""Writes down what the calibration curves recommend, before the held-out curves are there.

    python -m benchmarks.own_sets.predict CALIBRATION_FILE PREDICTIONS_FILE

The predictions are the recommendation that `python -m analysis recommend` makes of the unpacked curves.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
import sys
import tempfile

from analysis.load import load_study
from analysis.recommend import analyse
from benchmarks.own_sets.packed import unpack
from conf.errors import exit_status
from curves.recommendation import Recommendation, write_recommendation


def predict(calibration: Path) -> Recommendation:
    """The answer of every cell of a packed file."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "own-sets"
        unpack(calibration, root)
        return analyse(load_study(root)).recommendation


def main() -> int:
    """Returns: the exit status."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    recommendation = predict(Path(sys.argv[1]))
    write_recommendation(Path(sys.argv[2]), recommendation)
    counts = Counter(cell.status for cell in recommendation.cells)
    print(f"{len(recommendation.cells)} cells in {sys.argv[2]}: {dict(counts)}")
    for cell in recommendation.cells:
        if cell.status != "ok":
            print(f"{cell.path}: {cell.status}: {cell.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(main))
