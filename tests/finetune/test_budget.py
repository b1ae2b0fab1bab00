"""budget=recommended: which cell matches, what it sets, and what it refuses."""

import copy
from pathlib import Path
from typing import Any

import pytest

from conf.compose import load_config, options
from conf.errors import RequestError
from conf.schema import Config
from curves.recommendation import CellAnswer, Recommendation, write_recommendation
from finetune.budget import HYPERPARAMETERS, apply_recommendation, hyperparameters, refuse_overrides

IDENTITY: dict[str, Any] = {
    "dataset": "d0",
    "captions": "file",
    "resolution": 64,
    "base_id": "b0",
    "method": "lora",
    "images": 32,
}


def cell(**changes: Any) -> CellAnswer:
    values: dict[str, Any] = {
        **IDENTITY,
        "dataset_size": "n32",
        "base_model": "tiny",
        "hyperparameters": {
            "lr": 3e-3,
            "rank": 4,
            "batch": 8,
            "batch_size": 4,
            "accumulation": 2,
            "schedule": "cosine",
        },
        "status": "ok",
        "recommended_steps": 120,
    }
    return CellAnswer(**{**values, **changes})


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(["budget=recommended", f"budget.study={tmp_path}", "dataset_size=n32"])


def store(study: Path, *cells: CellAnswer) -> None:
    write_recommendation(study / "analysis" / "recommendation.json", Recommendation("demo", list(cells)))


def test_the_matching_cell_becomes_the_configuration(config: Config, tmp_path: Path) -> None:
    store(tmp_path, cell(images=16, dataset_size="n16", recommended_steps=60), cell())
    before = copy.deepcopy(config)
    changed, found = apply_recommendation(config, IDENTITY, processes=1)
    assert found.recommended_steps == changed.budget.max_steps == 120
    assert (changed.optimizer.lr, changed.optimizer.schedule, changed.method.rank) == (3e-3, "cosine", 4)
    assert (changed.optimizer.batch_size, changed.optimizer.accumulation) == (4, 2)
    assert changed.stopping.name == "none"
    assert config == before


@pytest.mark.parametrize(("processes", "expected"), [(1, (4, 2)), (2, (2, 2)), (4, (1, 2)), (8, (1, 1))])
def test_the_images_an_update_stay_the_same_for_any_number_of_processes(
    config: Config, tmp_path: Path, processes: int, expected: tuple[int, int]
) -> None:
    store(tmp_path, cell())
    optimizer = apply_recommendation(config, IDENTITY, processes)[0].optimizer
    assert (optimizer.batch_size, optimizer.accumulation) == expected


def test_a_batch_that_cannot_be_divided_is_refused(config: Config, tmp_path: Path) -> None:
    store(tmp_path, cell())
    with pytest.raises(RequestError, match="8 images cannot be divided among 3 processes"):
        apply_recommendation(config, IDENTITY, processes=3)


@pytest.mark.parametrize("name", list(IDENTITY))
def test_a_cell_that_differs_in_any_identity_is_no_match_but_named(
    config: Config, tmp_path: Path, name: str
) -> None:
    other = {"resolution": 96, "images": 16}.get(name, "other")
    store(tmp_path, cell(**{name: other}))
    with pytest.raises(RequestError, match=r"no cell for lora, 32 images, 64 px.*nearest: \[") as caught:
        apply_recommendation(config, IDENTITY, processes=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", ["not_reached", "no_gain", "refused"])
def test_a_cell_without_an_answer_is_refused_with_its_reason(
    config: Config, tmp_path: Path, status: str
) -> None:
    answered = cell(images=16, dataset_size="n16")
    store(tmp_path, cell(status=status, reason="too few runs", recommended_steps=None), answered)
    with pytest.raises(
        RequestError, match=rf"is {status} \(too few runs\).*nearest with an answer: \[lora, 16 images"
    ):
        apply_recommendation(config, IDENTITY, processes=1)


def test_a_study_without_a_recommendation_says_how_to_make_one(config: Config, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="make one with: python -m analysis recommend"):
        apply_recommendation(config, IDENTITY, processes=1)


@pytest.mark.parametrize(
    "override",
    [
        *("optimizer.lr=1e-3", "method.rank=2", "optimizer.batch_size=1", "optimizer.schedule=linear"),
        *("budget.max_steps=9", "++optimizer.lr=1", "optimizer.accumulation=2", "optimizer=adamw"),
        *("captions.dropout=0.1", "optimizer.ema_decay=0.9", "optimizer.text_encoder_lr=1e-5"),
        *("optimizer.d_coef=2", "optimizer.decay_share=0.5"),
    ],
)
def test_overriding_what_is_recommended_is_refused_by_key(override: str) -> None:
    key = override.split("=")[0].lstrip("+")
    with pytest.raises(RequestError, match=rf"^{key} is set by budget=recommended"):
        refuse_overrides(["dataset_size=n32", override])


def test_other_overrides_are_free() -> None:
    free = ["budget=recommended", "budget.study=x", "method=lora", "seed=3", "run_dir=a", "samples.count=1"]
    refuse_overrides(free)
    with pytest.raises(RequestError) as caught:
        refuse_overrides([*free, "optimizer.lr=1"])
    assert not any(item in str(caught.value) for item in free[1:])


@pytest.mark.parametrize("name", options("optimizer"))
def test_recorded_hyperparameters_are_read_back(name: str, tmp_path: Path) -> None:
    config = load_config(["budget.max_steps=1000", f"optimizer={name}"])
    if name != "schedulefree":
        config.optimizer.schedule, config.optimizer.decay_share = "warmup_stable_decay", 0.3
        config.optimizer.ema_decay = 0.99
    config.optimizer.lr, config.method.alpha, config.captions.dropout = 0.05, 2.0, 0.25
    values = hyperparameters(config, processes=2)
    assert values["batch"] == 8
    store(tmp_path, cell(hyperparameters=values))
    fresh = load_config(["budget=recommended", f"budget.study={tmp_path}"])
    changed, _ = apply_recommendation(fresh, IDENTITY, processes=2)
    assert hyperparameters(changed, processes=2) == values
    assert changed.optimizer == config.optimizer
    if name != "schedulefree":
        assert {*values} == {*HYPERPARAMETERS, "batch"}


def test_a_schedule_that_does_not_decay_has_no_decay_share() -> None:
    assert not {"decay_share", "horizon"} & hyperparameters(load_config([]), processes=1).keys()


def test_a_whole_unet_has_no_adapter_hyperparameters() -> None:
    values = hyperparameters(load_config(["method=text_to_image"]), processes=1)
    assert not {"rank", "alpha", "targets", "dropout"} & values.keys()
