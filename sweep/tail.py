"""A growing curve.jsonl, read piece by piece: each look reads only what was appended since the last."""

import os
from pathlib import Path

from curves.point import Point, parse_points


class CurveTail:
    """The held-out losses and the last step of a curve that another process is writing.

    Attributes:
        losses: step: val_loss of every evaluation, in the order of the steps.
        costs: step: what every evaluation had cost by then, `seconds` of training and `images` seen.
        last: the latest point.
    """

    def __init__(self, path: Path) -> None:
        self.losses: dict[int, float] = {}
        self.costs: dict[int, dict[str, float | None]] = {}
        self.last: Point | None = None
        self._path = path
        self._offset = 0
        self._inode: int | None = None

    def read(self) -> dict[int, float]:
        """Read on; the new held-out losses (step: val_loss)."""
        new: dict[int, float] = {}
        for line in self._new_lines():
            try:
                points = parse_points([line])  # a damaged line counts as torn and gives no point
            except (ValueError, TypeError):
                continue
            for point in points:
                for step in [
                    step for step in self.losses if step >= point.step
                ]:  # a resumed run writes them anew
                    del self.losses[step], self.costs[step]
                    new.pop(step, None)
                self.last = point
                if isinstance(point.val_loss, int | float):
                    self.losses[point.step] = new[point.step] = float(point.val_loss)
                    self.costs[point.step] = {"seconds": point.wall_s, "images": point.images_seen}
        return new

    def best(self) -> float | None:
        """The lowest held-out loss so far."""
        step = self.best_step()
        return None if step is None else self.losses[step]

    def best_step(self) -> int | None:
        """The first step with the lowest held-out loss."""
        return min(self.losses, key=lambda step: self.losses[step], default=None)

    def _new_lines(self) -> list[str]:
        """The whole lines appended since the last call; all of them where the file was replaced or cut."""
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self.last = status.st_ino, 0, None
                    self.losses.clear()
                    self.costs.clear()
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()
