"""The law across dataset sizes: time of the minimum against the number of images (method.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curves.law import EXPONENT_PRIOR
from curves.recommendation import CellAnswer

Array = NDArray[np.float64]
FEWEST_SIZES = 3
LEVEL = 0.9
BETWEEN_CELLS_SD = 0.3  # half-normal prior scale of cell-to-cell scatter, natural log of time


def law_across_sizes(
    cells: Sequence[tuple[CellAnswer, float | None]], left_out: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """log S* = mu + exponent * log N for each method, base, resolution and captions; None with few sizes.

    cells: answers with lr_sum at the median minimum. Describes what was seen; predicts nothing.
    left_out: cells that may not be used, and why; they are named beside the groups.
    """
    groups: dict[tuple[Any, ...], list[tuple[CellAnswer, float]]] = {}
    for cell, time in cells:
        if cell.status == "ok" and cell.images is not None and time is not None:
            key = (
                cell.method,
                cell.base_model,
                cell.base_id,
                cell.resolution,
                cell.dataset,
                str(cell.captions),
            )
            groups.setdefault(key, []).append((cell, time))
    laws = [
        _law(group) for group in groups.values() if len({cell.images for cell, _ in group}) >= FEWEST_SIZES
    ]
    if not laws and not left_out:
        return None
    law: dict[str, Any] = {"quantity": "sum of the learning rate at the minimum", "groups": laws}
    return law | {"left_out": dict(left_out)} if left_out else law


def _law(group: list[tuple[CellAnswer, float]]) -> dict[str, Any]:
    cells = [cell for cell, _ in group]
    images = np.array([cell.images for cell in cells], dtype=float)
    low, median, high = exponent(
        images, np.array([time for _, time in group]), np.array([_log_sd(c) for c in cells])
    )
    first = cells[0]
    return {
        "method": first.method,
        "base_model": first.base_model,
        "resolution": first.resolution,
        "captions": first.captions,
        "dataset": first.dataset,
        "base_id": first.base_id,
        "images": [int(count) for count in sorted(images)],
        "exponent": {
            "low": round(low, 3),
            "median": round(median, 3),
            "high": round(high, 3),
            "level": LEVEL,
        },
    }


def _log_sd(cell: CellAnswer) -> float:
    """Standard deviation of log minimum from its interval."""
    assert cell.minimum is not None
    return float(max(np.log(cell.minimum["high"] / max(cell.minimum["low"], 1)) / (2 * 1.645), 0.01))


def exponent(images: Array, time: Array, log_sd: Array) -> tuple[float, float, float]:
    """Posterior quantiles (5, 50, 95 %) of the exponent, on a grid of exponent x scatter between cells.

    images, time, log_sd: (cells,). The level mu is integrated out under a flat prior.
    """
    x, y = np.log(images) - np.log(images).mean(), np.log(time)
    slope = np.linspace(
        EXPONENT_PRIOR[0] - 6 * EXPONENT_PRIOR[1], EXPONENT_PRIOR[0] + 6 * EXPONENT_PRIOR[1], 601
    )
    scatter = np.linspace(0.0, 3 * BETWEEN_CELLS_SD, 61)
    variance = log_sd[None, :] ** 2 + scatter[:, None] ** 2  # (scatter, cells)
    weight = 1 / variance
    residual = y[None, :] - slope[:, None] * x[None, :]  # (slope, cells)
    total = weight.sum(axis=1)
    mean = residual @ weight.T / total  # (slope, scatter)
    squares = (residual**2) @ weight.T - total * mean**2
    score = -0.5 * squares - 0.5 * np.log(variance).sum(axis=1) - 0.5 * np.log(total)
    score = score - 0.5 * (scatter / BETWEEN_CELLS_SD) ** 2
    score = score - 0.5 * ((slope - EXPONENT_PRIOR[0]) / EXPONENT_PRIOR[1])[:, None] ** 2
    density = np.exp(score - score.max()).sum(axis=1)
    cumulative = np.cumsum(density) / density.sum()
    low, median, high = np.interp([(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2], cumulative, slope)
    return float(low), float(median), float(high)
