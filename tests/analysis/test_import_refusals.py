"""Uses of imported logs that would lie are refused, each in one line that says what to do."""

import json
from pathlib import Path

import pytest

from curves.recommendation import CellAnswer, read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_logs import (
    HPARAMS,
    LR,
    Command,
    together,
    training_losses,
    u_curve,
    write_events,
    write_val_csv,
)
from tests.analysis.make_runs import Spec, make_run

CURVE = u_curve()
SHARED = ["dataset=cats", "dataset_size=20", "resolution=512", "method=lora", "base_model=sd15", f"lr={LR}"]


def one_cell(folder: Path, command: Command) -> CellAnswer:
    assert command("recommend", folder)[0] == 0
    [cell] = read_recommendation(folder).cells
    return cell


def test_told_runs_share_a_cell(tmp_path: Path, command: Command) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        write_val_csv(tmp_path / f"{name}.csv", u_curve(Spec(lr=LR, seed=seed)))
        told = [*SHARED, "panel=ours", f"seed={seed}"]
        words = (
            "import",
            "csv",
            tmp_path / f"{name}.csv",
            "--to",
            tmp_path / "old",
            "--steps-per-update",
            1,
            "--set",
        )
        assert command(*words, *told)[0] == 0
    cell = one_cell(tmp_path / "old", command)
    assert (cell.status, cell.evidence["runs"], cell.run) == ("ok", 2, None)


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        ([], [], "what a, b measured its held-out loss on is not known"),
        (["--set", "panel=p"], [], "what b measured its held-out loss on is not known"),
        (
            ["--set", "panel=p"],
            ["--set", "panel=q"],
            "different panels, which cannot be compared (p (unknown): a",
        ),
        (
            ["--set", "panel=p", "--steps-per-update", "1"],
            ["--set", "panel=p"],
            "count different things as a step, which cannot be compared (updates: a; steps as logged: b)",
        ),
    ],
)
def test_runs_of_one_cell_must_be_comparable(
    tmp_path: Path, command: Command, first, second, reason: str
) -> None:
    for name, words in (("a", first), ("b", second)):
        write_val_csv(tmp_path / f"{name}.csv", CURVE)
        line = ("import", "csv", tmp_path / f"{name}.csv", "--to", tmp_path / "old", "--set", *SHARED, *words)
        assert command(*line)[0] == 0
    cell = one_cell(tmp_path / "old", command)
    assert (cell.status, cell.recommended_steps) == ("refused", None)
    assert reason in cell.reason


def test_losses_of_two_tools_are_never_of_one_panel(tmp_path: Path, command: Command) -> None:
    for name, tag in (("a", "loss/val/pooled"), ("b", "loss/validation/step_average")):
        write_events(tmp_path / "logs" / name, together((tag, CURVE)))
    told = [*SHARED, "panel=ours"]
    assert (
        command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old", "--set", *told)[0] == 0
    )
    assert "ours (SimpleTuner): a; ours (sd-scripts): b" in one_cell(tmp_path / "old", command).reason


def test_a_base_under_another_name_is_another_base(tmp_path: Path, command: Command) -> None:
    for name, base in (("a", "runwayml/stable-diffusion-v1-5"), ("b", "some/finetune")):
        settings = {**HPARAMS, "pretrained_model_name_or_path": base}
        write_events(tmp_path / "logs" / name, together(("val_loss", CURVE)), settings)
    told = [*SHARED, "panel=ours"]
    assert (
        command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old", "--set", *told)[0] == 0
    )
    assert "the logs name different base models" in one_cell(tmp_path / "old", command).reason


def test_own_and_imported_runs_are_of_different_cells(tmp_path: Path, command: Command) -> None:
    make_run(tmp_path / "old" / "own", Spec(lr=LR, study=None))
    write_val_csv(tmp_path / "x.csv", CURVE)
    assert command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", "--set", *SHARED)[0] == 0
    assert command("recommend", tmp_path / "old")[0] == 0
    assert len(read_recommendation(tmp_path / "old").cells) == 2


def test_unknown_learning_rates_do_not_share_a_time(tmp_path: Path, command: Command) -> None:
    for name, told in (("a", SHARED), ("b", SHARED[:-1])):
        write_val_csv(tmp_path / f"{name}.csv", CURVE)
        line = (
            "import",
            "csv",
            tmp_path / f"{name}.csv",
            "--to",
            tmp_path / "old",
            "--steps-per-update",
            "1",
        )
        assert command(*line, "--set", *told, "panel=p")[0] == 0
    assert "the learning rate of some runs is not known" in one_cell(tmp_path / "old", command).reason


@pytest.mark.parametrize(
    ("tags", "words", "said"),
    [
        (
            ["loss/current", "lr/unet"],
            ["--val", "loss/current"],
            "--val loss/current is sd-scripts’s training loss",
        ),
        (["train_loss", "lr"], ["--val", "train_loss"], "--val train_loss is diffusers’s training loss"),
        (["train/loss"], ["--val", "train/loss"], "--val train/loss is a training loss"),
        (["test/val", "test/test"], ["--val", "test/test"], "spacepxl’s training loss"),
        (
            ["loss/val/a", "loss/val/b"],
            [],
            "several tags may be the held-out loss: loss/val/a, loss/val/b; choose with",
        ),
        (["val_loss"], ["--val", "vall_loss"], "no such tag; meant: val_loss?"),
        (["accuracy"], [], "no loss was found; name it with --val TAG or --train TAG. Tags: accuracy"),
        (["val_loss"], ["--set", "base_loss=0.3"], "the log has a held-out loss at step 0"),
    ],
)
def test_what_the_log_cannot_mean_is_refused(
    tmp_path: Path, command: Command, tags, words, said: str
) -> None:
    write_events(tmp_path / "logs", together(*((tag, CURVE) for tag in tags)))
    status, _, error = command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old", *words)
    assert status == 1
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("resolution=1024", "--set resolution=1024: the log says 512"),
        ("lr=2e-4", "--set lr=0.0002: the log says 0.001"),
    ],
)
def test_what_is_told_may_not_contradict_the_log(
    tmp_path: Path, command: Command, told: str, said: str
) -> None:
    write_events(tmp_path / "logs", together(("val_loss", CURVE)), HPARAMS)
    status, _, error = command(
        "import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old", "--set", told
    )
    assert status == 1
    assert said in error


