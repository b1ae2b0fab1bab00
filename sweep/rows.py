"""Trials as rows: read from their run folders, and summed up by cell."""

from collections.abc import Sequence

from curves.run_folder import RunFolder
from sweep.table import Row


def row_of(folder: RunFolder, cell: str) -> Row:
    """A trial as its run folder tells it; `outcome` is None while it runs or waits to be continued."""
    status, verdict = folder.read_status(), folder.read_verdict()
    try:
        points = folder.points()
    except ValueError:
        points = []
    row = Row(int(folder.path.name.split("-", 1)[0]), cell)
    row.step = max([status.step if status else 0, *(point.step for point in points[-1:])])
    row.max_steps = status.max_steps if status else None
    row.losses = [point.val_loss for point in points if point.val_loss is not None]
    row.outcome = folder.outcome()
    row.reason = verdict.reason if verdict else ""
    if row.outcome is None and status and status.seconds_per_step and status.max_steps:
        row.eta_s = (status.max_steps - row.step) * status.seconds_per_step
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
