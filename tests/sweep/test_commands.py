"""The command line without any trainer: plan, usage, refusals."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from curves.run_folder import RunFacts, RunFolder, Status, Verdict
from sweep.cells import make_request
from sweep.commands import main
from sweep.cost import evaluation_count, expected_cost, read_earlier_runs
from sweep.record import StudyFolder, write_record
from tests.sweep.harness import ROOT


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that was recorded, with one finished trial of three."""
    runs_dir = tmp_path_factory.mktemp("runs")
    request = make_request(["study=old", f"runs_dir={runs_dir}", "sweep.trials=3", "budget.max_steps=64"])
    write_record(StudyFolder(request.folder), request, {})
    folder = RunFolder(request.folder / "trials" / "0000-n8-lora-native-tiny")
    cell = {"method": "lora", "base_model": "tiny", "resolution": 64}
    folder.path.mkdir(parents=True)
    folder.write_facts(RunFacts(cell, {"lr": 1e-3, "batch": 8}, 0, 64, 0.064, None, 8, "old", 0))
    folder.write_status(Status("ended", 64, "complete", seconds_per_step=0.5, max_steps=64))
    folder.write_verdict(Verdict("complete"))
    return request.folder


def test_plan_prints_cells_costs_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", "experiment=demo", f"runs_dir={tmp_path}", "sweep.trials=5", "launch.slots=2"]) == 0
    text = capsys.readouterr().out
    assert "4 cells x 5 trials = 20 trials" in text
    assert "n8-text_to_image-native-tiny" in text
    assert "optimizer.lr 0.00035..0.0008 log" in text
    assert "steps: at most 4,800" in text
    assert "2 slots, estimated from the base model's seconds_per_image" in text
    assert list(tmp_path.iterdir()) == []


def test_plan_uses_earlier_runs_and_what_is_done(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study=old", f"runs_dir={study.parent}", "sweep.trials=3", "budget.max_steps=64"]
    assert main(["plan", *arguments]) == 0
    text = capsys.readouterr().out
    assert "1 earlier run" in text
    assert "1 of 3 trials are done" in text
    assert "2 trials in" in text
    earlier = read_earlier_runs(study.parent)
    config = load_config(["budget.max_steps=100", "optimizer.batch_size=4"])
    assert expected_cost(config, earlier).seconds == pytest.approx(
        100 * 0.25 + 10
    )  # half the images, half the time
    other = load_config(["budget.max_steps=100", "resolution=px48"])
    assert "base model" in expected_cost(other, earlier).source


def test_evaluations_are_counted_along_the_geometric_grid() -> None:
    config = load_config(["budget.max_steps=16", "evaluation.first_step=4", "evaluation.ratio=2.0"])
    assert evaluation_count(config) == 4  # 0, 4, 8, 16


def test_status_of_a_study_that_nobody_runs(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study)]) == 0
    assert "1 of 3 trials done" in capsys.readouterr().out
    assert main(["status", "study=old", f"runs_dir={study.parent}"]) == 0
    assert main(["status", f"runs_dir={study.parent}"]) == 0


def test_usage_without_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert main(["run", "--help"]) == 0
    assert "python -m sweep run experiment=demo" in capsys.readouterr().out


WRONG = [
    (["launch"], ["launch", "plan, run, resume, status, stop"]),
    (["run", "experiment=none_such"], ["experiment=none_such", "demo"]),
    (["run", "budget.max_steps=5"], ["study is not set", "study=NAME"]),
    (["run", "demo"], ["study=demo"]),
    (["plan", "--multirun"], ["--multirun", "--help"]),
    (
        ["run", "study=old", "budget.max_steps=65", "sweep.trials=3"],
        ["budget.max_steps=65", "64", "resume old"],
    ),
    (["plan", "study=old", "budget.max_steps=64", "sweep.trials=5"], ["sweep.trials=5", "sweep.trials=3"]),
    (["resume"], ["name one study", "old"]),
    (["resume", "gone"], ["study=gone", "there are old"]),
    (["resume", "old", "optimizer.lr=1"], ["optimizer.lr=1", "keeps its settings"]),
    (["resume", "old", "sweep.trials=2"], ["sweep.trials=2", "3 trials", "only grow"]),
    (["stop", "old"], ["old", "no sweep is running"]),
    (["stop", "old", "--trial", "x"], ["--trial x", "number"]),
    (["status", "gone"], ["study=gone", "there are old"]),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(item) for item, _ in WRONG])
def test_wrong_requests_are_one_clear_line(study: Path, arguments: list[str], words: list[str]) -> None:
    before = sorted(study.rglob("*"))
    place = [] if len(arguments) == 1 and arguments[0] == "launch" else [f"runs_dir={study.parent}"]
    with pytest.raises(RequestError) as caught:
        main([*arguments, *place])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert sorted(path for path in study.rglob("*") if path.name != "supervisor.lock") == before


def test_exit_status_and_no_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "run", "optimiser.lr=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown key 'optimiser")
    assert len(done.stderr.splitlines()) == 1


def test_torch_stays_unloaded_and_plan_needs_no_optuna() -> None:
    code = (
        "import sys, sweep.commands\n"
        "assert 'optuna' not in sys.modules\n"
        "import sweep.supervisor\n"
        "bad = {'torch', 'accelerate', 'diffusers', 'finetune', 'transformers'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=dict(os.environ))
