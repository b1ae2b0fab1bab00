"""The report as a person sees it: rendered by Chromium on a wide screen and on a phone, and printed."""

from dataclasses import replace
from html import escape
from pathlib import Path
import re
import subprocess
import sys

from PIL import Image
import pytest

from tests.analysis.make_runs import demo_specs, make_study
from tests.sweep.harness import ROOT

pytestmark = pytest.mark.services

CHROMIUM = [
    "chromium",
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]
# What only a browser knows: whether anything is wider than the page, whether every picture was decoded, and whether
# a table or figure that is too wide can be scrolled to its end.
PROBE = """<script>
onload = () => {
  const view = document.querySelector('iframe').contentWindow, page = view.document, root = page.documentElement;
  const pictures = [...page.images];
  const broken = pictures.filter(picture => !picture.complete || picture.naturalWidth === 0).length;
  const cut = [...page.querySelectorAll('table, svg[role]')].filter(part => {
    const box = part.closest('.scroll');
    return part.getBoundingClientRect().right > view.innerWidth && (!box || view.getComputedStyle(box).overflowX !== 'auto');
  }).length;
  const found = [root.scrollWidth, view.innerWidth, pictures.length, broken, cut];
  document.documentElement.setAttribute('data-probe', found.join(' '));
};
</script>"""


def analysis(*arguments: object) -> None:
    command = [sys.executable, "-m", "analysis", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    specs = [replace(spec, beyond=spec.samples) for spec in demo_specs()]
    study = make_study(tmp_path_factory.mktemp("runs") / "demo", specs)
    analysis("report", study)
    return study / "analysis" / "report.html"


@pytest.fixture(scope="module")
def comparison(report: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    specs = [replace(spec, gain=2 * spec.gain) for spec in demo_specs()]
    analysis(
        "compare",
        report.parents[1],
        make_study(folder / "a-study-with-a-long-name", specs),
        "--to",
        folder / "out",
    )
    return folder / "out" / "comparison.html"


def chromium(profile: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*CHROMIUM, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_the_page_fits_its_window_and_shows_every_picture(
    name: str, width: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In a frame, since Chromium's own window is never narrower than 500 pixels."""
    text = request.getfixturevalue(name).read_text(encoding="utf-8")
    page = tmp_path / "probe.html"
    frame = f'<iframe style="border: 0; width: {width}px; height: 900px" srcdoc="{escape(text)}"></iframe>'
    page.write_text(f'<!doctype html><html><meta charset="utf-8">{frame}{PROBE}</html>', encoding="utf-8")
    seen = chromium(tmp_path / "profile", "--window-size=1400,1000", "--dump-dom", page.as_uri())
    probe = re.search(r'data-probe="(\d+) (\d+) (\d+) (\d+) (\d+)"', seen)
    assert probe is not None
    scroll_width, inner_width, pictures, broken, cut = map(int, probe.groups())
    assert inner_width == width
    assert scroll_width <= inner_width
    assert cut == 0, "something wider than the page does not scroll"
    assert (pictures > 0) == (name == "report")
    assert broken == 0


def test_the_page_is_drawn(report: Path, tmp_path: Path) -> None:
    picture = tmp_path / "report.png"
    chromium(tmp_path / "profile", "--window-size=1200,3000", f"--screenshot={picture}", report.as_uri())
    with Image.open(picture) as image:
        grey = image.convert("L")
        assert grey.size == (1200, 3000)
        for top in range(0, 1800, 600):
            low, high = grey.crop((0, top, 1200, top + 600)).getextrema()
            assert low < 80 and high > 200, f"nothing to read between {top} and {top + 600} pixels"


def test_the_page_prints(report: Path, tmp_path: Path) -> None:
    paper = tmp_path / "report.pdf"
    chromium(tmp_path / "profile", "--no-pdf-header-footer", f"--print-to-pdf={paper}", report.as_uri())
    assert paper.read_bytes().startswith(b"%PDF")
