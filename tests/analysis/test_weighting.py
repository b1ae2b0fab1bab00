"""Other weightings of the timestep strata: told where they move the minimum, silent where they do not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.load import group_cells, read_run
from analysis.recommend import answer_cell
from analysis.run import Run
from analysis.weighting import weighting_caveats
from tests.analysis.make_runs import Spec, latent_regret, make_run


def run_with_bins(path: Path, times: list[float], levels: list[float], noise: float = 0.01) -> Run:
    """A run whose strata have their minima at these times and their losses at these levels; the loss is their mean."""
    run = read_run(make_run(path, Spec(lr=1e-3, horizon=1200)))
    lr_sum = np.array([point.lr_sum or 0.0 for point in run.points])
    random = np.random.default_rng(0)
    columns = [
        level * (1 + 0.1 * latent_regret(lr_sum, time) + 0.1 * noise * random.standard_normal(len(lr_sum)))
        for time, level in zip(times, levels, strict=True)
    ]
    bins = np.stack(columns, axis=1)
    points = [
        replace(point, bins=[float(x) for x in row], val_loss=float(row.mean()))
        for point, row in zip(run.points, bins, strict=True)
    ]
    return replace(run, points=tuple(points))


def test_strata_that_agree_say_nothing(tmp_path: Path) -> None:
    assert weighting_caveats([run_with_bins(tmp_path / "run", [0.15] * 8, [1.0] * 2 + [0.1] * 6)]) == []


def test_strata_that_turn_later_but_weigh_little_are_told(tmp_path: Path) -> None:
    run = run_with_bins(tmp_path / "run", [0.1] * 2 + [0.4] * 6, [1.0] * 2 + [0.05] * 6)
    told = weighting_caveats([run])
    assert len(told) == 3
    assert all("times as many steps" in text for text in told)
    moved = float(told[2].split(" at ")[1].split()[0])
    assert told[2].startswith("by the middle half of the strata alone") and moved == pytest.approx(
        3.5, rel=0.4
    )


def test_one_weighting_may_differ_alone(tmp_path: Path) -> None:
    run = run_with_bins(
        tmp_path / "run", [0.1] * 2 + [0.4] * 4 + [0.1] * 2, [1.0] * 2 + [0.02] * 4 + [1.0] * 2
    )
    assert any(text.startswith("by the middle half") for text in weighting_caveats([run]))


@pytest.mark.parametrize("damage", ["absent", "short", "few strata", "zero", "no base"])
def test_bins_that_cannot_be_used_say_nothing(tmp_path: Path, damage: str) -> None:
    run = run_with_bins(tmp_path / "run", [0.1] * 2 + [0.4] * 6, [1.0] * 2 + [0.05] * 6)
    points = list(run.points)
    if damage == "absent":
        points[3] = replace(points[3], bins=None)
    elif damage == "short":
        points[3] = replace(points[3], bins=[1.0])
    elif damage == "few strata":
        points = [replace(point, bins=(point.bins or [])[:2]) for point in points]
    elif damage == "zero":
        points[3] = replace(points[3], bins=[0.0] * 8)
    else:
        points = points[1:]
    assert weighting_caveats([replace(run, points=tuple(points))]) == []


def test_the_row_carries_the_caveat(tmp_path: Path) -> None:
    run = run_with_bins(tmp_path / "run", [0.1] * 2 + [0.4] * 6, [1.0] * 2 + [0.05] * 6)
    [cell] = group_cells([run])
    row = answer_cell(cell).answer
    assert row.status == "ok", row.reason
    assert "by the middle half of the strata alone the minimum is at" in row.reason
