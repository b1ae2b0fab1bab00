"""A finished run goes on from its last checkpoint when it is given more steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file
import torch

from conf.errors import RequestError
from curves.run_folder import RunFolder
from tests.finetune.tiny_pipeline import read_curve

pytestmark = pytest.mark.long

Train = Callable[..., int]


def at_grid(run: Path, steps: list[object]) -> list[dict[str, object]]:
    """The points at some steps, but for the training loss, which is a mean since the point before."""
    return [{**point, "train_loss": None} for point in read_curve(run) if point["step"] in steps]


@pytest.mark.parametrize("options", [[], ["optimizer=schedulefree"], ["optimizer.ema_decay=0.9"]])
def test_five_steps_and_seven_more_equal_twelve(run_train: Train, tmp_path: Path, options: list[str]) -> None:
    assert run_train(tmp_path / "whole", "budget.max_steps=12", *options) == 0
    assert run_train(tmp_path / "parts", "budget.max_steps=5", *options) == 0
    assert run_train(tmp_path / "parts", "budget.max_steps=12", *options) == 0
    folder = RunFolder(tmp_path / "parts")
    status = folder.read_status()
    assert status is not None
    assert (status.outcome, status.step, folder.read_facts().horizon) == ("complete", 12, 12)
    whole = read_curve(tmp_path / "whole")
    assert at_grid(tmp_path / "parts", [point["step"] for point in whole]) == [
        {**point, "train_loss": None} for point in whole
    ]
    first, second = (load_file(tmp_path / run / "best.safetensors") for run in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_interrupted_run_may_get_more_steps_but_not_fewer(run_train: Train, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert run_train(tmp_path / "whole", "budget.max_steps=12") == 0
    run.mkdir()
    RunFolder(run).request_stop("preempted", "asked")
    assert run_train(run, "budget.max_steps=8") == 1
    for fewer in ("6", "4"):
        with pytest.raises(RequestError, match=r"unfinished run with budget\.max_steps=8"):
            run_train(run, f"budget.max_steps={fewer}")
    assert run_train(run, "budget.max_steps=12") == 0
    steps = [point["step"] for point in read_curve(tmp_path / "whole")]
    assert at_grid(run, steps) == at_grid(tmp_path / "whole", steps)


def test_a_stopped_run_goes_on_without_its_rule(run_train: Train, tmp_path: Path) -> None:
    common = ["optimizer.lr=0.05", "budget.max_steps=40"]
    rule = ["stopping=patience", "stopping.parameters.patience=2"]
    assert run_train(tmp_path / "run", *common, *rule) == 0
    folder = RunFolder(tmp_path / "run")
    assert folder.outcome() == "stopped"
    done = folder.points()[-1].step
    with pytest.raises(RequestError, match=r"finished run \(stopped at step"):
        run_train(tmp_path / "run", *common, *rule)
    assert run_train(tmp_path / "run", *common) == 0
    assert (folder.outcome(), folder.points()[-1].step) == ("complete", 40)
    assert [point.step for point in folder.points()].count(done) == 1


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (["budget.max_steps=4"], r"finished run \(complete at step 4\).*larger budget\.max_steps"),
        (["budget.max_steps=8", "optimizer.lr=0.02"], r"holds a finished run with optimizer\.lr="),
    ],
)
def test_other_requests_leave_the_finished_run_as_it_is(
    run_train: Train, tmp_path: Path, change: list[str], complaint: str
) -> None:
    assert run_train(tmp_path / "run", "budget.max_steps=4") == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(RequestError, match=complaint):
        run_train(tmp_path / "run", *change)
    after = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert after == before


def test_a_decayed_learning_rate_cannot_be_prolonged(run_train: Train, tmp_path: Path) -> None:
    decaying = ["optimizer.schedule=cosine"]
    assert run_train(tmp_path / "run", "budget.max_steps=4", *decaying) == 0
    with pytest.raises(RequestError, match=r"schedule=cosine over 4 steps"):
        run_train(tmp_path / "run", "budget.max_steps=8", *decaying)
    planned = [*decaying, "budget.horizon=12"]
    assert run_train(tmp_path / "planned", "budget.max_steps=4", *planned) == 0
    assert run_train(tmp_path / "planned", "budget.max_steps=8", *planned) == 0


def test_a_run_that_kept_no_state_is_finished_for_good(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", "budget.max_steps=4", "checkpoints.resumable=false") == 0
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(RequestError, match=r"holds a finished run \(complete\)"):
        run_train(tmp_path / "run", "budget.max_steps=8", "checkpoints.resumable=false")
