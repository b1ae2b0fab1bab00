"""From overrides to cells: products, labels, spaces, and one clear line for every mistake."""

from pathlib import Path

import pytest

from conf.errors import RequestError
from sweep.cells import make_request


def test_cells_are_the_product_of_the_factors() -> None:
    request = make_request(
        [
            "sweep.factors={dataset_size: [n4, n16], method: [lora, text_to_image]}",
            "sweep.exclude=[{dataset_size: n4, method: text_to_image}]",
            "study=x",
        ]
    )
    assert [cell.label for cell in request.cells] == [
        "n4-lora-native-tiny",
        "n16-lora-native-tiny",
        "n16-text_to_image-native-tiny",
    ]
    assert [cell.config.dataset_size.images for cell in request.cells] == [4, 16, 16]
    searched = [[(item.name, item.low) for item in cell.parameters] for cell in request.cells]
    assert searched == [[("optimizer.lr", 5e-4)], [("optimizer.lr", 5e-4)], [("optimizer.lr", 1e-4)]]
    assert request.planned == 3 * request.config.sweep.trials


def test_further_factors_are_part_of_the_label() -> None:
    request = make_request(
        ["sweep.factors={resolution: [px48], stopping: [none, patience]}", "space.parameters=[]"]
    )
    assert [cell.label for cell in request.cells] == ["n8-lora-px48-tiny-none", "n8-lora-px48-tiny-patience"]
    assert [cell.parameters for cell in request.cells] == [[], []]
    assert [cell.config.stopping.name for cell in request.cells] == ["none", "patience"]


def test_a_group_can_be_searched() -> None:
    parameters = (
        "[{name: method, choices: [lora, text_to_image]}, {name: seed, low: 0, high: 9, integer: true}]"
    )
    (cell,) = make_request([f"space.parameters={parameters}"]).cells
    assert [item.name for item in cell.parameters] == ["method", "seed"]


