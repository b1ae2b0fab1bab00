"""Whole runs inside of this process: exactness, resuming, endings, and the files they leave."""

from collections.abc import Callable
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

from accelerate import Accelerator
import psutil
import pytest
import torch

from conf.errors import RequestError, WorkError
from curves.recommendation import CellAnswer, Recommendation, write_recommendation
from curves.run_folder import RunFolder
from finetune.backbone import Backbone
from finetune.setup import Run
from finetune.trained import trainable_parameters
from tests.finetune.runs import equal, losses, stop_at, weights
from tests.finetune.tiny_pipeline import make_images, make_pipeline, read_curve
from tests.sweep.harness import ROOT, wait_until
import train

Train = Callable[..., int]
METHODS = ["method=lora", "method=text_to_image"]


def test_a_run_leaves_every_file_of_the_contract(run_train: Train, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    overrides = ["budget.max_steps=6", "samples.count=2", "samples.inference_steps=2", "samples.first_step=3"]
    assert run_train(folder.path, *overrides, "seed=3", "optimizer.lr=1e-3") == 0
    points = folder.points()
    assert [point.step for point in points] == [0, 4, 5, 6]
    for point in points:
        assert point.images_seen == 2 * point.step
        assert point.lr_sum == pytest.approx(1e-3 * point.step)
        assert point.image_loss is not None
        assert len(point.image_loss) == 8
        assert point.bins is not None
        assert len(point.bins) == 2
        assert point.train_panel_loss is not None
    assert points[0].train_loss is None
    assert points[1].train_loss is not None
    facts, status = folder.read_facts(), folder.read_status()
    assert facts.cell["images"] == facts.images == 4
    assert (facts.cell["resolution"], facts.cell["method"], facts.cell["captions"]) == (32, "lora", "file")
    assert (facts.hyperparameters["lr"], facts.hyperparameters["batch"], facts.hyperparameters["rank"]) == (
        1e-3,
        2,
        8,
    )
    assert (facts.horizon, facts.seed, facts.trial, facts.study) == (6, 3, None, None)
    assert facts.horizon_lr_sum == pytest.approx(6e-3)
    assert status is not None
    assert (status.state, status.outcome, status.step, status.max_steps) == ("ended", "complete", 6, 6)
    panel = json.loads(folder.panel.read_text())
    assert {point.panel for point in points} == {panel["name"], facts.panel}
    assert sorted(path.name for path in folder.samples.iterdir()) == [
        "likeness.jsonl",
        "prompts.json",
        *(f"step-{step:06d}-{index}.png" for step in (0, 3, 6) for index in (0, 1)),
    ]
    assert "seed=3" in folder.overrides.read_text()
    assert "max_steps: 6" in folder.config.read_text()
    assert [path.name for path in folder.checkpoints.iterdir()] == ["last"]  # so that it can be lengthened


@pytest.mark.parametrize("method", METHODS)
def test_evaluating_and_sampling_leave_the_weights_bit_identical(
    run_train: Train, tmp_path: Path, method: str
) -> None:
    dropout = ["captions.dropout=0.3", *(["method.dropout=0.3"] if method == "method=lora" else [])]
    common = [method, "budget.max_steps=6", "checkpoints.final=last", *dropout]
    run_train(tmp_path / "plain", *common, "evaluation.enabled=false")
    run_train(
        tmp_path / "watched", *common, "samples.count=2", "samples.inference_steps=2", "samples.first_step=1"
    )
    assert equal(weights(tmp_path / "plain"), weights(tmp_path / "watched"))
    assert [point["step"] for point in read_curve(tmp_path / "plain")] == [0, 4, 5, 6]


@pytest.mark.parametrize("method", METHODS)
def test_the_same_seed_gives_the_same_curve_and_another_one_another(
    run_train: Train, tmp_path: Path, method: str
) -> None:
    for name, seed in (("first", 1), ("second", 1), ("third", 2)):
        run_train(tmp_path / name, method, "budget.max_steps=5", f"seed={seed}")
    assert read_curve(tmp_path / "first") == read_curve(tmp_path / "second")
    assert equal(weights(tmp_path / "first"), weights(tmp_path / "second"))
    assert losses(tmp_path / "first")[-1] != losses(tmp_path / "third")[-1]


def test_step_zero_is_the_base_whatever_is_trained_and_how(run_train: Train, tmp_path: Path) -> None:
    variants = [
        [],
        ["seed=7"],
        ["method=text_to_image"],
        ["method.rank=2", "method.dropout=0.5", "method.targets=attention"],
        ["dataset_size=n8", "optimizer.batch_size=4"],
        ["evaluation.batch_size=3"],
        ["optimizer.lr=0.01", "optimizer.accumulation=2"],
    ]
    values, panels = [], set()
    for index, variant in enumerate(variants):
        run_train(tmp_path / str(index), "budget.max_steps=1", *variant)
        start = read_curve(tmp_path / str(index))[0]
        values.append(start["val_loss"])
        panels.add(start["panel"])
    assert max(values) - min(values) < 1e-6
    assert len(panels) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        ["method=lora", "method.dropout=0.3", "captions.dropout=0.4"],
        ["method=text_to_image", "optimizer.schedule=cosine", "optimizer.warmup_steps=2"],
        ["method=lora", "optimizer.accumulation=2", "stopping=patience"],
        # So fast at its end that the best weights are from before the pause, and that the rule stops the run at step 8.
        [
            "method=text_to_image",
            "optimizer.ema_decay=0.9",
            "optimizer.lr=0.1",
            "optimizer.warmup_steps=11",
            "stopping=patience",
            "stopping.parameters.patience=1",
        ],
    ],
)
def test_six_and_six_steps_equal_twelve_bit_for_bit(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    common = [*options, "budget.max_steps=12", "evaluation.first_step=5", "evaluation.ratio=1.6"]
    assert run_train(tmp_path / "whole", *common) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 6, lambda run: run.folder.request_stop("preempted", "a test"))
        assert run_train(tmp_path / "parts", *common) == 1
    folder = RunFolder(tmp_path / "parts")
    status = folder.read_status()
    assert status is not None
    assert (status.outcome, status.step, status.reason) == ("preempted", 6, "a test")
    assert not list(folder.path.glob("*.safetensors"))
    # Points that a killed process wrote after its last checkpoint are cut and written anew.
    with folder.curve.open("a") as file:
        file.write('{"step":9,"val_loss":0.0}\n{"step":10,"val')
    assert run_train(tmp_path / "parts", *common) == 0
    assert read_curve(tmp_path / "parts") == read_curve(tmp_path / "whole")
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("often", "reached"), [("checkpoints.every=3", 6), ("checkpoints.every_s=0.000001", 7)]
)
def test_regular_checkpoints_carry_a_killed_run_on(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, often: str, reached: int
) -> None:
    common = ["budget.max_steps=9", often]
    assert run_train(tmp_path / "whole", *common) == 0

    class Killed(BaseException):
        pass

    def kill(run: Run) -> None:
        run.status._ended.set()  # a killed process has no heartbeat
        raise Killed

    with monkeypatch.context() as patch:
        stop_at(patch, 8, kill)
        with pytest.raises(Killed):
            run_train(tmp_path / "parts", *common)
    state = json.loads((RunFolder(tmp_path / "parts").checkpoints / "last" / "state.json").read_text())
    assert state["step"] == reached
    assert run_train(tmp_path / "parts", *common) == 0
    assert read_curve(tmp_path / "parts") == read_curve(tmp_path / "whole")
    assert equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_accumulated_batches_equal_one_big_batch(run_train: Train, tmp_path: Path) -> None:
    common = ["budget.max_steps=4", "checkpoints.final=last", "method=text_to_image"]
    run_train(tmp_path / "big", *common, "optimizer.batch_size=4")
    run_train(tmp_path / "small", *common, "optimizer.batch_size=2", "optimizer.accumulation=2")
    run_train(tmp_path / "single", *common, "optimizer.batch_size=1", "optimizer.accumulation=4")
    for name in ("small", "single"):
        for big, other in zip(read_curve(tmp_path / "big"), read_curve(tmp_path / name), strict=True):
            assert other["images_seen"] == big["images_seen"]
            assert other["val_loss"] == pytest.approx(big["val_loss"], rel=1e-4)
        big_losses, other_losses = (
            [point["train_loss"] for point in read_curve(tmp_path / run)[1:]] for run in ("big", name)
        )
        assert other_losses == pytest.approx(big_losses, rel=1e-4)


