"""Make curves/calibration.json: how far the interval of a minimum must be stretched to hold for another seed.

    python -m benchmarks.calibrate RUNS [--write]

RUNS: run folders of at least nine image sets, each cell with two seeds or more, run past their minima. Each run alone
predicts the others of its cell and hyperparameters. Prints what is answered, the regret of its recommended steps on the
other seed's smoothed curve, and how often intervals hold and how wide they are: as they are, and stretched by a factor
learnt without the image set in question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
import itertools
import sys

import numpy as np

from analysis.load import load_study
from analysis.recommend import fit_run
from analysis.run import Run
from analysis.schedule import fresh_schedule
from analysis.verify import Truth, truth_of
from curves.answer import Answer, answer
from curves.calibration import Calibration, Prediction, calibrate, write_calibration
from curves.pooling import pool


@dataclass(frozen=True)
class Pair:
    """What a run says of a fresh one, and what another seed of the cell did."""

    image_set: str
    said: Answer
    truth: Truth


def predict(run: Run) -> Answer:
    """The unstretched answer of one run for a fresh run."""
    posterior = fit_run(run).posterior
    if posterior is None:
        raise ValueError(f"{run.name}: too few evaluations")
    return answer(pool([posterior]), fresh_schedule(run))


def pairs(runs: Sequence[Run]) -> Iterator[Pair]:
    """Every run against every other of its cell and hyperparameters whose smoothed minimum is known."""

    def key(run: Run) -> str:
        return str((sorted(run.facts.cell.items()), sorted(run.facts.hyperparameters.items(), key=str)))

    for _, group in itertools.groupby(sorted(runs, key=key), key):
        members = list(group)
        said = {run.name: predict(run) for run in members if len(members) > 1}
        truths = {run.name: truth_of(run) for run in members if len(members) > 1}
        for one, other in itertools.permutations(said, 2):
            truth = truths[other]
            if truth is not None:
                yield Pair(str(members[0].facts.cell["dataset"]), said[one], truth)


def predictions(found: Sequence[Pair]) -> list[Prediction]:
    """The intervals of those that are answered."""
    return [
        Prediction(one.image_set, one.said.minimum, one.truth.minimum) for one in found if one.said.minimum
    ]


def report(found: Sequence[Pair], calibration: Calibration) -> list[str]:
    """The lines that are printed."""
    regrets = [
        one.truth.at(one.said.recommended_steps) for one in found if one.said.recommended_steps is not None
    ]
    kinds = [one.said.status for one in found]
    shares = ", ".join(f"{name} {kinds.count(name)}" for name in sorted(set(kinds)))
    return [
        f"{len(found)} pairs of runs, {calibration.sets} image sets: {shares}",
        f"regret at the recommended steps: median {np.median(regrets):.3f}, mean {np.mean(regrets):.3f} of the gain",
        f"intervals as they are: hold in {calibration.raw_coverage:.0%}, high/low {calibration.raw_high_over_low:.2f}",
        f"stretched, the image set left out: hold in {calibration.coverage:.0%}, high/low {calibration.high_over_low:.2f}",
        f"stretch {calibration.stretch_low} downwards, {calibration.stretch_high} upwards",
    ]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    recorded = list(pairs(load_study(sys.argv[1]).runs))
    result = calibrate(predictions(recorded))
    print("\n".join(report(recorded, result)))
    if "--write" in sys.argv[2:]:
        write_calibration(result)