FOLDS = ["sweep.folds=true", "stopping=none", "sweep.sampler.name=qmc"]
WRONG = [
    (["study=a/b"], ["study=a/b", "folder"]),
    (["sweep.factors.sizes=[n4]"], ["sweep.factors.sizes", "dataset_size", "method"]),
    (["sweep.factors.method=[lore]"], ["sweep.factors.method=lore", "lora, text_to_image"]),
    (["sweep.factors.method=[]"], ["sweep.factors.method=[]", "lora"]),
    (["sweep.factors.method=[lora,lora]"], ["sweep.factors.method", "twice"]),
    (["sweep.factors.space=[lr]"], ["sweep.factors.space", "whole sweep"]),
    (["sweep.factors.method=[lora]", "method=lora"], ["method", "sweep.factors.method=["]),
    (["sweep.factors.method=[lora]", "sweep.exclude=[{method: lora}]"], ["sweep.exclude", "no cell"]),
    (["sweep.exclude=[{method: lora}]"], ["sweep.exclude method=lora", "no level"]),
    (["optimizer.lr=0.1"], ["optimizer.lr=0.1", "space.parameters=[]"]),
    (["run_dir=x"], ["run_dir", "study"]),
    (["evaluation.enabled=false", "stopping=none"], ["evaluation.enabled=false", "true"]),
    (["space.parameters=[{name: optimizer.lrr, low: 1, high: 2}]"], ["optimizer.lrr", "optimizer.lr,"]),
    (["space.parameters=[{name: method, choices: [lora, x]}]"], ["method", "lora, text_to_image", "not x"]),
    (["space.parameters=[{name: sweep.trials, low: 1, high: 2}]"], ["sweep.trials", "cannot be searched"]),
    (["space.parameters=[{name: optimizer.lr, low: 1, high: 2, first: 3}]"], ["first=3", "1..2"]),
    (["space.parameters=[{name: optimizer.lr, choices: [[1], 2]}]"], ["choices", "list"]),
    (["space.parameters=[{name: seed, low: 0.5, high: 2, integer: true}]"], ["seed", "whole"]),
    (["space.parameters=[{name: optimizer.name, choices: [sgd]}]"], ["optimizer.name=sgd", "adamw"]),
    (["space.parameters=[{name: optimizer.batch_size, choices: [many]}]"], ["optimizer.batch_size", "many"]),
    (
        ["space.parameters=[{name: optimizer.lr, low: 1, high: 2, when: {methods: lora}}]"],
        ["methods", "method"],
    ),
    (["space.parameters=[{name: optimizer.lr, low: 1, high: 2, when: {method: x}}]"], ["method=x", "lora"]),
    (
        ["space.parameters=[{name: optimizer.batch_size, choices: [4, 0]}]"],
        ["optimizer.batch_size=0", "1 or more"],
    ),
    (
        ["space.parameters=[{name: optimizer.batch_size, choices: [4, many]}]"],
        ["optimizer.batch_size", "many"],
    ),
    (
        ["space.parameters=[{name: captions.dropout, low: 0.5, high: 1.5}]"],
        ["captions.dropout=1.5", "[0, 1)"],
    ),
    (
        ["space.parameters=[{name: optimizer.batch_size, low: 1, high: 8}]"],
        ["optimizer.batch_size", "Integer"],
    ),
    (["space.parameters=[{name: optimizer.lr, low: 1e-4, high: inf}]"], ["optimizer.lr", "finite bounds"]),
    (
        ["space.parameters=[{name: seed, low: 0, high: 9, integer: true, first: 2.5}]"],
        ["first=2.5", "whole first value"],
    ),
    (
        ["space.parameters=[{name: optimizer.warmup_steps, low: 0, high: 400, integer: true}]"],
        ["optimizer.warmup_steps=400", "below budget.max_steps=400"],
    ),
    (
        ["space.parameters=[{name: dataset_size, choices: [n4, n1024]}]"],
        ["dataset_size=n1024", "1040 are needed"],
    ),
    (["method=[lora,text_to_image]"], ["sweep.factors.method=[lora,text_to_image]"]),
    (["resolution=512"], ["resolution=512", "px512"]),
    (["dataset=folder", "dataset.path=no/such"], ["dataset.path=no/such", "folder"]),
    (["dataset=folder", "dataset.path=sweep"], ["dataset.path=sweep", "holds no images"]),
    (["sweep.factors.dataset_size=[n4,n1024]"], ["dataset_size=n1024", "images", "1040 are needed"]),
    (["base_model=custom", "base_model.path=docs"], ["base_model.path=docs", "model_index.json"]),
    (["base_model=custom", "base_model.path=./gone"], ["base_model.path=./gone", "no such folder"]),
    (
        ["budget=recommended", "budget.study=runs/demo"],
        ["budget=recommended", "budget=fixed budget.max_steps="],
    ),
    (["stopping=patience", "stopping.parameters.patients=3"], ["stopping=patience", "patients", "patience"]),
    (
        ["sweep.pruner.name=median", "sweep.pruner.parameters.patience=3"],
        ["sweep.pruner.parameters", "patience"],
    ),
    ([f"study={'x' * 300}"], ["study=xxx", "at most"]),
    (["sweep.folds=true", "stopping=none"], ["sweep.sampler.name=tpe", "qmc or random"]),
    (["sweep.folds=true"], ["stopping=evidence", "stopping=none with folds"]),
    ([*FOLDS, "sweep.pruner.name=median"], ["sweep.pruner.name=median", "sweep.folds=true"]),
    ([*FOLDS, "sweep.factors.dataset=[line_drawings]"], ["sweep.factors.dataset", "one folder"]),
    ([*FOLDS, "dataset.folds=9999"], ["dataset.folds=9999", "images"]),
    ([*FOLDS, "dataset.folds=3", "dataset_size=n1024"], ["1024 to train on", "dataset.folds=3"]),
    (["dataset.fold=1", "stopping=none"], ["dataset.fold=1", "sweep.folds=true"]),
    (["dataset.folds=3"], ["dataset.folds=3", "sweep.folds=true"]),
    (["space.parameters=[{name: dataset.fold, choices: [0, 1]}]"], ["dataset.fold", "cannot be searched"]),
    (["space.parameters=[{name: seed, low: 1, high: 2}, {name: seed, low: 1, high: 3}]"], ["seed", "twice"]),
]


@pytest.mark.parametrize(("overrides", "words"), WRONG, ids=[str(index) for index in range(len(WRONG))])
def test_mistakes_are_one_clear_line(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        _ = make_request(overrides).folder
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_images_are_counted_as_the_trainer_counts_them(tmp_path: Path) -> None:
    for index in range(12):
        (tmp_path / f"{index}.PNG").touch()
    for name in (".hidden.png", "0.txt", "notes.md"):
        (tmp_path / name).touch()
    dataset = ["dataset=folder", f"dataset.path={tmp_path}", "dataset.held_out=8"]
    assert len(make_request([*dataset, "dataset_size=n4"]).cells) == 1
    with pytest.raises(RequestError, match=r"holds 12 images, 16 are needed: 8 to train on .*held_out=8"):
        make_request([*dataset, "dataset_size=n8"])
    with pytest.raises(RequestError, match=r"holds 12 images, 13 are needed: at least 1"):
        make_request([*dataset[:2], "dataset.held_out=12"])


def test_images_in_folders_are_counted_where_the_trainer_reads_them(tmp_path: Path) -> None:
    for place in ("10_fox", "other"):
        (tmp_path / place).mkdir()
        for index in range(12):
            (tmp_path / place / f"{index}.png").touch()
    dataset = ["dataset=folder", f"dataset.path={tmp_path}", "dataset.held_out=8", "dataset_size=n8"]
    with pytest.raises(RequestError, match="holds 12 images, 16 are needed"):
        make_request(dataset)
    (tmp_path / "metadata.jsonl").touch()
    assert len(make_request(dataset).cells) == 1
