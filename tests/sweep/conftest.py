"""A study in a temporary folder, and no process of it left behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sweep.harness import Sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path)
    yield sweep
    sweep.close()
