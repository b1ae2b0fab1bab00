"""A random pipeline, a folder of images and a way to run train.py inside of this process."""

from collections.abc import Callable, Iterator
from pathlib import Path
import signal

import pytest

from tests.finetune.tiny_pipeline import make_images, make_pipeline
import train

Train = Callable[..., int]


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pipeline(tmp_path_factory.mktemp("base") / "random-sd")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("data") / "boxes", 16)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def base_overrides(pipeline: Path, images: Path, cache: Path) -> list[str]:
    """A run on the random pipeline that takes a second: 8 of 16 images held out, 4 to train on."""
    return [
        f"dataset.path={images}",
        "dataset_size=n4",
        "dataset.held_out=8",
        "base_model=custom",
        f"base_model.path={pipeline}",
        f"cache_dir={cache}",
        "optimizer.batch_size=2",
        "evaluation.strata=2",
        "evaluation.training_images=2",
        "samples.count=0",
        "stopping=none",
        "tracker=none",
        "device=cpu",
    ]


@pytest.fixture
def run_train(base_overrides: list[str]) -> Iterator[Train]:
    """Call with a run folder and overrides: trains in this process and gives the exit status."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def run(folder: Path, *overrides: str) -> int:
        return train.run([*base_overrides, f"run_dir={folder}", *overrides])

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
