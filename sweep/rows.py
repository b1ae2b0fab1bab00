"""Trials as rows: read from their run folders, and summed up by cell."""

from collections.abc import Mapping, Sequence

from conf.schema import Evaluation
from curves.run_folder import RunFolder
from sweep.cost import measured_speed
from sweep.objectives import objective_values, pareto_front
from sweep.table import Row
from sweep.tail import CurveTail

_COMPARED = ("complete", "stopped", "timeout")  # outcomes of trials that Optuna is told values of


def row_of(folder: RunFolder, cell: str, evaluation: Evaluation, objectives: Sequence[str] = ()) -> Row:
    """A trial as its run folder tells it; `outcome` is None while it runs or waits to be continued."""
    status, verdict = folder.read_status(), folder.read_verdict()
    tail = CurveTail(folder.curve)  # which passes over damaged lines
    tail.read()
    row = Row(int(folder.path.name.split("-", 1)[0]), cell)
    row.step = max(status.step if status else 0, tail.last.step if tail.last else 0)
    row.max_steps = status.max_steps if status else None
    row.losses = list(tail.losses.values())
    row.objectives = objective_values(tail, objectives) or []
    row.outcome = folder.outcome()
    row.reason = verdict.reason if verdict else ""
    speed = measured_speed(status, tail.last, len(tail.losses))
    if row.outcome is None and speed is not None and row.max_steps:
        row.eta_s = speed.seconds_left(row.step, row.max_steps, evaluation)
    return row


def cell_summary(rows: Sequence[Row], cells: Sequence[str], diverged: Mapping[str, str]) -> list[str]:
    """One line a cell: outcomes, the best trial, and which learning rates diverged, in words by cell."""
    lines = []
    for cell in cells:
        own = [row for row in rows if row.cell == cell and row.outcome is not None]
        names = [str(row.outcome) for row in own]
        counts = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names))) or "nothing yet"
        best = min(
            (row for row in own if row.best is not None), key=lambda row: row.best or 0.0, default=None
        )
        shown = f"; lowest held-out loss {best.best:.4f} in trial {best.number:04d}" if best else ""
        diverging = f"; {diverged[cell]}" if diverged.get(cell) else ""
        lines.append(f"  {cell}: {counts}{shown}{diverging}")
    return lines


def fronts(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The trials of each cell that no other trial of it is better than in every objective."""
    found: dict[str, list[Row]] = {}
    for cell in dict.fromkeys(row.cell for row in rows):
        own = [row for row in rows if row.cell == cell and row.objectives and row.outcome in _COMPARED]
        found[cell] = [own[index] for index in pareto_front([row.objectives for row in own])]
    return found


def front_lines(rows: Sequence[Row], objectives: Sequence[str]) -> list[str]:
    """The Pareto front of each cell in words; nothing where there is one objective."""
    if len(objectives) < 2:
        return []
    lines = []
    for cell, front in fronts(rows).items():
        shown = "; ".join(
            f"{row.objectives[0]:.4f} at {row.objectives[1]:g} {objectives[1]} (trial {row.number:04d})"
            for row in front
        )
        lines.append(f"  {cell}: Pareto front of held-out loss and {objectives[1]}: {shown or 'nothing yet'}")
    return lines
