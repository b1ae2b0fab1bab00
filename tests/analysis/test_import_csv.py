"""Tables: downloads of TensorBoard, histories of wandb, scripts' own; and the recorded curves of the exam."""

import csv
from pathlib import Path

import pytest

from curves.recommendation import read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_logs import LR, Command, training_losses, u_curve, write_csv, write_val_csv

EXAM = Path(__file__).resolve().parents[2].parent / "shared" / "exam" / "val_curves.csv"
CURVE = u_curve()


def held_out(folder: Path) -> dict[int, float | None]:
    return {point.step: point.val_loss for point in RunFolder(folder).points() if point.val_loss is not None}


def test_downloads_of_tensorboard_are_put_together_by_run(tmp_path: Path, command: Command) -> None:
    """One file a tag; its name says run and tag, with `_` for what a file name cannot hold."""
    columns = ["Wall time", "Step", "Value"]
    for tag, values in (("loss_val_pooled", CURVE), ("train_loss", training_losses(600))):
        rows = [[1.7e9 + step, step, value] for step, value in values.items()]
        write_csv(tmp_path / "t" / f"run-mine-tag-{tag}.csv", columns, rows)
    assert command("import", "csv", tmp_path / "t", "--to", tmp_path / "old")[0] == 0
    assert held_out(tmp_path / "old" / "mine") == CURVE
    assert RunFolder(tmp_path / "old" / "mine").points()[-1].train_loss is not None


def test_a_download_without_its_name_needs_the_tag(tmp_path: Path, command: Command) -> None:
    write_csv(tmp_path / "x.csv", ["Wall time", "Step", "Value"], [[1.7e9, s, v] for s, v in CURVE.items()])
    status, _, error = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    assert status == 1
    assert "x: no loss was found; name it with --val TAG or --train TAG. Tags: Value" in error
    assert command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", "--val", "Value")[0] == 0
    assert held_out(tmp_path / "old" / "x") == CURVE


def test_columns_say_the_run_and_what_is_known_of_it(tmp_path: Path, command: Command) -> None:
    rows = [
        [run, step, loss, lr, images]
        for run, lr, images in (("a", LR, 20), ("b", 2 * LR, 40))
        for step, loss in CURVE.items()
    ]
    write_csv(tmp_path / "all.csv", ["run", "step", "val_loss", "lr", "dataset_size"], rows)
    told = ["dataset=cats", "method=lora", "base_model=sd15", "resolution=512"]
    words = ("import", "csv", tmp_path / "all.csv", "--to", tmp_path / "old", "--set", *told)
    assert command(*words)[0] == 0
    facts = {name: RunFolder(tmp_path / "old" / name).read_facts() for name in ("a", "b")}
    assert {name: (fact.cell["images"], fact.hyperparameters["lr"]) for name, fact in facts.items()} == {
        "a": (20, LR),
        "b": (40, 2 * LR),
    }
    assert RunFolder(tmp_path / "old" / "b").points()[-1].lr_sum == pytest.approx(600 * 2 * LR)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_delimiters_and_a_byte_order_mark(tmp_path: Path, command: Command, delimiter: str) -> None:
    lines = [delimiter.join(["", "_step", "val/loss"])]
    lines += [
        delimiter.join([str(row), str(step), str(loss)]) for row, (step, loss) in enumerate(CURVE.items())
    ]
    (tmp_path / "x.csv").write_text("\ufeff" + "\n".join(lines), encoding="utf-8")
    assert command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")[0] == 0
    assert held_out(tmp_path / "old" / "x") == CURVE