def test_the_gradient_of_accumulated_batches_has_the_size_of_one_big_batch(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[float] = []
    clip = Accelerator.clip_grad_norm_

    def recording(self: Accelerator, *arguments: Any) -> Any:
        norm = clip(self, *arguments)
        norms.append(float(norm))
        return norm

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", recording)
    for batch, accumulation in ((4, 1), (2, 2), (1, 4)):
        options = [f"optimizer.batch_size={batch}", f"optimizer.accumulation={accumulation}"]
        run_train(tmp_path / str(batch), "budget.max_steps=1", "method=text_to_image", *options)
    assert len(norms) == 3 and norms[0] > 0
    assert norms[1:] == pytest.approx([norms[0]] * 2, rel=1e-4)


@pytest.mark.parametrize("overflows", [2, 1000])
def test_overflowing_gradients_are_computed_again(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflows: int
) -> None:
    skipped = iter([True] * overflows + [False] * 1000)
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", property(lambda _: next(skipped)))
    folder = RunFolder(tmp_path / "run")
    assert run_train(folder.path, "budget.max_steps=4") == (0 if overflows == 2 else 1)
    assert folder.outcome() == ("complete" if overflows == 2 else "diverged")


@pytest.mark.parametrize("outcome", ["pruned", "stopped"])
def test_a_stop_file_ends_the_run_at_the_next_step(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    stop_at(monkeypatch, 3, lambda run: run.folder.request_stop(outcome, "enough"))
    folder = RunFolder(tmp_path / "run")
    options = ["budget.max_steps=20", "checkpoints.resumable=false"]
    assert run_train(folder.path, *options) == 0
    assert folder.outcome() == outcome
    assert folder.adapter("best").exists()
    assert [point.step for point in folder.points()] == ([0] if outcome == "pruned" else [0, 3])
    with pytest.raises(RequestError, match=rf"holds a finished run \({outcome}\)"):
        run_train(folder.path, *options)
    assert folder.outcome() == outcome


def test_a_stop_file_of_an_earlier_life_is_not_obeyed_again(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(patch, 2, lambda run: run.folder.request_stop("preempted", "a test"))
        assert run_train(folder.path, "budget.max_steps=4") == 1
    assert folder.stop_request.exists()
    assert run_train(folder.path, "budget.max_steps=4") == 0
    assert folder.outcome() == "complete"


def test_a_stop_rule_ends_the_run_with_its_reason(run_train: Train, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    overrides = [
        "budget.max_steps=40",
        "optimizer.lr=0.05",
        "stopping=patience",
        "stopping.parameters.patience=2",
    ]
    assert run_train(folder.path, *overrides) == 0
    status, points = folder.read_status(), folder.points()
    assert status is not None
    assert status.outcome == "stopped"
    assert "no new best in 2 evaluations" in status.reason
    assert points[-1].step == status.step < 40


def test_best_and_last_weights_are_what_they_say(run_train: Train, tmp_path: Path) -> None:
    common = ["budget.max_steps=5", "optimizer.lr=0.2", "method=text_to_image"]
    run_train(tmp_path / "best", *common, "checkpoints.final=best")
    run_train(tmp_path / "last", *common, "checkpoints.final=last")
    points = RunFolder(tmp_path / "best").points()
    best = min(points, key=lambda point: point.val_loss or 0.0)
    assert best.step < points[-1].step, "this test needs a run whose last step is not its best"
    written = json.loads((RunFolder(tmp_path / "best").model("best") / "stepbudget.json").read_text())
    assert written["steps"] == str(best.step)
    assert not equal(weights(tmp_path / "best"), weights(tmp_path / "last"))


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spoil(run: Run) -> None:
        for parameter in trainable_parameters(run.trained).values():
            parameter.data.fill_(float("nan"))

    stop_at(monkeypatch, 2, spoil)
    folder = RunFolder(tmp_path / "run")
    assert run_train(folder.path, "budget.max_steps=20") == 1
    status = folder.read_status()
    assert status is not None
    assert (status.outcome, status.step) == ("diverged", 3)
    assert "lower optimizer.lr" in capsys.readouterr().err
    assert folder.points()[-1].extra == {"diverged": True}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
    ],
)
def test_running_out_of_memory_is_told_apart(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    def fail(_: Run) -> None:
        raise error

    stop_at(monkeypatch, 2, fail)
    with pytest.raises(WorkError, match=r"lower optimizer\.batch_size"):
        run_train(tmp_path / "run", "budget.max_steps=20")
    assert RunFolder(tmp_path / "run").outcome() == outcome


def test_a_crash_is_recorded_and_the_next_start_begins_anew(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Run) -> None:
        raise ValueError("a bug")

    folder = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patch:
        stop_at(patch, 5, fail)
        with pytest.raises(ValueError, match="a bug"):
            run_train(folder.path, "budget.max_steps=6")
    status = folder.read_status()
    assert status is not None
    assert (status.outcome, status.reason) == ("crashed", "ValueError: a bug")
    assert "in fail" in folder.log.read_text(encoding="utf-8")  # the traceback stays
    assert [point.step for point in folder.points()] == [0, 4]
    assert run_train(folder.path, "budget.max_steps=6") == 0
    assert [line["step"] for line in read_curve(folder.path)] == [0, 4, 5, 6]


def test_sigterm_leaves_a_training_state(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, lambda _: signal.raise_signal(signal.SIGTERM))
    folder = RunFolder(tmp_path / "run")
    assert run_train(folder.path, "budget.max_steps=20") == 1
    status = folder.read_status()
    assert status is not None
    assert (status.outcome, status.step, status.reason) == ("preempted", 2, "asked to end by SIGTERM")
    assert (folder.checkpoints / "last").is_dir()


def test_sigterm_while_encoding_ends_before_training(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = Backbone.encode_image, []

    def encoding(self: Backbone, pixels: torch.Tensor) -> Any:
        encoded.append(signal.raise_signal(signal.SIGTERM))
        return encode(self, pixels)

    monkeypatch.setattr(Backbone, "encode_image", encoding)
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(WorkError, match="asked to end by SIGTERM"):
        run_train(folder.path, "budget.max_steps=20", f"cache_dir={tmp_path / 'cache'}")
    assert (folder.outcome(), len(encoded)) == ("preempted", 1)
    monkeypatch.undo()
    assert run_train(folder.path, "budget.max_steps=4", f"cache_dir={tmp_path / 'cache'}") == 0


@pytest.mark.parametrize("key", ["run_dir", "cache_dir"])
def test_places_that_cannot_be_written_are_named(run_train: Train, tmp_path: Path, key: str) -> None:
    taken = tmp_path / "file"
    taken.write_text("not a folder")
    for place in (taken, taken / "below"):
        with pytest.raises(RequestError, match=f"{key}={place}: cannot be .*choose another folder"):
            run_train(tmp_path / "run", "budget.max_steps=4", f"{key}={place}")
    assert taken.read_text() == "not a folder"


def test_an_image_whose_name_is_not_utf8_trains(run_train: Train, tmp_path: Path) -> None:
    photos = make_images(tmp_path / "photos", 12)
    for suffix in (".png", ".txt"):
        name = os.fsdecode(b"caf\xe9") + suffix
        (photos / f"image-000{suffix}").rename(photos / name)
    folder = RunFolder(tmp_path / "run")
    assert run_train(folder.path, "budget.max_steps=4", f"dataset.path={photos}") == 0
    (photos / (os.fsdecode(b"caf\xe9") + ".txt")).write_text("")
    with pytest.raises(RequestError, match=r"caption .* that is empty"):
        run_train(tmp_path / "other", "budget.max_steps=4", f"dataset.path={photos}")
    status = RunFolder(tmp_path / "other").read_status()
    assert status is not None and status.outcome == "config_error"


def test_every_prompt_that_is_given_is_drawn(run_train: Train, tmp_path: Path) -> None:
    overrides = ["samples.prompts=[a,b,c,d,e,f]", "samples.count=1", "samples.inference_steps=1"]
    assert run_train(tmp_path / "run", "budget.max_steps=2", *overrides) == 0
    assert len(list((tmp_path / "run" / "samples").glob("step-000000-*.png"))) == 6


def test_a_training_state_of_another_configuration_is_refused(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(monkeypatch, 2, lambda run: run.folder.request_stop("preempted", "a test"))
    folder = RunFolder(tmp_path / "run")
    assert run_train(folder.path, "budget.max_steps=4", "optimizer.lr=0.001") == 1
    with pytest.raises(
        RequestError, match=r"unfinished run with optimizer\.lr=0\.001, asked for now is 0\.002"
    ):
        run_train(folder.path, "budget.max_steps=4", "optimizer.lr=0.002")
    assert (folder.checkpoints / "last").is_dir()
    assert run_train(folder.path, "budget.max_steps=4", "optimizer.lr=0.001") == 0


def test_a_damaged_training_state_says_what_to_do(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 2, lambda run: run.folder.request_stop("preempted", "a test"))
        run_train(tmp_path / "run", "budget.max_steps=4")
    (tmp_path / "run" / "checkpoints" / "last" / "optimizer.pt").write_bytes(b"torn")
    with pytest.raises(WorkError, match=r"the checkpoint is damaged .* delete it to start the run anew"):
        run_train(tmp_path / "run", "budget.max_steps=4")


def test_velocity_prediction_with_zero_terminal_signal_trains(run_train: Train, tmp_path: Path) -> None:
    base = make_pipeline(tmp_path / "v", prediction="v_prediction")
    overrides = ["budget.max_steps=12", "samples.count=1", "samples.inference_steps=2", "optimizer.lr=0.01"]
    assert run_train(tmp_path / "run", f"base_model.path={base}", *overrides) == 0
    values = losses(tmp_path / "run")
    assert values[-1] < values[0]


def test_dropout_is_off_while_evaluating(run_train: Train, tmp_path: Path) -> None:
    values = []
    for dropout in (0.0, 0.5):
        base = make_pipeline(tmp_path / f"base-{dropout}", dropout=dropout)
        overrides = [f"base_model.path={base}", "method=text_to_image", "budget.max_steps=1"]
        run_train(tmp_path / f"run-{dropout}", *overrides)
        values.append(losses(tmp_path / f"run-{dropout}"))
    assert values[0][0] == pytest.approx(values[1][0], abs=1e-6)
    assert values[0][1] != values[1][1]


def test_other_sizes_and_low_memory_train(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", "resolution.pixels=40", "memory=low", "budget.max_steps=2") == 0
    facts = RunFolder(tmp_path / "run").read_facts()
    assert facts.cell["resolution"] == 40
    start, end = losses(tmp_path / "run")
    assert start != end
    assert json.loads((tmp_path / "run" / "panel.json").read_text())["dtype"] == "bfloat16"


def test_an_offline_tracker_writes_inside_of_the_run_folder(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    overrides = ["tracker=wandb", "tracker.mode=offline", "samples.count=1", "samples.inference_steps=1"]
    assert run_train(tmp_path / "run", "budget.max_steps=2", *overrides) == 0
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))


@pytest.mark.long
def test_a_tracker_that_dies_costs_the_run_nothing(base_overrides: list[str], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    wanted = [f"run_dir={folder.path}", "budget.max_steps=100000", "tracker=wandb", "tracker.mode=offline"]
    command = [sys.executable, str(ROOT / "train.py"), *base_overrides, *wanted]
    # Without the address of the service that an earlier test may have started in this process.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, stderr=output, env=environment)
    try:
        wait_until(lambda: len(folder.points()) > 2, "three evaluations")
        trackers = [
            item for item in psutil.Process(process.pid).children(recursive=True) if "wandb" in item.name()
        ]
        assert trackers
        for tracker in trackers:
            tracker.kill()
        seen = len(folder.points())
        wait_until(lambda: len(folder.points()) > seen + 1, "two more evaluations")
        folder.request_stop("stopped", "enough")
        status = process.wait(timeout=120)
    finally:
        process.kill()
        process.wait()
    said = (tmp_path / "output").read_text(encoding="utf-8")
    assert status == 0, said
    assert said.count("wandb failed") == 1
    assert folder.outcome() == "stopped"


def test_a_recommended_budget_trains_as_the_matching_cell_says(
    run_train: Train, base_overrides: list[str], tmp_path: Path
) -> None:
    run_train(tmp_path / "study" / "trials" / "0", "budget.max_steps=1")
    facts = RunFolder(tmp_path / "study" / "trials" / "0").read_facts()
    hyperparameters = {**facts.hyperparameters, "lr": 2e-3, "rank": 3, "schedule": "linear", "horizon": 20}
    cell = CellAnswer(**facts.cell, hyperparameters=hyperparameters, status="ok", recommended_steps=5)
    path = tmp_path / "study" / "analysis" / "recommendation.json"
    write_recommendation(path, Recommendation("study", [cell]))
    free = [item for item in base_overrides if not item.startswith("optimizer.")]
    wanted = ["budget=recommended", f"budget.study={tmp_path / 'study'}", f"run_dir={tmp_path / 'run'}"]
    assert train.run([*free, *wanted]) == 0
    points, made = RunFolder(tmp_path / "run").points(), RunFolder(tmp_path / "run").read_facts()
    # The steps are those of a schedule over 20 steps: a shorter schedule would be another one.
    assert [points[-1].step, made.horizon] == [5, 20]
    assert points[-1].lr == pytest.approx(2e-3 * 16 / 20)
    assert made.hyperparameters == hyperparameters
    assert made.extra["recommended_by"] == str(tmp_path / "study")
    with pytest.raises(RequestError, match=r"no cell for lora, 8 images, 32 px.*nearest: \[lora, 4 images"):
        train.run([*free, *wanted[:2], f"run_dir={tmp_path / 'other'}", "dataset_size=n8"])
