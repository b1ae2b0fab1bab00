"""dataset_size=all budget=recommended: every image trains, for a budget scaled from the largest measured cell."""

from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from analysis.load import load_study
from analysis.recommend import analyse, write_analysis
from conf.compose import load_config
from conf.errors import RequestError
from conf.schema import Config
from curves.law import EXPONENT_PRIOR
from curves.recommendation import CellAnswer, Recommendation, write_recommendation
from curves.run_folder import RunFacts, RunFolder
from finetune.budget import apply_to_all_images
from tests.analysis.make_runs import Spec, make_run
from tests.finetune.tiny_pipeline import make_images
import train

GROUP: dict[str, Any] = {
    "dataset": "d0",
    "captions": "file",
    "resolution": 64,
    "base_id": "b0",
    "method": "lora",
}
LAW = {"groups": [{**GROUP, "method": "text_to_image", "exponent": {"median": 0.3}}]}
JOINT_LAW = {**LAW, "powers": {"images": {"median": 0.6}}}
OWN_LAW = {"groups": [*LAW["groups"], {**GROUP, "exponent": {"median": 0.5}}]}


def cell(images: int, steps: int | None, **changes: Any) -> CellAnswer:
    values = {
        "dataset_size": f"n{images}",
        "base_model": "tiny",
        "images": images,
        "hyperparameters": {"lr": 3e-3, "batch": 4},
        "status": "not_reached" if steps is None else "ok",
        "recommended_steps": steps,
    }
    return CellAnswer(**{**GROUP, **values, **changes})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["budget=recommended", f"budget.study={tmp_path}", "dataset_size=all"])


def store(study: Path, *cells: CellAnswer, law: dict[str, Any] | None = None) -> None:
    answer = Recommendation("demo", list(cells), law)
    write_recommendation(study / "analysis" / "recommendation.json", answer)


@pytest.mark.parametrize(
    ("law", "exponent"),
    [(None, EXPONENT_PRIOR[0]), (LAW, EXPONENT_PRIOR[0]), (JOINT_LAW, 0.6), (OWN_LAW, 0.5)],
)
def test_steps_grow_by_the_studys_exponent_from_the_largest_answer(
    config: Config, tmp_path: Path, law: dict[str, Any] | None, exponent: float
) -> None:
    others = cell(16, 999, method="text_to_image"), cell(30, 999, dataset="d1"), cell(28, None)
    others += (cell(32, 999, source="law"),)  # a prediction is no measured cell
    store(tmp_path, cell(8, 100), cell(24, 300), *others, law=law)
    changed, found, scaling = apply_to_all_images(config, {**GROUP, "images": 40}, processes=1)
    assert changed.budget.max_steps == round(300 * (40 / 24) ** exponent)
    assert (found.images, scaling.images, scaling.recommended_steps, scaling.exponent) == (
        24,
        24,
        300,
        exponent,
    )
    assert changed.optimizer.lr == 3e-3
    assert not changed.evaluation.enabled
    assert changed.checkpoints.final == "last"


def test_a_decaying_schedule_is_stretched_with_its_steps(config: Config, tmp_path: Path) -> None:
    store(tmp_path, cell(20, 300, hyperparameters={"lr": 1e-3, "schedule": "cosine", "horizon": 400}))
    budget = apply_to_all_images(config, {**GROUP, "images": 40}, processes=1)[0].budget
    assert (budget.max_steps, budget.horizon) == (round(300 * 2**0.8), round(400 * 2**0.8))


def test_a_cell_of_all_images_is_taken_as_it_is(config: Config, tmp_path: Path) -> None:
    store(tmp_path, cell(20, 300), cell(50, 9))  # the latter of a time when the folder held more
    assert apply_to_all_images(config, {**GROUP, "images": 20}, 1)[0].budget.max_steps == 300


@pytest.mark.parametrize(
    ("cells", "images", "words"),
    [
        ([cell(8, 100)], 17, r"lora, 8 images, .* to 17 images, only to 2 times .*9 images or more.*\[n12\]"),
        ([cell(8, 100, dataset="d1")], 17, r"no cell for lora, 17 images.*nearest: \[lora, 8 images"),
        ([cell(4, None), cell(8, None)], 10, "the cell lora, 8 images, 64 px, tiny is not_reached"),
        ([cell(20, 100)], 10, "no cell for lora, 10 images"),
    ],
)
def test_what_cannot_be_scaled_is_refused(
    config: Config, tmp_path: Path, cells: list[CellAnswer], images: int, words: str
) -> None:
    store(tmp_path, *cells)
    with pytest.raises(RequestError, match=words) as caught:
        apply_to_all_images(config, {**GROUP, "images": images}, processes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (["stopping=evidence"], "stopping=evidence: .* trains on every image"),
        (["dataset.fold=0"], "dataset.fold=0: .* trains on every image"),
    ],
)
def test_what_needs_held_out_images_is_refused(tmp_path: Path, override: list[str], words: str) -> None:
    store(tmp_path, cell(8, 100))
    asked = load_config(["budget=recommended", f"budget.study={tmp_path}", "dataset_size=all", *override])
    with pytest.raises(RequestError, match=words):
        apply_to_all_images(asked, {**GROUP, "images": 10}, processes=1)


