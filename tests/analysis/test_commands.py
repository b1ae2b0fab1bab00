"""The command line: exit statuses, what it prints and writes, and what it leaves unloaded."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

from tests.analysis.make_runs import Spec, make_run

ROOT = Path(__file__).resolve().parents[2]
SPEC = Spec(best_time=0.08, horizon=300, study=None)


def run(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """`python -m analysis`, from any folder."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from analysis.__main__ import main; sys.exit(main())"
    )
    command = [sys.executable, "-W", "error", "-c", program, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "runs" / "mine" / "one", SPEC)
    return tmp_path


def test_recommend_json_is_the_file(runs: Path) -> None:
    done = run("recommend", "mine", "--json", cwd=runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (runs / "runs/mine/analysis/recommendation.json").read_text()
    [cell] = json.loads(done.stdout)["cells"]
    assert cell["status"] == "ok"


def test_a_price_of_the_horizon_gives_priced_steps(runs: Path) -> None:
    done = run("recommend", "mine", "--price", "0.2", cwd=runs)
    [cell] = json.loads((runs / "runs/mine/analysis/recommendation.json").read_text())["cells"]
    assert cell["priced"]["price"] == 0.2
    assert f"costs 0.2 of the gain: {cell['priced']['steps']} steps" in " ".join(done.stdout.split())
    refused = run("report", "mine", "--price", "-1", cwd=runs)
    assert refused.returncode == 2 and "-1 is no share of the gain" in refused.stderr


def test_report_writes_the_page_and_names_it(runs: Path) -> None:
    done = run("report", "runs/mine", cwd=runs)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "report: runs/mine/analysis/report.html"
    assert (runs / "runs/mine/analysis/report.html").stat().st_size > 20_000
    assert run("report", "runs/mine/one", cwd=runs).returncode == 0
    assert (runs / "runs/mine/one/analysis/report.html").is_file()


def test_a_refused_cell_is_still_an_answer(runs: Path) -> None:
    (runs / "runs/mine/one/curve.jsonl").write_text("")
    done = run("recommend", "mine", cwd=runs)
    assert done.returncode == 0
    assert "refused" in done.stdout


def test_wrong_request_ends_with_2_and_the_neighbours(runs: Path) -> None:
    done = run("recommend", "mien", cwd=runs)
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no such folder" in done.stderr and "runs/mine" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("frobnicate").returncode == 2


def test_nothing_readable_ends_with_1(runs: Path) -> None:
    (runs / "runs/mine/one/run.json").write_text("{}")
    done = run("report", "mine", cwd=runs)
    assert done.returncode == 1
    assert done.stderr.startswith("failed: ") and "one: run.json" in done.stderr
    assert "Traceback" not in done.stderr


def test_recommend_loads_neither_torch_nor_a_plotting_library() -> None:
    program = (
        "import sys, analysis.recommend, analysis.table, analysis.report, analysis.verify, analysis.replay; "
        "loaded = {name.split('.')[0] for name in sys.modules}; "
        "print(sorted(loaded & {'torch', 'matplotlib', 'jinja2', 'PIL'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
