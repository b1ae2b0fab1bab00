"""Event files of the real writer, with the tags of every known trainer, become runs."""

import json
from pathlib import Path
import subprocess
import sys

import pytest

from analysis.load import load_study
from curves.recommendation import read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_logs import HPARAMS, LR, Command, together, training_losses, u_curve, write_events
from tests.analysis.make_runs import Spec, true_minimum

ROOT = Path(__file__).resolve().parents[2]
CURVE = u_curve()
TRAINING = training_losses(600)
RATE = dict.fromkeys(TRAINING, LR)


def imported(folder: RunFolder) -> dict[str, object]:
    found: dict[str, object] = json.loads(folder.run.read_text())["imported"]
    return found


def test_a_log_becomes_a_recommendation_and_a_report(tmp_path: Path) -> None:
    values = together(("train_loss", TRAINING), ("learning_rate", RATE), ("loss/val/pooled", CURVE))
    write_events(tmp_path / "logs" / "cats", values, HPARAMS)
    told = ["dataset=cats", "dataset_size=20", "method=lora", "panel=ours", "batch=4"]
    lines = [
        ["import", "tensorboard", "logs", "--to", "old", "--set", *told],
        ["recommend", "old"],
        ["report", "old"],
        ["replay", "old"],
    ]
    for words in lines:
        done = subprocess.run(
            [sys.executable, "-m", "analysis", *words],
            cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), words
    [cell] = read_recommendation(tmp_path / "old").cells
    assert (cell.status, cell.run, cell.images, cell.resolution) == ("ok", None, 20, 512)
    assert cell.minimum is not None
    assert cell.minimum["low"] <= true_minimum(Spec(lr=LR)) <= cell.minimum["high"]
    assert cell.hyperparameters["lr"] == LR
    assert cell.images_seen == 4 * (cell.recommended_steps or 0)
    report = (tmp_path / "old" / "analysis" / "report.md").read_text()
    assert "at 512 px on 20 images with lora" in report
    assert "python train.py" not in report, "what another tool trained is not trained again by ours"


def test_values_steps_and_settings_arrive_as_they_were_logged(tmp_path: Path, command: Command) -> None:
    values = together(("train_loss", TRAINING), ("learning_rate", RATE), ("loss/val/pooled", CURVE))
    write_events(tmp_path / "logs", values, HPARAMS)
    assert command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")[0] == 0
    folder = RunFolder(tmp_path / "old" / "logs")
    points = folder.points()
    assert {p.step: p.val_loss for p in points if p.val_loss is not None} == pytest.approx(CURVE, rel=1e-6)
    assert {p.step: p.train_loss for p in points if p.train_loss is not None} == pytest.approx(
        TRAINING, rel=1e-6
    )
    assert points[-1].delta == pytest.approx(CURVE[600] - CURVE[0], rel=1e-3)
    assert points[-1].lr_sum == pytest.approx(600 * LR, rel=1e-3)
    facts = folder.read_facts()
    assert facts.cell["base_model"] == HPARAMS["pretrained_model_name_or_path"]
    assert (facts.cell["resolution"], facts.seed, facts.horizon) == (512, 7, 600)
    assert (facts.cell["images"], facts.cell["method"]) == (None, None)
    assert folder.outcome() == "complete"


@pytest.mark.parametrize(
    ("tool", "held_out", "training", "rate", "unit"),
    [
        ("sd-scripts", "loss/validation/step_average", "loss/current", "lr/unet", "updates"),
        ("SimpleTuner", "loss/val/cats", "train_loss", "learning_rate", "updates"),
        ("OneTrainer", "loss/validation_step/cats", "loss/train_step", "lr/unet", "micro-steps"),
        ("spacepxl", "test/val", "loss/train", None, "images"),
        ("diffusers", "val_loss", "train_loss", "lr", "updates"),
        ("unknown", "eval/loss", "train/loss", "train/learning_rate", "steps as logged"),
    ],
)
def test_tags_of_known_trainers_are_found(
    tmp_path: Path, command: Command, tool, held_out, training, rate, unit
) -> None:
    tags = [(training, TRAINING), (held_out, CURVE)] + ([(rate, RATE)] if rate else [])
    write_events(tmp_path / "logs", together(*tags))
    assert command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")[0] == 0
    found = imported(RunFolder(tmp_path / "old" / "logs"))
    assert (found["tool"], found["steps"]) == (tool, unit)
    expected = {"val_loss": held_out, "train_loss": training, **({"lr": rate} if rate else {})}
    assert found["tags"] == expected


