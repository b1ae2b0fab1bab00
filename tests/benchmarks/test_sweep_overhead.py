"""The measurement of a sweep's overhead really asks, tells and reopens a study."""

from pathlib import Path

import pytest

from benchmarks.sweep_overhead import SAMPLERS, open_study, storage_cost


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_is_asked_and_told(tmp_path: Path, sampler: str) -> None:
    cost = storage_cost(sampler, 12, tmp_path)
    assert min(cost.first, cost.last, cost.opening) > 0
    assert cost.journal == (tmp_path / "journal.log").stat().st_size
    assert open_study(sampler, 12, tmp_path / "journal.log").states() == {"COMPLETE": 12}
