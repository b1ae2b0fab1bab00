"""The sweep over the stand-in trainer, as in tests/sweep."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.harness import Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path)
    yield sweep
    sweep.close()
