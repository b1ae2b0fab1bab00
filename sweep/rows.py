"""Trials as rows: read from their run folders, and summed up by cell."""

from collections.abc import Sequence

from conf.schema import Evaluation
from curves.run_folder import RunFolder
from sweep.cost import measured_speed
from sweep.table import Row
from sweep.tail import CurveTail


def row_of(folder: RunFolder, cell: str, evaluation: Evaluation) -> Row:
    """A trial as its run folder tells it; `outcome` is None while it runs or waits to be continued."""
    status, verdict = folder.read_status(), folder.read_verdict()
    tail = CurveTail(folder.curve)  # which passes over damaged lines
    tail.read()
    row = Row(int(folder.path.name.split("-", 1)[0]), cell)
    row.step = max(status.step if status else 0, tail.last.step if tail.last else 0)
    row.max_steps = status.max_steps if status else None
    row.losses = list(tail.losses.values())
    row.outcome = folder.outcome()
    row.reason = verdict.reason if verdict else ""
    speed = measured_speed(status, tail.last, len(tail.losses))
    if row.outcome is None and speed is not None and row.max_steps:
        row.eta_s = speed.seconds_left(row.step, row.max_steps, evaluation)
    return row


def cell_summary(rows: Sequence[Row], cells: Sequence[str]) -> list[str]:
    """One line a cell: outcomes, and the best trial."""
    lines = []
    for cell in cells:
        own = [row for row in rows if row.cell == cell and row.outcome is not None]
        names = [str(row.outcome) for row in own]
        counts = ", ".join(f"{names.count(name)} {name}" for name in sorted(set(names))) or "nothing yet"
        best = min(
            (row for row in own if row.best is not None), key=lambda row: row.best or 0.0, default=None
        )
        shown = f"; lowest held-out loss {best.best:.4f} in trial {best.number:04d}" if best else ""
        lines.append(f"  {cell}: {counts}{shown}")
    return lines
