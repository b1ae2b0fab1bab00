"""A run that branches off a trunk at constant learning rate is the run from scratch, bit for bit."""

from collections.abc import Callable
import json
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
import torch

from conf.errors import RequestError
from curves.cooldown import average_exponent, cooldown_start, geometric_budgets
from curves.run_folder import RunFolder
from finetune import branching
from finetune.averaging import AgingAverage
from tests.finetune.runs import equal, stop_at, weights
from tests.finetune.tiny_pipeline import read_curve

pytestmark = pytest.mark.long

Train = Callable[..., int]

SHARE = 0.25
TRUNK = ["budget.max_steps=24", "checkpoints.keep=[9,18]"]
BRANCH = ["optimizer.schedule=warmup_stable_decay", f"optimizer.decay_share={SHARE}"]


def without_time(run: Path) -> list[dict[str, Any]]:
    return [{**point, "wall_s": None} for point in read_curve(run)]


def branch(trunk: Path, budget: int) -> list[str]:
    return [*BRANCH, f"budget.max_steps={budget}", f"budget.trunk={trunk}"]


def trunk_and_scratch(run_train: Train, folder: Path, budget: int) -> tuple[Path, Path]:
    """A trunk, and the run from scratch that a branch of it to that budget has to equal."""
    trunk, scratch = folder / "trunk", folder / "scratch"
    assert run_train(trunk, *TRUNK) == 0
    assert run_train(scratch, f"budget.max_steps={budget}", *BRANCH) == 0
    return trunk, scratch


@pytest.mark.parametrize(
    "options",
    [
        ["optimizer.warmup_steps=3", "samples.count=1", "samples.first_step=2", "samples.inference_steps=2"],
        ["optimizer.ema_decay=0.9"],
        ["method=text_to_image"],
    ],
)
def test_branches_equal_the_same_runs_from_scratch(
    run_train: Train, tmp_path: Path, options: list[str]
) -> None:
    assert run_train(tmp_path / "trunk", *TRUNK, *options) == 0
    for budget in (12, 24):
        scratch, branched = tmp_path / f"scratch-{budget}", tmp_path / f"branch-{budget}"
        assert run_train(scratch, f"budget.max_steps={budget}", *BRANCH, *options) == 0
        assert run_train(branched, *branch(tmp_path / "trunk", budget), *options) == 0
        assert without_time(branched) == without_time(scratch)
        assert equal(weights(branched), weights(scratch))
        facts, alone = RunFolder(branched).read_facts(), RunFolder(scratch).read_facts()
        assert facts.extra.pop("trunk") == {"run": "trunk", "step": cooldown_start(budget, SHARE)}
        assert facts == alone and facts.horizon == budget
        drawn = [
            {path.name: path.read_bytes() for path in run.glob("samples/*")} for run in (branched, scratch)
        ]
        assert drawn[0] == drawn[1]
        assert read_curve(branched)[-1]["lr"] < 0.5 * read_curve(tmp_path / "trunk")[-1]["lr"]


