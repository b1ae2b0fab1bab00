"""A mistake in a space file is told with the file, the key and the remedy, before any trial starts."""

import os
from pathlib import Path
import shutil
import subprocess
import sys

import pytest

from conf import validate_sweep
from conf.errors import RequestError
from tests.sweep.harness import ROOT
from tests.sweep.spaces import read_space_file

LR = "{name: optimizer.lr, low: 1e-4, high: 1e-2, log: true"
METHOD = "{name: method, choices: [lora, text_to_image]}"
P0, P1 = "conf/space/mine.yaml: parameters[0]", "conf/space/mine.yaml: parameters[1]"
C0, POINT = "conf/space/mine.yaml: constraints[0]", "conf/space/mine.yaml: points[0]"
# (parameters, constraints, points): what the message says
MISTAKES: list[tuple[tuple[list[str], list[str], list[str]], list[str]]] = [
    ((["{name: optimizer.lr, low: 1, high: 0.1}"], [], []), [f"{P0}.low=1", "at most high=0.1"]),
    (
        (["{name: optimizer.lr, low: 1}"], [], []),
        [f"{P0}.high=null", "finite bounds low and high, or choices"],
    ),
    ((["{name: optimizer.lr, low: 0, high: 1, log: true}"], [], []), [f"{P0}.low=0", "above 0"]),
    ((["{name: optimizer.lr, low: 1, high: 2, step: 0.3}"], [], []), [f"{P0}.high=2", "take 1.9 or 2.2"]),
    ((["{name: optimizer.lr, low: 1, high: 2, step: 0}"], [], []), [f"{P0}.step=0", "positive"]),
    (([LR + ", step: 0.0099}"], [], []), [f"{P0}.step=0.0099", "log=false"]),
    ((["{name: seed, low: 0, high: 4, integer: true, step: 1.5}"], [], []), [f"{P0}.step=1.5", "whole step"]),
    ((["{name: seed, low: 0.5, high: 4, integer: true}"], [], []), [f"{P0}.low=0.5", "whole bounds"]),
    ((["{name: seed, choices: []}"], [], []), [f"{P0}.choices=[]", "at least one"]),
    ((["{name: seed, choices: [1, 1]}"], [], []), [f"{P0}.choices[1]=1", "twice"]),
    ((["{name: seed, choices: [1, 2], low: 1}"], [], []), [f"{P0}.low=1", "drop the choices"]),
    ((["{name: optimizer.lrr, low: 1, high: 2}"], [], []), [f"{P0}.name=optimizer.lrr", "optimizer.lr,"]),
    ((["{name: study, choices: [a]}"], [], []), [f"{P0}.name=study", "cannot be searched"]),
    ((["{name: method, low: 1, high: 2}"], [], []), [f"{P0}.choices=null", "lora, text_to_image"]),
    ((["{name: method, choices: [lora, lore]}"], [], []), [f"{P0}.choices[1]=lore", "lora, text_to_image"]),
    (([LR + "}", LR + "}"], [], []), [f"{P1}.name=optimizer.lr", "twice", "when"]),
    (([LR + ", first: 1}"], [], []), [f"{P0}.first=1", "0.0001..0.01"]),
    (([LR + ", when: {methods: lora}}"], [], []), [f"{P0}.when.methods=lora", "no group", "method,"]),
    (([LR + ", when: {method: lore}}"], [], []), [f"{P0}.when.method=lore", "no such option", "lora"]),
    (([LR + ", when: {method: []}}"], [], []), [f"{P0}.when.method=[]", "what method has to be"]),
    (([LR + ", when: {method: lora}}", METHOD], [], []), [f"{P0}.when.method=lora", "declare it above"]),
    (
        ([LR + "}", "{name: seed, choices: [1], when: {optimizer.lr: 1}}"], [], []),
        [f"{P1}.when.optimizer.lr=1", "range", "give it choices"],
    ),
    (([LR + "}"], ["optimizer.lr <"], []), [f"{C0}=optimizer.lr <", "cannot be read"]),
    (([LR + "}"], ["exp(optimizer.lr) < 1"], []), [f"{C0}=", "`exp(optimizer.lr)` is not understood"]),
    (([LR + "}"], ["optimizer.lr < x.y"], []), [f"{C0}=", "no key 'x.y'", "optimizer.lr"]),
    (([LR + "}"], ["optimizer.lr.__class__ == 1"], []), [f"{C0}=", "no key 'optimizer.lr.__class__'"]),
    (([LR + "}"], ["seed < 1"], []), [f"{C0}=seed < 1", "name one of optimizer.lr"]),
    (([LR + "}"], ["optimizer.lr < 'a'"], []), [f"{C0}=", "cannot be computed with optimizer.lr="]),
    (([LR + "}"], ["optimizer.lr > 1"], []), [f"{C0}=optimizer.lr > 1", "none of 2000", "loosen"]),
    (
        ([LR + "}"], ["optimizer.lr > 0.005", "optimizer.lr < 0.001"], []),
        ["conf/space/mine.yaml: constraints:", "keeps all 2"],
    ),
    (([LR + "}"], [], ["{optimizer.lr: 1}"]), [f"{POINT}.optimizer.lr=1", "lies outside"]),
    (([LR + "}"], [], ["{seed: 1}"]), [f"{POINT}.seed", "may set optimizer.lr"]),
    (
        ([LR + "}"], ["optimizer.lr < 0.005"], ["{optimizer.lr: 0.01}"]),
        [f"{POINT}:", "keeps the constraints"],
    ),
    (
        ([METHOD, "{name: method.rank, choices: [4], when: {method: lora}}"], [], ["{method.rank: 4}"]),
        [f"{POINT}.method.rank=4", "only where method=lora", "add that"],
    ),
    (
        (["{name: optimizer.batch_size, low: 0, high: 8, integer: true}"], [], []),
        [f"{P0}: optimizer.batch_size=0", "1 or more"],
    ),
    (
        ([METHOD, "{name: method.rank, choices: [4]}"], [], []),
        [f"{P0}: method.rank=4", "method=text_to_image has no adapter"],
    ),
]


