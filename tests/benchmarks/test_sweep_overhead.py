"""The measurement of a sweep's overhead really asks, tells and reopens a study."""

from pathlib import Path

import pytest

from benchmarks.storage_cost import SAMPLERS, open_study, storage_cost
from benchmarks.supervisor_cost import supervisor_cost
from benchmarks.worker_use import RUNNERS, measure


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_study_is_asked_and_told(tmp_path: Path, sampler: str) -> None:
    cost = storage_cost(sampler, 12, tmp_path)
    assert min(cost.first, cost.last, cost.opening) > 0
    assert cost.journal == (tmp_path / "journal.log").stat().st_size
    assert open_study(sampler, 12, tmp_path / "journal.log").states() == {"COMPLETE": 12}


@pytest.mark.parametrize("runner", RUNNERS)
def test_workers_that_wait_are_seen(tmp_path: Path, runner: str) -> None:
    """Two long trials and two short ones: whoever waits for a batch leaves a worker idle, and nobody beats the ideal."""
    use = measure(RUNNERS[runner], tmp_path, [1.5, 0.1, 0.1, 1.5], 2)
    assert use.share <= use.ideal + 0.01
    if runner == "loop of batches":
        assert use.overhead > 0.5


def test_a_sweep_of_trainers_that_end_at_once(tmp_path: Path) -> None:
    cost = supervisor_cost("random", 8, tmp_path)
    assert cost.first_computed + cost.last_computed > 0
    assert min(cost.first, cost.last) > 0
    assert cost.memory > 30 * 2**20
