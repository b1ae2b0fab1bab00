"""Offline runs of the real wandb, and the tables that its page exports."""

import json
from pathlib import Path

import pytest

from analysis.importing.wandb import records
from curves.recommendation import read_recommendation
from curves.run_folder import RunFolder
from tests.analysis.make_logs import (
    HPARAMS,
    LR,
    Command,
    together,
    training_losses,
    u_curve,
    write_csv,
    write_wandb,
)

CURVE = u_curve()
TRAINING = training_losses(600, every=1)  # long enough for several blocks of the file


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `wandb` in it has one run, as SimpleTuner logs it."""
    values = together(
        ("train_loss", TRAINING), ("learning_rate", dict.fromkeys(TRAINING, LR)), ("loss/val/pooled", CURVE)
    )
    return write_wandb(
        tmp_path_factory.mktemp("w"), values, {**HPARAMS, "model_type": "lora"}, "a run of mine"
    )


def test_an_offline_run_becomes_a_recommendation(offline: Path, tmp_path: Path, command: Command) -> None:
    assert command("import", "wandb", offline / "wandb", "--to", tmp_path / "old")[0] == 0
    folder = RunFolder(tmp_path / "old" / "a-run-of-mine")
    points = folder.points()
    assert {p.step: p.val_loss for p in points if p.val_loss is not None} == pytest.approx(CURVE)
    assert {p.step: p.train_loss for p in points if p.train_loss is not None} == pytest.approx(TRAINING)
    facts = folder.read_facts()
    assert (facts.cell["method"], facts.cell["resolution"], facts.hyperparameters["lr"]) == ("lora", 512, LR)
    assert command("recommend", tmp_path / "old")[0] == 0
    [cell] = read_recommendation(tmp_path / "old").cells
    assert (cell.status, cell.run, cell.images) == ("ok", "a-run-of-mine", None)
    assert cell.images_seen is None, "nobody said how many images an update takes"


def test_a_run_folder_and_its_file_are_the_same_run(offline: Path, tmp_path: Path, command: Command) -> None:
    [run] = (offline / "wandb").glob("offline-run-*")
    [path] = run.glob("*.wandb")
    for name, source in (("folder", run), ("file", path), ("link", offline / "wandb" / "latest-run")):
        assert command("import", "wandb", source, "--to", tmp_path / name)[0] == 0, name
    curves = {
        (tmp_path / name / "a-run-of-mine" / "curve.jsonl").read_text() for name in ("folder", "file", "link")
    }
    assert len(curves) == 1


def test_steps_come_from_global_step_where_wandb_counts_calls(tmp_path: Path, command: Command) -> None:
    """As sd-scripts logs: a call without a step, the step beside the values, and epochs need no clock."""
    values = []
    for epoch in range(1, 7):
        values += [
            (50 * epoch, {"loss/current": 0.15}),
            (50 * epoch, {"loss/validation/epoch_average": 0.2 / epoch}),
        ]
    write_wandb(
        tmp_path / "w", values, {"network_module": "networks.lora", "network_dim": 8}, "x", step=False
    )
    assert command("import", "wandb", tmp_path / "w", "--to", tmp_path / "old")[0] == 0
    folder = RunFolder(tmp_path / "old" / "x")
    points = {point.step: point.val_loss for point in folder.points()}
    assert points == pytest.approx({50 * epoch: 0.2 / epoch for epoch in range(1, 7)})
    facts = folder.read_facts()
    assert (facts.cell["method"], facts.hyperparameters["rank"]) == ("lora", 8)


def test_a_cut_file_is_read_up_to_the_cut(offline: Path, tmp_path: Path, command: Command) -> None:
    [path] = (offline / "wandb").glob("offline-run-*/*.wandb")
    content = path.read_bytes()
    assert len(content) > 2 * 32 * 1024
    (tmp_path / "cut.wandb").write_bytes(content[: len(content) // 2])
    status, said, _ = command("import", "wandb", tmp_path / "cut.wandb", "--to", tmp_path / "old")
    assert status == 0
    assert "it ends within a record" in said
    steps = [point.step for point in RunFolder(tmp_path / "old" / "a-run-of-mine").points()]
    assert steps == [0, *range(1, steps[-1] + 1)]
    assert 100 < steps[-1] < 600


def test_a_flipped_byte_ends_the_reading_there(offline: Path) -> None:
    [path] = (offline / "wandb").glob("offline-run-*/*.wandb")
    content = bytearray(path.read_bytes())
    whole = len(list(records(bytes(content))))
    content[len(content) // 2] ^= 0xFF
    good = 0
    with pytest.raises(ValueError, match=r"checksum|within a record"):
        for _ in records(bytes(content)):
            good += 1
    assert 0 < good < whole


def test_the_export_of_one_panel_has_a_column_a_run(tmp_path: Path, command: Command) -> None:
    columns = ["Step"]
    for name in ("run - one", "two"):
        columns += [
            f"{name} - loss/val/pooled",
            f"{name} - loss/val/pooled__MIN",
            f"{name} - loss/val/pooled__MAX",
        ]
    rows = [[step, loss, loss, loss, loss + 1 if step < 300 else "", "", ""] for step, loss in CURVE.items()]
    write_csv(tmp_path / "export.csv", columns, rows)
    assert command("import", "wandb", tmp_path / "export.csv", "--to", tmp_path / "old")[0] == 0
    found = {name: RunFolder(tmp_path / "old" / name).points() for name in ("run-one", "two")}
    assert {p.step: p.val_loss for p in found["run-one"]} == CURVE
    assert {p.step: p.val_loss for p in found["two"]} == {s: loss + 1 for s, loss in CURVE.items() if s < 300}


def test_a_run_without_values_is_named(tmp_path: Path, command: Command) -> None:
    write_wandb(tmp_path / "w", [], {}, "empty")
    status, _, error = command("import", "wandb", tmp_path / "w", "--to", tmp_path / "old")
    assert status == 1
    assert "empty: no loss was found" in error
    assert not (tmp_path / "old").exists()


def test_the_source_is_recorded(offline: Path, tmp_path: Path, command: Command) -> None:
    command("import", "wandb", offline, "--to", tmp_path / "old")
    imported = json.loads((tmp_path / "old" / "a-run-of-mine" / "run.json").read_text())["imported"]
    assert (imported["source"], imported["run"], imported["tool"]) == (
        "wandb",
        "a run of mine",
        "SimpleTuner",
    )
    assert imported["tags"]["val_loss"] == "loss/val/pooled"