def few_images(base_overrides: list[str], folder: Path) -> list[str]:
    """The overrides of the session's tiny runs, on five images and all of them."""
    kept = [
        item
        for item in base_overrides
        if not item.startswith(("dataset", "optimizer.batch_size", "evaluation.training"))
    ]
    photos = make_images(folder / "photos", 5)
    return [*kept, "dataset=folder", f"dataset.path={photos}", "evaluation.training_images=0"]


def made_runs(study: Path, real: RunFacts) -> None:
    """Fold runs of known truth that stand for longer ones of the same cell."""
    for number, lr in enumerate((7e-4, 1e-3)):
        for fold in range(5):
            spec = Spec(images=4, lr=lr, seed=number, horizon=120, best_time=0.02)
            folder = make_run(study / "trials" / f"{5 * number + fold:04d}-all", spec)
            facts = folder.read_facts()
            values = {**real.hyperparameters, "lr": lr}
            made = {"cell": real.cell, "hyperparameters": values, "fold": fold, "folds": 5}
            folder.write_facts(RunFacts(**{**vars(facts), **made, "panel": f"panel-{fold}"}))
            points = folder.points()
            folder.curve.unlink()
            for point in points:
                one = [(point.image_loss or [])[fold]]
                changed = {"val_loss": one[0], "image_loss": one, "panel": f"panel-{fold}"}
                folder.append_point(type(point)(**{**vars(point), **changed}))


@pytest.mark.long
def test_five_images_from_folds_to_the_final_model(
    base_overrides: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Real folds are measured, joined and answered; runs of known truth then set the budget of a real final run."""
    given = few_images(base_overrides, tmp_path)
    study = tmp_path / "real"
    for fold in range(5):
        place = f"run_dir={study / 'trials' / f'{fold:04d}-all'}"
        assert train.run([*given, f"dataset.fold={fold}", "budget.max_steps=2", place]) == 0
    folders = [RunFolder(study / "trials" / f"{fold:04d}-all") for fold in range(5)]
    facts = [folder.read_facts() for folder in folders]
    assert [(item.fold, item.folds, item.images) for item in facts] == [(fold, 5, 4) for fold in range(5)]
    assert len({item.panel for item in facts}) == 5
    assert not any(point.extra.get("diverged") for folder in folders for point in folder.points())
    (run,) = load_study(study).runs
    assert len(run.points[-1].image_loss or []) == 5
    write_analysis(analyse(load_study(study)))
    wanted = [*given, "budget=recommended", f"run_dir={tmp_path / 'final'}"]
    with pytest.raises(RequestError, match="the cell lora, 4 images, 32 px, custom is"):
        train.run([*wanted, f"budget.study={study}"])

    made_runs(tmp_path / "made", facts[0])
    write_analysis(analyse(load_study(tmp_path / "made")))
    capfd.readouterr()
    assert train.run([*wanted, f"budget.study={tmp_path / 'made'}", "samples.count=1"]) == 0
    final = RunFolder(tmp_path / "final")
    left = final.read_facts()
    scaled = left.extra["scaled_from"]
    assert (left.images, left.cell["images"], left.panel, scaled["images"]) == (5, 5, None, 4)
    steps = round(scaled["recommended_steps"] * (5 / 4) ** 0.8)
    assert final.points()[-1].step == left.horizon == steps
    assert all(point.val_loss is None for point in final.points())
    assert [left.cell[name] for name in ("dataset", "base_id")] == [
        facts[0].cell[name] for name in ("dataset", "base_id")
    ]
    said = f"{steps} steps for all 5 images, none held out: {scaled['recommended_steps']} recommended at 4 images"
    assert said in capfd.readouterr().err
    assert sorted(item.name for item in final.path.glob("*.safetensors")) == ["recommended.safetensors"]
    with safe_open(final.adapter("recommended"), framework="pt") as file:
        assert file.metadata()["recommended_steps"] == str(steps)
    assert (final.samples / f"step-{steps:06d}-0.png").exists()