def test_only_some_runs(tmp_path: Path, command: Command) -> None:
    rows = [[run, step, loss] for run in ("lr/1", "lr/2", "n/1") for step, loss in CURVE.items()]
    write_csv(tmp_path / "x.csv", ["run", "step", "val"], rows)
    assert command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", "--only", "lr/*")[0] == 0
    assert sorted(path.name for path in (tmp_path / "old").iterdir()) == ["lr-1", "lr-2"]
    status, _, error = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", "--only", "m/*")
    assert status == 2
    assert "there are 3: lr/1, lr/2, n/1" in error


def test_training_loss_alone_gets_an_honest_answer(tmp_path: Path, command: Command) -> None:
    write_val_csv(tmp_path / "x.csv", training_losses(2000), "loss")
    status, said, _ = command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    assert status == 0
    assert "training loss alone, which cannot show a minimum" in said
    status, said, _ = command("recommend", tmp_path / "old")
    [cell] = read_recommendation(tmp_path / "old").cells
    assert (status, cell.status, cell.recommended_steps, cell.minimum, cell.gain) == (
        0,
        "refused",
        None,
        None,
        None,
    )
    assert "cannot show a minimum" in cell.reason
    assert "2000 steps, 200 values" in cell.reason
    assert "no clear change" in cell.reason, "0.02 within a scatter of 0.05 over 40 values each"
    assert command("report", tmp_path / "old")[0] == 0


def test_a_clear_fall_of_the_training_loss_is_still_no_minimum(tmp_path: Path, command: Command) -> None:
    write_val_csv(tmp_path / "x.csv", {step: 0.2 - 1e-4 * step for step in range(1, 1000)}, "train_loss")
    command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    command("recommend", tmp_path / "old")
    [cell] = read_recommendation(tmp_path / "old").cells
    assert cell.status == "refused"
    assert "a clear change" in cell.reason


def test_without_the_base_the_gain_is_not_claimed(tmp_path: Path, command: Command) -> None:
    without = {step: loss for step, loss in CURVE.items() if step >= 20}
    write_val_csv(tmp_path / "x.csv", without)
    words = ("import", "csv", tmp_path / "x.csv", "--steps-per-update", 1, "--to")
    _, said, _ = command(*words, tmp_path / "old")
    assert "no held-out loss at step 0" in said
    command("recommend", tmp_path / "old")
    [cell] = read_recommendation(tmp_path / "old").cells
    assert cell.gain is None
    assert "the base was not measured at step 0" in cell.reason
    assert command(*words, tmp_path / "told", "--set", f"base_loss={CURVE[0]}")[0] == 0
    command("recommend", tmp_path / "told")
    [told] = read_recommendation(tmp_path / "told").cells
    assert told.status == "ok"
    assert told.gain == pytest.approx(CURVE[0] - min(CURVE.values()), rel=0.1)
    assert "step 0" not in told.reason


def test_a_curve_that_only_rises_without_a_base_is_no_verdict_on_the_base(
    tmp_path: Path, command: Command
) -> None:
    write_val_csv(tmp_path / "x.csv", {step: 0.2 + 1e-5 * step for step in range(100, 2000, 100)})
    command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old")
    command("recommend", tmp_path / "old")
    [cell] = read_recommendation(tmp_path / "old").cells
    assert cell.status == "refused"
    assert "whether anything is gained is not known" in cell.reason


def test_time_is_counted_in_steps_where_the_learning_rate_is_not_known(
    tmp_path: Path, command: Command
) -> None:
    """A constant rate scales the intrinsic time and nothing else: the answers agree."""
    write_val_csv(tmp_path / "x.csv", CURVE)
    found = []
    for name, told in (("without", ["seed=1"]), ("with", [f"lr={LR}"])):
        command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / name, "--set", *told)
        command("recommend", tmp_path / name)
        found.append(read_recommendation(tmp_path / name).cells[0])
    assert [cell.status for cell in found] == ["ok", "ok"]
    assert found[0].minimum == pytest.approx(found[1].minimum, rel=0.02)
    assert "lr" not in found[0].hyperparameters


@pytest.mark.skipif(not EXAM.is_file(), reason="the recorded curves are not beside the project")
def test_the_recorded_curves_arrive_whole(tmp_path: Path, command: Command) -> None:
    assert command("import", "csv", EXAM, "--to", tmp_path / "old")[0] == 0
    with EXAM.open() as file:
        recorded = list(csv.DictReader(file))
    found = {}
    for folder in (tmp_path / "old").iterdir():
        points = RunFolder(folder).points()
        name = RunFolder(folder).read_facts().extra["imported"]["run"]
        found |= {(name, point.step): (point.val_loss, point.train_panel_loss) for point in points}
    assert found == {
        (row["run"], int(row["step"])): (
            float(row["val"]),
            float(row["train_probe"]) if row["train_probe"] else None,
        )
        for row in recorded
    }
    status, said, _ = command("recommend", tmp_path / "old")
    assert status == 0
    assert said.count("batch_size-1:") == 1


def test_epochs_in_a_download_have_no_steps(tmp_path: Path, command: Command) -> None:
    """One file a tag: nothing says which training step an epoch ended at, and epochs are never taken for steps."""
    columns = ["Wall time", "Step", "Value"]
    for tag, steps in (("loss_current", range(1, 301)), ("loss_validation_epoch_average", range(1, 7))):
        write_csv(tmp_path / "t" / f"run-r-tag-{tag}.csv", columns, [[0.0, step, 0.2] for step in steps])
    status, _, error = command("import", "csv", tmp_path / "t", "--to", tmp_path / "old")
    assert status == 1
    assert "loss_validation_epoch_average counts epochs, and nothing in the log says at which steps" in error


@pytest.mark.parametrize(
    ("words", "unit"), [([], "steps as logged"), (["--steps-per-update", "1"], "updates")]
)
def test_the_calls_that_wandb_counts_are_not_taken_for_updates(
    tmp_path: Path, command: Command, words, unit
) -> None:
    """sd-scripts gives wandb no step: the page's `Step` counts calls, the validation's among them."""
    rows = [[step, loss] for step, loss in CURVE.items()]
    write_csv(tmp_path / "x.csv", ["Step", "r - loss/validation/step_average"], rows)
    assert command("import", "csv", tmp_path / "x.csv", "--to", tmp_path / "old", *words)[0] == 0
    assert RunFolder(tmp_path / "old" / "r").read_facts().extra["imported"]["steps"] == unit
