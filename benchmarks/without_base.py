"""What an answer loses where the untouched base was not measured: runs with their first evaluations left out.

    python benchmarks/without_base.py RUNS [FIRST_STEP ...]

Every run of a folder is answered on its own, whole and from its first evaluation at or after FIRST_STEP on. Prints how
recommended steps and minimum move where both have an answer, and how many have none.
"""

from collections.abc import Sequence
from dataclasses import replace
import sys

import numpy as np

from analysis.load import load_study
from analysis.recommend import fit_run
from analysis.run import Run
from analysis.schedule import fresh_schedule
from curves.answer import Answer, answer

FIRST_STEPS = (4, 20, 40)


def answer_alone(run: Run) -> Answer | None:
    """The answer of one run, None with too few evaluations."""
    posterior = fit_run(run).posterior
    return None if posterior is None else answer(posterior, fresh_schedule(run))


def compare(runs: Sequence[Run], first: int) -> str:
    """One line: counts, and the lowest, median and highest ratio of steps without to steps with the base."""
    pairs = []
    for run in runs:
        late = replace(run, points=tuple(point for point in run.points if point.step >= first))
        pairs.append((answer_alone(run), answer_alone(late)))
    both = [(a, b) for a, b in pairs if a and b and a.status == b.status == "ok"]
    steps = [(b.recommended_steps or 0) / (a.recommended_steps or 1) for a, b in both]
    minima = [b.minimum.median / a.minimum.median for a, b in both if a.minimum and b.minimum]
    with_base = sum(a is not None and a.status == "ok" for a, _ in pairs)
    return (
        f"from step {first}: {len(both)} of {with_base} answers left; "
        f"recommended steps x {_spread(steps)}, minimum x {_spread(minima)}"
    )


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return "–"
    low, median, high = np.quantile(ratios, [0.0, 0.5, 1.0])
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    known = [run for run in load_study(sys.argv[1]).runs if run.has_base]
    for step in [int(text) for text in sys.argv[2:]] or FIRST_STEPS:
        print(compare(known, step))
