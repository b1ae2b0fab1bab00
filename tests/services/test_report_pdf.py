"""The report on paper: a real reader finds its text, on pages that hold it."""

from dataclasses import replace
import json
from pathlib import Path
import subprocess
import sys

import pytest

from tests.analysis.make_runs import Spec, demo_specs, make_study
from tests.sweep.harness import ROOT

pytestmark = pytest.mark.services

NO_GAIN = Spec(method="text_to_image", images=8, gain=-0.004)


def analysis(*arguments: object) -> str:
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def read(paper: Path) -> tuple[list[str], str]:
    """Text of the pages, blanks made equal; and the title."""
    from pypdf import PdfReader

    reader = PdfReader(paper)
    title = reader.metadata.title if reader.metadata is not None else ""
    assert {round(float(page.mediabox.width)) for page in reader.pages} == {595}  # A4
    return [" ".join(page.extract_text().split()) for page in reader.pages], title or ""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    specs = [replace(spec, beyond=spec.samples) for spec in demo_specs((4, 8), ("lora",))]
    return make_study(tmp_path_factory.mktemp("runs") / "demo", [*specs, NO_GAIN])


def test_the_report_reads_the_same_on_paper(study: Path) -> None:
    said = analysis("report", study, "--pdf")
    paper = study / "analysis" / "report.pdf"
    assert f"pdf: {paper}" in said
    pages, title = read(paper)
    text = " ".join(pages)
    assert title == "demo: recommended steps"
    for cell in json.loads((study / "analysis" / "recommendation.json").read_text())["cells"]:
        if cell["status"] == "ok":
            low, high = cell["window"]["low"], cell["window"]["high"]
            assert f"train {cell['recommended_steps']} steps (window {low}–{high}" in text
            minimum = cell["minimum"]
            assert f"{minimum['median']} ({minimum['low']}–{minimum['high']})" in text
        assert cell["reason"] in text
    assert text.count("memorization gap") == 2
    assert all(f"{number} / {len(pages)}" in page for number, page in enumerate(pages, start=1))
    assert 4 <= len(pages) <= 8
    assert not list((study / "analysis").glob(".*.tmp"))


def test_a_comparison_too(study: Path, tmp_path: Path) -> None:
    other = make_study(tmp_path / "other", [replace(spec, gain=0.03) for spec in demo_specs((4,), ("lora",))])
    analysis("compare", study, other, "--to", tmp_path / "out", "--pdf")
    pages, title = read(tmp_path / "out" / "comparison.pdf")
    assert title == "demo and other: compared"
    assert "lora, 4 images: gain larger in other than in demo" in " ".join(pages)
