"""One study with every kind of answer in it, analysed and reported once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.load import load_study
from analysis.recommend import Analysis, analyse, write_analysis
from analysis.report import write_report
from tests.analysis.make_runs import Spec, demo_specs, make_study

DAMAGED = "0099-damaged"
PREFIX = Spec(method="text_to_image", images=4, last_step=40, outcome="pruned", samples=True)
NO_GAIN = Spec(method="text_to_image", images=8, gain=-0.004)
PANELS = Spec(method="text_to_image", images=16)
SHORT = Spec(method="text_to_image", images=64, last_step=5, outcome="crashed")
EMPTY = Spec(method="text_to_image", images=128, last_step=-1, outcome="out_of_memory")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """lora on 4, 8, 16 images: ok; text_to_image: not_reached, no_gain, refused three times, the last without
    one evaluation; one damaged folder.
    """
    specs = [spec for spec in demo_specs((4, 8, 16), ("lora",)) if spec.lr < 2e-3]
    specs += [PREFIX, replace(PREFIX, lr=5e-4, last_step=27, outcome="crashed")]
    specs += [NO_GAIN, PANELS, replace(PANELS, panel="panel-b", seed=1), SHORT, EMPTY]
    root = make_study(tmp_path_factory.mktemp("runs") / "everything", specs)
    (root / "trials" / DAMAGED).mkdir()
    (root / "trials" / DAMAGED / "run.json").write_text('{"cell": ')
    return root


@pytest.fixture(scope="session")
def analysis(study: Path) -> Analysis:
    found = analyse(load_study(study))
    write_analysis(found)
    return found


@pytest.fixture(scope="session")
def report(analysis: Analysis) -> Path:
    return write_report(analysis)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`python -m analysis` in this process: exit status, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        try:
            status = main([str(word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        said = capsys.readouterr()
        return status, said.out, said.err

    return run
