"""The command line without any trainer: plan, usage, refusals."""

from collections.abc import Callable
import errno
import os
from pathlib import Path
import subprocess
import sys

import pytest

from conf.compose import load_config
from conf.errors import RequestError, exit_status
from conf.schema import Evaluation
from curves.point import Point
from curves.run_folder import RunFacts, RunFolder, Status, Verdict
from sweep.cells import make_request
from sweep.clock import duration
from sweep.commands import main
from sweep.cost import evaluation_count, expected_cost, read_earlier_runs
from sweep.record import StudyFolder, write_record
from sweep.rows import row_of
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
    for step in (0, 4, 16, 64):
        folder.append_point(Point(step, val_loss=1.0, wall_s=step * 0.5 + 8.0))
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
    # Half the images in half the time; the earlier run spent 8 s beside its steps on 4 evaluations.
    expected = 100 * 0.25 + evaluation_count(config) * 2.0 + 10
    assert expected_cost(config, earlier).seconds == pytest.approx(expected)
    assert f"about {duration(expected_cost(load_config(arguments[2:]), earlier).seconds)} each" in text
    assert "if every trial takes all of its steps" in text
    other = load_config(["budget.max_steps=100", "resolution=px48"])
    assert "base model" in expected_cost(other, earlier).source


def test_evaluations_are_counted_along_the_geometric_grid() -> None:
    config = load_config(["budget.max_steps=16", "evaluation.first_step=4", "evaluation.ratio=2.0"])
    assert evaluation_count(config) == 4  # 0, 4, 8, 16


def test_status_of_a_study_that_nobody_runs(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(study)]) == 0
    assert "1 of 3 trials done" in capsys.readouterr().out
    assert main(["status", "study=old", f"runs_dir={study.parent}"]) == 0
    assert main(["status", "study='old'", f"runs_dir='{study.parent}'"]) == 0  # quoted as for `run`
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
        ["budget.max_steps=65", "64", "python -m sweep resume /"],
    ),
    (
        ["run", "study=old", "budget.max_steps=64", "sweep.trials=5"],
        ["sweep.trials=5", "sweep.trials=3", "python -m sweep resume /", "/old sweep.trials=5"],
    ),
    (
        ["plan", "study=old", "budget.max_steps=64", "sweep.trials=2"],
        ["sweep.trials=2", "has 3", "only grow"],
    ),
    (
        ["run", "study=old", "budget.max_steps=64", "sweep.trials=3", "launch.processes=2"],
        ["launch.processes=2", "launch.processes=1"],
    ),
    (["resume", "old", "launch.processes=2"], ["launch.processes=2", "keeps its settings"]),
    (["resume", "old", "launch={processes: 2}"], ["launch.processes=2", "launch.processes=1"]),
    (["resume"], ["name one study", "old"]),
    (["resume", "gone"], ["study=gone", "there are old"]),
    (["resume", "old", "optimizer.lr=1"], ["optimizer.lr=1", "keeps its settings"]),
    (["resume", "old", "sweep.trials=2"], ["sweep.trials=2", "has 3", "only grow"]),
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


@pytest.mark.parametrize("below", ["", "/deeper"])
def test_place_that_takes_no_study(tmp_path: Path, below: str) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(RequestError, match=r"runs_dir=.*/file.*, study=x: .*or name another place"):
        main(["run", "study=x", f"runs_dir={file}{below}"])


def test_failing_files_end_a_command_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/status.json")

    assert exit_status(full) == 1
    said = capsys.readouterr().err
    assert said == (
        "failed: runs/x/status.json: No space left on device: free space, then run the same command again\n"
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda text: text.replace("trials: 3\n", "", 1), "the key `trials` is missing"),
        (lambda text: text.replace("created:", "made:", 1), "the key `created` is missing"),
        (lambda text: text + "\n  torn: [", "restore the file"),
        (lambda text: "", "not a study record"),
    ],
)
def test_damaged_record_is_one_line(
    study: Path, tmp_path: Path, damage: Callable[[str], str], words: str
) -> None:
    record = StudyFolder(tmp_path / "s").record
    record.parent.mkdir()
    record.write_text(damage((study / "study.yaml").read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RequestError) as caught:
        main(["resume", str(record.parent)])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_time_left_counts_the_evaluations_on_the_way(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "0000-n8-lora-native-tiny")
    folder.path.mkdir()
    folder.write_status(Status("running", 16, seconds_per_step=0.5, max_steps=64))
    for step, wall in ((0, 3.0), (4, 8.0), (8, 13.0), (16, 20.0)):
        folder.append_point(Point(step, val_loss=1.0, wall_s=wall))
    row = row_of(folder, "cell", Evaluation(first_step=4, ratio=2.0))
    assert row.eta_s == pytest.approx(48 * 0.5 + 2 * 3.0)  # at 32 and 64, as long as the four before


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
