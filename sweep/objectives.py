"""What a sweep minimizes: the lowest held-out loss of a run, alone or beside what its point cost."""

from collections.abc import Sequence

from sweep.tail import CurveTail


def objective_values(tail: CurveTail, objectives: Sequence[str]) -> list[float] | None:
    """The values of the objectives; None where the curve does not tell one of them.

    The cost is that of the point with the lowest held-out loss: its steps, its seconds of training, or the
    images seen until then.
    """
    step = tail.best_step()
    if step is None:
        return None
    known = {"held_out_loss": tail.losses[step], "steps": float(step), **tail.costs[step]}
    values = [known.get(name) for name in objectives]
    return None if None in values else [float(value) for value in values if value is not None]


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the points that no other is better than in one objective and as good in all, in rising order
    of the first objective; of equal points the earliest."""
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    front: list[int] = []
    for index in order:
        if not any(_as_good(points[other], points[index]) for other in front):
            front.append(index)
    return front


def _as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