def test_neighbours_of_the_held_out_loss_are_not_taken_for_it(tmp_path: Path, command: Command) -> None:
    others = dict.fromkeys(CURVE, 9.0)
    tags = [
        ("loss/validation/step_divergence", others),
        ("loss/validation/epoch_divergence", others),
        ("loss/average", TRAINING),
        ("loss/current", TRAINING),
        ("lr/d*lr/unet", dict.fromkeys(TRAINING, 5.0)),
        ("lr/textencoder", dict.fromkeys(TRAINING, 5e-5)),
        ("lr/unet", RATE),
        ("loss/validation/step_average", CURVE),
    ]
    write_events(tmp_path / "logs", together(*tags))
    assert command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")[0] == 0
    assert imported(RunFolder(tmp_path / "old" / "logs"))["tags"] == {
        "val_loss": "loss/validation/step_average",
        "train_loss": "loss/current",
        "lr": "lr/unet",
    }


def test_epochs_of_sd_scripts_are_put_at_their_steps(tmp_path: Path, command: Command) -> None:
    """Its TensorBoard log has an epoch's number as the step of what it measures after an epoch."""
    values = []
    for epoch in range(1, 7):
        values += [(step, {"loss/current": 0.15}) for step in range(50 * (epoch - 1) + 1, 50 * epoch + 1)]
        values += [(epoch, {"loss/validation/epoch_average": 0.2 - 0.001 * epoch})]
    write_events(tmp_path / "logs", values)
    status, said, _ = command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")
    points = RunFolder(tmp_path / "old" / "logs").points()
    assert [point.step for point in points if point.val_loss is not None] == [50, 100, 150, 200, 250, 300]
    assert status == 0
    assert "counts epochs" in said


def test_micro_steps_become_updates(tmp_path: Path, command: Command) -> None:
    """OneTrainer logs the first batch as step 0: after its logged step 39 there were 40 batches, 10 updates of 4."""
    values = [(step, {"loss/train_step": float(step)}) for step in range(3, 40, 4)]
    values += [(39, {"loss/validation_step/cats": 0.2})]
    write_events(tmp_path / "logs", values)
    words = ("import", "tensorboard", tmp_path / "logs", "--to")
    assert command(*words, tmp_path / "four", "--steps-per-update", "4")[0] == 0
    points = RunFolder(tmp_path / "four" / "logs").points()
    assert [(point.step, point.train_loss) for point in points] == [(n, 4.0 * n - 1) for n in range(1, 11)]
    assert points[-1].val_loss == pytest.approx(0.2)
    assert imported(RunFolder(tmp_path / "four" / "logs"))["steps"] == "updates"
    status, said, _ = command(*words, tmp_path / "unknown")
    assert status == 0
    assert "OneTrainer counts micro-steps" in said
    assert "--steps-per-update" in said


def test_a_restart_replaces_what_it_repeats(tmp_path: Path, command: Command) -> None:
    """Two event files in one folder, the second from a checkpoint at step 100 of the first."""
    first = [(step, {"val_loss": 1.0}) for step in range(0, 200, 20)]
    second = [(step, {"val_loss": 2.0}) for step in range(120, 160, 20)]
    write_events(tmp_path / "logs", first)
    write_events(tmp_path / "logs", second)
    status, said, _ = command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")
    points = RunFolder(tmp_path / "old" / "logs").points()
    assert [(p.step, p.val_loss) for p in points] == [(s, 1.0) for s in range(0, 120, 20)] + [
        (120, 2.0),
        (140, 2.0),
    ]
    assert status == 0
    assert "4 records replaced by a restart" in said


def test_every_folder_is_a_run_and_a_cell_of_its_own(tmp_path: Path, command: Command) -> None:
    for name in ("a", "b/c"):
        write_events(tmp_path / "logs" / name, together(("val_loss", CURVE)), HPARAMS)
    assert command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")[0] == 0
    study = load_study(tmp_path / "old")
    assert [[run.name for run in cell.runs] for cell in study.cells] == [["a"], ["b-c"]]
    status, said, _ = command("recommend", tmp_path / "old")
    assert status == 0
    assert "not used for the law across dataset sizes, dataset, method, images not known: a, b-c" in " ".join(
        said.split()
    )


def test_a_cut_file_is_read_up_to_the_cut_and_said(tmp_path: Path, command: Command) -> None:
    folder = write_events(tmp_path / "logs", together(("val_loss", CURVE)))
    [path] = folder.glob("*tfevents*")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    status, said, _ = command("import", "tensorboard", tmp_path / "logs", "--to", tmp_path / "old")
    assert status == 0
    assert "damaged or cut" in said
    assert 10 < len(RunFolder(tmp_path / "old" / "logs").points()) < len(CURVE)


def test_without_the_reader_the_extra_is_named(tmp_path: Path) -> None:
    write_events(tmp_path / "logs", together(("val_loss", CURVE)))
    program = (
        "import sys; sys.modules['tensorboard'] = None\n"
        "from analysis.__main__ import main\n"
        "sys.exit(main(['import', 'tensorboard', 'logs', '--to', 'old']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "pip install 'stepbudget[tensorboard]'" in done.stderr
    assert "Traceback" not in done.stderr
