"""The shared geometric grid of whole steps: where runs are evaluated, and so where they can be compared."""


def evaluation_steps(first_step: int, ratio: float, horizon: int) -> list[int]:
    """Step 0, round(first_step * ratio^k) for k = 0, 1, ... below the horizon, and the horizon; sorted."""
    steps = {0, horizon}
    value = float(first_step)
    while round(value) < horizon:
        steps.add(round(value))
        value *= ratio
    return sorted(steps)
