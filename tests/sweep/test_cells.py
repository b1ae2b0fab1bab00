"""From overrides to cells: products, labels, spaces, and one clear line for every mistake."""

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