def test_a_branch_stands_by_itself_and_is_resumed(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk, scratch = trunk_and_scratch(run_train, tmp_path, 24)
    branched = tmp_path / "branch"
    with monkeypatch.context() as patch:
        stop_at(patch, 21, lambda run: RunFolder(branched).request_stop("preempted", "asked"))
        assert run_train(branched, *branch(trunk, 24)) == 1
    shutil.rmtree(trunk)
    assert run_train(branched, *branch(trunk, 24)) == 0
    assert without_time(branched) == without_time(scratch)


def test_killed_before_the_state_is_there_it_branches_again(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trunk, scratch = trunk_and_scratch(run_train, tmp_path, 12)
    branched = tmp_path / "branch"

    class Killed(BaseException):
        pass

    def die(state: Path, checkpoints: Path) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(branching, "put_in_place", die)
        with pytest.raises(Killed):
            run_train(branched, *branch(trunk, 12))
    assert run_train(branched, *branch(trunk, 12)) == 0
    assert without_time(branched) == without_time(scratch)


def test_a_killed_trunk_goes_on_from_the_latest_state_that_it_keeps(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def die(run: object) -> None:
        raise Killed

    assert run_train(tmp_path / "whole", *TRUNK) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 20, die)
        with pytest.raises(Killed):
            run_train(tmp_path / "trunk", *TRUNK)
    steps: list[int] = []
    stop_at(monkeypatch, 19, lambda run: steps.append(run.counters.step))
    stop_at(monkeypatch, 12, lambda run: steps.append(run.counters.step))
    assert run_train(tmp_path / "trunk", *TRUNK) == 0
    assert steps == [18]  # step 12 was not trained again
    assert without_time(tmp_path / "trunk") == without_time(tmp_path / "whole")
    assert RunFolder(tmp_path / "trunk").kept_steps() == [9, 18]


def test_whole_networks_keep_the_states_for_branches_and_no_other(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "trunk", *TRUNK, "method=text_to_image") == 0
    names = sorted(path.name for path in (tmp_path / "trunk" / "checkpoints").iterdir())
    assert names == ["step-000009", "step-000018"]


MISTAKES = (  # trunk, what is asked for otherwise, the error
    ("kept", ["budget.max_steps=40"], r"=40: .* from step 30 on, beyond the trunk .* of 24 steps"),
    ("kept", ["budget.max_steps=16"], r"from step 12 on, and the trunk kept the states of steps 9, 18"),
    ("bare", [], r"kept no state: train it with checkpoints\.keep=\[9\]"),
    ("cosine", [], r"its learning rate has followed .*=cosine"),
    (
        "kept",
        ["optimizer.schedule=constant", "optimizer.decay_share=0.2"],
        r"set optimizer\.schedule=warmup_stable",
    ),
    ("kept", ["optimizer.lr=0.02"], r"optimizer\.lr=0\.02: the trunk .* was trained with"),
    ("kept", ["seed=3"], r"seed=3: the trunk .* was trained with seed=0"),
    ("kept", ["evaluation.average_share=0.25"], r"evaluation\.average_share=0\.25: the trunk"),
    ("nowhere", [], r"budget\.trunk=.*nowhere: is no run folder"),
)


def test_mistakes(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "kept", *TRUNK) == 0
    assert run_train(tmp_path / "bare", "budget.max_steps=12") == 0
    assert run_train(tmp_path / "cosine", "budget.max_steps=4", "optimizer.schedule=cosine") == 0
    for trunk, asked, complaint in MISTAKES:
        with pytest.raises(RequestError, match=complaint):
            run_train(tmp_path / "branch", *branch(tmp_path / trunk, 12), *asked)
        assert not RunFolder(tmp_path / "branch").curve.exists()


def test_the_average_is_measured_beside_and_disturbs_nothing(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "plain", "budget.max_steps=12") == 0
    assert run_train(tmp_path / "averaged", "budget.max_steps=12", "evaluation.average_share=0.25") == 0
    plain, averaged = without_time(tmp_path / "plain"), without_time(tmp_path / "averaged")
    measured = [(point.pop("averaged_loss"), point.pop("averaged_image_loss")) for point in averaged]
    assert averaged == plain
    assert measured[0][0] == plain[0]["val_loss"]
    assert all(loss == pytest.approx(np.mean(images)) for loss, images in measured)
    assert measured[-1][0] != plain[-1]["val_loss"]


def test_an_interrupted_average_goes_on(run_train: Train, tmp_path: Path) -> None:
    options = ["budget.max_steps=12", "evaluation.average_share=0.25"]
    assert run_train(tmp_path / "whole", *options) == 0
    (tmp_path / "parts").mkdir()
    RunFolder(tmp_path / "parts").request_stop("preempted", "asked")
    assert run_train(tmp_path / "parts", *options) == 1
    assert run_train(tmp_path / "parts", *options) == 0
    assert without_time(tmp_path / "parts") == without_time(tmp_path / "whole")


@pytest.mark.parametrize("share", [0.1, 0.15, 0.2, 0.5])
def test_the_average_is_as_old_as_a_decay_over_its_share(share: float) -> None:
    """Of weights that are the number of their step it is the mean step, of a decay (1 - share/2) of them all."""
    weight = torch.nn.Parameter(torch.zeros(1))
    average = AgingAverage({"weight": weight}, share)
    for step in range(1, 2001):
        with torch.no_grad():
            weight.fill_(step)
        average.update(step)
    assert average.state_dict()["weight"].item() / 2000 == pytest.approx(1 - share / 2, abs=2e-3)
    assert average_exponent(share) == pytest.approx(2 / share - 2)


def test_budgets_rise_by_the_ratio_up_to_the_largest() -> None:
    assert geometric_budgets(512, 2**0.5, 6) == [91, 128, 181, 256, 362, 512]
    assert geometric_budgets(3, 2**0.5, 6) == [1, 2, 3]


def test_kept_states_are_whole_training_states(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "trunk", *TRUNK, "evaluation.average_share=0.25") == 0
    kept = RunFolder(tmp_path / "trunk").kept_state(9)
    assert json.loads((kept / "state.json").read_text())["step"] == 9
    assert load_file(kept / "aging.safetensors").keys() == load_file(kept / "weights.safetensors").keys()