def test_a_told_learning_rate_must_be_the_logged_curves(tmp_path: Path, command: Command) -> None:
    curve = together(("val_loss", CURVE), ("lr", dict.fromkeys(training_losses(600), LR)))
    write_events(tmp_path / "logs", curve)
    words = ("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old", "--set", "lr=1e-2")
    assert "lr=0.01: its curve in the log, lr, peaks at 0.001" in command(*words)[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--set", "datset=cats"],
            "--set datset=cats: give a key and its value, as dataset=cats; meant: dataset. Keys: dataset, dataset_size",
        ),
        (
            ["--set", "resolution"],
            "--set resolution: give a key and its value, as dataset=cats. Keys: dataset",
        ),
        (["--set", "resolution=big"], "--set resolution=big: resolution takes pixels"),
        (["--set", "dataset_size=0"], "dataset_size takes number of training images"),
        (["--set", "lr=-1"], "lr takes peak learning rate"),
        (["--steps-per-update", "0"], "0 is no number of logged steps"),
        (["--only", "y"], "--only y: no run of that name; there are 1: x"),
    ],
)
def test_a_wrong_request_ends_with_2(tmp_path: Path, command: Command, words, said: str) -> None:
    write_val_csv(tmp_path / "x.csv", CURVE)
    status, _, error = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", *words)
    assert status == 2
    assert said in error
    assert not (tmp_path / "old").exists()


@pytest.mark.parametrize(
    ("kind", "said"), [("tensorboard", "event file"), ("wandb", "*.wandb"), ("csv", "*.csv")]
)
def test_a_source_without_logs_ends_with_2(tmp_path: Path, command: Command, kind: str, said: str) -> None:
    (tmp_path / "logs").mkdir()
    status, _, error = command("import", kind, tmp_path / "logs", "--to", tmp_path / "old")
    assert (status, said in error) == (2, True)
    status, _, error = command("import", kind, tmp_path / "nowhere", "--to", tmp_path / "old")
    assert (status, "there is no such file or folder" in error) == (2, True)


def test_runs_are_never_overwritten(tmp_path: Path, command: Command) -> None:
    write_val_csv(tmp_path / "x.csv", CURVE)
    words = ("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    assert command(*words)[0] == 0
    before = (tmp_path / "old" / "x" / "run.json").read_bytes()
    status, _, error = command(*words, "--set", "seed=3")
    assert status == 2
    assert "it has x already" in error
    assert (tmp_path / "old" / "x" / "run.json").read_bytes() == before


def test_a_study_is_no_place_for_imports(tmp_path: Path, command: Command) -> None:
    make_run(tmp_path / "study" / "trials" / "0000-x", Spec())
    write_val_csv(tmp_path / "x.csv", CURVE)
    status, _, error = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "study")
    assert status == 2
    assert "that is a study" in error


def test_one_bad_run_does_not_cost_the_others(tmp_path: Path, command: Command) -> None:
    write_val_csv(tmp_path / "t" / "good.csv", CURVE)
    (tmp_path / "t" / "bad.csv").write_text("a,b\n1,2\n")
    status, said, error = command("import", "csv", tmp_path / "t", "--to", tmp_path / "old")
    assert status == 0
    assert "1 run in" in said
    assert "left out bad: no loss was found (bad.csv: no column of steps" in error
    assert json.loads(RunFolder(tmp_path / "old" / "good").run.read_text())["imported"]["run"] == "good"


def test_regret_is_not_measured_against_a_base_that_nobody_measured(tmp_path: Path, command: Command) -> None:
    for name, curve in (("with", CURVE), ("without", {step: loss for step, loss in CURVE.items() if step})):
        write_val_csv(tmp_path / f"{name}.csv", curve)
        assert command("import", "csv", tmp_path / f"{name}.csv", "--to", tmp_path / "old" / name)[0] == 0
    assert command("replay", tmp_path / "old" / "with")[0] == 0
    status, _, error = command("replay", tmp_path / "old" / "without")
    assert status == 2
    assert "no finished run has a gain to measure regret in: none was measured at step 0" in error


def test_steps_of_another_kind_verify_nothing(tmp_path: Path, command: Command) -> None:
    write_val_csv(tmp_path / "x.csv", CURVE)
    for name, words in (("study", ["--steps-per-update", "1"]), ("fresh", [])):
        line = (
            "import",
            "csv",
            tmp_path / "x.csv",
            "--to",
            tmp_path / name,
            *words,
            "--set",
            *SHARED,
            "panel=p",
        )
        assert command(*line)[0] == 0
    status, _, error = command("verify", tmp_path / "study", tmp_path / "fresh")
    assert status == 2
    assert "x: its steps are steps as logged, not optimizer updates" in error