def write(folder: Path, parameters: list[str], constraints: list[str], points: list[str]) -> Path:
    lines = ["name: mine", "parameters:", *(f"  - {item}" for item in parameters)]
    lines += [
        "constraints:" if constraints else "constraints: []",
        *(f'  - "{item}"' for item in constraints),
    ]
    lines += ["points:" if points else "points: []", *(f"  - {item}" for item in points)]
    path = folder / "mine.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(("space", "words"), MISTAKES, ids=[words[0] for _, words in MISTAKES])
def test_a_mistake_names_file_key_and_remedy(
    space: tuple[list[str], list[str], list[str]],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validate_sweep, "SPACES", tmp_path)
    with pytest.raises(RequestError) as caught:
        read_space_file(write(tmp_path, *space), "random")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


GRID = [
    ([LR + "}"], [f"{P0}.step=null", "give optimizer.lr a step, or take another sampler"]),
    (["{name: seed, low: 0, high: 20000, integer: true}"], ["more than 10000 points", "larger steps"]),
]


@pytest.mark.parametrize(("parameters", "words"), GRID, ids=["range", "size"])
def test_a_grid_needs_steps_and_an_end(
    parameters: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate_sweep, "SPACES", tmp_path)
    with pytest.raises(RequestError) as caught:
        read_space_file(write(tmp_path, parameters, [], []), "grid")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_command_refuses_a_file_with_a_mistake_in_one_line(tmp_path: Path) -> None:
    """The real command on a file in the folder of the others."""
    for name in ("analysis", "assets", "conf", "curves", "sweep"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    write(tmp_path / "conf" / "space", [LR + ", when: {method: lore}}"], [], [])
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "plan", "space=mine"],
        cwd=tmp_path,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {P0}.when.method=lore: there is no such option; valid are ")
    assert done.stderr.count("\n") == 1
