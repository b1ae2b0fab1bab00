"""The report as a person sees it: rendered by Chromium on a wide screen and on a phone, and printed."""

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
# What only a browser knows: whether anything is wider than the page, and whether every picture was decoded.
PROBE = """<script>
const pictures = [...document.images];
const broken = pictures.filter(picture => !picture.complete || picture.naturalWidth === 0).length;
const root = document.documentElement;
root.setAttribute('data-probe', [root.scrollWidth, innerWidth, pictures.length, broken].join(' '));
</script>"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = make_study(tmp_path_factory.mktemp("runs") / "demo", demo_specs())
    subprocess.run(
        [sys.executable, "-m", "analysis", "report", str(study)], cwd=ROOT, check=True, capture_output=True
    )
    return study / "analysis" / "report.html"


def chromium(profile: Path, *arguments: str) -> str:
    done = subprocess.run(
        [*CHROMIUM, f"--user-data-dir={profile}", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.mark.parametrize("width", [1200, 500])
def test_the_page_fits_its_window_and_shows_every_picture(report: Path, tmp_path: Path, width: int) -> None:
    page = tmp_path / "probe.html"
    page.write_text(
        report.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8"
    )
    seen = chromium(tmp_path / "profile", f"--window-size={width},900", "--dump-dom", page.as_uri())
    probe = re.search(r'data-probe="(\d+) (\d+) (\d+) (\d+)"', seen)
    assert probe is not None
    scroll_width, inner_width, pictures, broken = map(int, probe.groups())
    assert scroll_width <= inner_width
    assert pictures > 0
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
