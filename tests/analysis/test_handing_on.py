"""The report as it is handed on: to Weights & Biases, read back from its own files, and what is said where that fails."""

from collections.abc import Mapping
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record
import yaml

from analysis.wandb_report import report_id
from tests.analysis.make_runs import Spec, make_study
from tests.finetune.wandb_file import is_whole, read_history, read_records, read_run
from tests.sweep.harness import ROOT, wait_until

SPECS = [Spec(horizon=300, best_time=0.08, beyond=True, samples=True), Spec(horizon=20, images=8)]


def report(
    study: Path, *options: str, missing: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python -m analysis report`, where one module may not be installed."""
    hidden = f"sys.modules.update(dict.fromkeys({missing.split()!r}))"
    program = f"import sys; {hidden}; from analysis.__main__ import main; sys.exit(main())"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return subprocess.run(
        [sys.executable, "-c", program, "report", str(study), *options],
        cwd=ROOT,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def offline_files(study: Path) -> list[Path]:
    files = sorted((study / "analysis").glob("wandb/offline-run-*/*.wandb"))
    wait_until(lambda: all(map(is_whole, files)), "the tracker's service to write the end of its files")
    return files


def artifact_files(records: list[Record]) -> set[str]:
    """Names in the manifests of logged artifacts."""
    artifacts = [
        record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")
    ]
    artifacts += [record.artifact for record in records if record.HasField("artifact")]
    return {entry.path for artifact in artifacts for entry in artifact.manifest.contents}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = make_study(tmp_path / "demo", SPECS)
    record: dict[str, Any] = yaml.safe_load((root / "study.yaml").read_text())
    record |= {"id": "0123456789abcdef" * 2}
    record["config"]["tracker"] = {"project": "my-project"}
    (root / "study.yaml").write_text(yaml.safe_dump(record))
    return root


@pytest.mark.long
def test_the_report_joins_its_study_and_a_repeat_goes_on_under_the_same_id(study: Path) -> None:
    done = report(study, "--wandb", WANDB_MODE="offline")
    assert (done.returncode, done.stderr) == (0, "")
    [file] = offline_files(study)
    assert f"sent by `wandb sync {file.parent}`" in done.stdout
    told = read_run(file)
    assert (told.run_group, told.job_type, told.project) == ("demo", "report", "my-project")
    assert told.run_id == report_id(study)
    [history] = [record for record in read_history(file) if "recommendation/_type" in record]
    assert history["recommendation/_type"] == "table-file"
    assert (history["recommendation/nrows"], history["recommendation/ncols"]) == (2, 8)
    assert history["report/_type"] == "html-file"
    figures = {path.stem for path in (study / "analysis" / "figures").glob("*.png")}
    assert {key.split("/")[1] for key in history if key.startswith("figures/")} == figures
    assert len(figures) == 4
    pictures = list(file.parent.glob("files/media/images/figures/*.png"))
    assert len(pictures) == len(figures)
    names = artifact_files(list(read_records(file)))
    assert {"report.html", "recommendation.json", "tables/cells.csv"} <= names
    assert f"figures/{next(iter(figures))}.svg" in names

    assert report(study, "--wandb", WANDB_MODE="offline").returncode == 0
    assert {read_run(path).run_id for path in offline_files(study)} == {told.run_id}
    moved = study.rename(study.with_name("elsewhere"))
    assert report_id(moved) == told.run_id


@pytest.mark.long
def test_a_server_that_cannot_be_reached_leaves_an_offline_run_and_says_how_to_send_it(study: Path) -> None:
    unreachable: Mapping[str, str] = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40}
    done = report(study, "--wandb", **unreachable)
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("wandb cannot")]
    assert len(said) == 1 and said[0].startswith("wandb cannot be reached (")
    assert "connection refused" in said[0] and said[0].endswith("): writing offline")
    assert "Traceback" not in done.stderr
    [file] = offline_files(study)
    assert f"wandb sync {file.parent}" in done.stdout
    assert any("recommendation/_type" in record for record in read_history(file))


def test_what_is_missing_is_said_before_any_work(study: Path) -> None:
    asked = (
        (["--wandb"], {"missing": "wandb"}, "needs wandb, which is not installed; pip install wandb"),
        (["--wandb"], {"WANDB_MODE": "disabled"}, "WANDB_MODE=disabled turns it off"),
        (["--pdf"], {"missing": "weasyprint"}, "pip install 'stepbudget[pdf]'"),
    )
    for options, environment, fault in asked:
        done = report(study, *options, **environment)
        assert (done.returncode, done.stdout) == (2, "")
        assert fault in done.stderr and done.stderr.count("\n") == 1
    assert not (study / "analysis").exists()
