"""Every optimizer learns, is resumed bit for bit through a file, and refuses what it cannot do."""

from collections.abc import Iterator, Sequence
import copy
from dataclasses import replace
from functools import cache
import math
from pathlib import Path
import sys

from accelerate import Accelerator
from accelerate.state import AcceleratorState
import pytest
import torch
from torch import Tensor

from conf.compose import load_config, options
from conf.errors import RequestError
from conf.schema import Config, Optimizer
from conf.validate import OPTIMIZER_OPTIONS, validate
from finetune.extras import LIBRARIES, check_library
from finetune.optimizers import (
    ParameterGroup,
    effective_learning_rate,
    make_optimizer,
    set_learning_rate,
    text_encoder_scale,
)
from finetune.schedule import learning_rate

NAMES = options("optimizer")
CPU = torch.device("cpu")
HORIZON = 12


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    """As the trainer runs on a CPU."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@cache
def composed(name: str) -> Config:
    return load_config([f"optimizer={name}"])


def optimizer_options(name: str, **changes: float | str) -> Optimizer:
    """An optimizer's yaml with changes, validated."""
    rate = {} if name == "prodigy" else {"lr": 0.01}
    config = copy.deepcopy(composed(name))
    config.optimizer = replace(config.optimizer, **rate, **changes)
    if "text_encoder_lr" in changes:
        config.method.text_encoder = "lora"
    validate(config)
    return config.optimizer


class Regression:
    """Two layers learn the outputs of two others; the first has 4096 weights, as many as 8-bit moments need."""

    def __init__(self, options: Optimizer, scale: float = 1.0) -> None:
        generator = torch.Generator().manual_seed(0)
        shapes = [(64, 64), (1, 64)]
        truth = [torch.randn(shape, generator=generator) / 8 for shape in shapes]
        self.inputs = torch.randn(256, 64, generator=generator)
        self.targets = torch.tanh(self.inputs @ truth[0].T) @ truth[1].T
        self.weights = [torch.nn.Parameter(torch.randn(shape, generator=generator) / 8) for shape in shapes]
        self.options = options
        groups = [ParameterGroup(self.weights[:1]), ParameterGroup(self.weights[1:], scale)]
        self.optimizer = make_optimizer(groups, options, CPU)

    def loss(self, rows: slice = slice(None)) -> Tensor:
        predicted = torch.tanh(self.inputs[rows] @ self.weights[0].T) @ self.weights[1].T
        return (predicted - self.targets[rows]).square().mean()

    def train(self, steps: Sequence[int], horizon: int = HORIZON) -> None:
        for step in steps:
            first = 32 * (step % 8)
            self.loss(slice(first, first + 32)).backward()
            set_learning_rate(self.optimizer, learning_rate(self.options, horizon, step))
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def save(self, path: Path) -> None:
        torch.save({"weights": list(self.weights), "optimizer": self.optimizer.state_dict()}, path)

    def load(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)
        with torch.no_grad():
            for weight, value in zip(self.weights, state["weights"], strict=True):
                weight.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])


def same(first: object, second: object) -> bool:
    """Equality of state dicts, bit for bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    return bool(first == second)


def test_every_optimizer_of_the_configuration_can_be_made() -> None:
    assert sorted(NAMES) == sorted(OPTIMIZER_OPTIONS)


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_learns(name: str) -> None:
    problem = Regression(optimizer_options(name))
    start = problem.loss().item()
    problem.train(range(1, 151), horizon=150)
    assert problem.loss().item() < 0.05 * start


@pytest.mark.parametrize("name", NAMES)
def test_six_steps_and_six_more_equal_twelve(name: str, tmp_path: Path) -> None:
    options = optimizer_options(name, warmup_steps=3)
    whole, first, second = Regression(options), Regression(options), Regression(options)
    whole.train(range(1, 13))
    first.train(range(1, 7))
    first.save(tmp_path / "state.pt")
    second.load(tmp_path / "state.pt")
    second.train(range(7, 13))
    assert same(second.weights, whole.weights)
    assert same(second.optimizer.state_dict(), whole.optimizer.state_dict())
    assert not same(first.weights, whole.weights)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_before_the_first_step_can_be_loaded(name: str, tmp_path: Path) -> None:
    options = optimizer_options(name)
    whole, fresh = Regression(options), Regression(options)
    fresh.save(tmp_path / "state.pt")
    fresh.load(tmp_path / "state.pt")
    whole.train(range(1, 4))
    fresh.train(range(1, 4))
    assert same(fresh.weights, whole.weights)


@pytest.mark.parametrize("name", NAMES)
def test_accelerate_can_wrap_it(name: str) -> None:
    options = optimizer_options(name)
    alone, wrapped = Regression(options), Regression(options)
    AcceleratorState._reset_state(reset_partial_state=True)
    wrapped.optimizer = Accelerator(cpu=True).prepare_optimizer(wrapped.optimizer)
    alone.train(range(1, 5))
    wrapped.train(range(1, 5))
    assert same(wrapped.weights, alone.weights)
    assert effective_learning_rate(wrapped.optimizer) == effective_learning_rate(alone.optimizer)


def test_adamw_is_torchs_with_the_options_of_the_configuration() -> None:
    options = optimizer_options("adamw", weight_decay=0.1, beta1=0.5)
    ours, theirs = Regression(options), Regression(options)
    theirs.optimizer = torch.optim.AdamW(
        theirs.weights, lr=0.01, betas=(0.5, 0.999), eps=1e-8, weight_decay=0.1, fused=True
    )
    for group in theirs.optimizer.param_groups:
        group["lr_scale"] = 1.0
    ours.train(range(1, 9))
    theirs.train(range(1, 9))
    assert same(ours.weights, theirs.weights)


def test_large_tensors_have_8_bit_moments() -> None:
    problem = Regression(optimizer_options("adamw8bit"))
    problem.train([1])
    moments = [problem.optimizer.state[weight]["state1"].dtype for weight in problem.weights]
    assert moments == [torch.uint8, torch.float32]


def test_adafactor_keeps_rows_and_columns_only_and_moves_weights_that_start_at_zero() -> None:
    problem = Regression(optimizer_options("adafactor"))
    with torch.no_grad():
        problem.weights[1].zero_()
    problem.train([1])
    kept = problem.optimizer.state[problem.weights[0]].values()
    assert sum(value.numel() for value in kept if isinstance(value, Tensor) and value.dim()) == 64 + 64
    assert float(problem.weights[1].detach().abs().mean()) == pytest.approx(0.01, rel=0.3)


def test_prodigy_reports_the_learning_rate_it_has_found(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Regression(optimizer_options("prodigy", warmup_steps=2))
    problem.train([1])
    assert effective_learning_rate(problem.optimizer) == pytest.approx(0.5e-6, rel=0.5)
    problem.train(range(2, 101), horizon=100)
    assert 1e-4 < effective_learning_rate(problem.optimizer) < 1
    assert capsys.readouterr().out == ""


def test_prodigy_is_set_as_its_authors_advise_for_diffusion_models() -> None:
    from prodigyopt import Prodigy

    options = optimizer_options("prodigy", warmup_steps=5)
    ours, theirs = Regression(options), Regression(options)
    theirs.optimizer = Prodigy(
        theirs.weights, weight_decay=0.01, safeguard_warmup=True, use_bias_correction=True
    )
    for group in theirs.optimizer.param_groups:
        group["lr_scale"] = 1.0
    ours.train(range(1, 13))
    theirs.train(range(1, 13))
    assert same(ours.weights, theirs.weights)


def test_a_larger_coefficient_gives_prodigy_a_larger_learning_rate() -> None:
    found = []
    for factor in (0.5, 2.0):
        problem = Regression(optimizer_options("prodigy", d_coef=factor))
        problem.train(range(1, 41), horizon=40)
        found.append(effective_learning_rate(problem.optimizer))
    assert found[1] > 2 * found[0]


def test_a_warm_up_from_outside_is_the_one_of_schedule_free() -> None:
    from schedulefree import AdamWScheduleFree

    options = optimizer_options("schedulefree", warmup_steps=5)
    ours, theirs = Regression(options), Regression(options)
    reference = AdamWScheduleFree(theirs.weights, lr=0.01, weight_decay=0.01, warmup_steps=5)
    reference.train()
    ours.train(range(1, 11))
    for step in range(1, 11):
        first = 32 * (step % 8)
        theirs.loss(slice(first, first + 32)).backward()
        reference.step()
        reference.zero_grad()
    ours.optimizer.eval()  # type: ignore[attr-defined]
    reference.eval()
    for first_weight, second_weight in zip(ours.weights, theirs.weights, strict=True):
        torch.testing.assert_close(first_weight, second_weight, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "prodigy"])
def test_the_text_encoder_has_its_own_learning_rate(name: str, tmp_path: Path) -> None:
    options = optimizer_options(name, text_encoder_lr=0.001)
    assert text_encoder_scale(options) == pytest.approx(0.1)
    equal, slower = Regression(options), Regression(options, text_encoder_scale(options))
    before = [weight.detach().clone() for weight in equal.weights]
    equal.train([1])
    slower.train([1])
    assert [group["lr"] for group in slower.optimizer.param_groups] == pytest.approx([0.01, 0.001])
    moved = [
        [(now - start).abs().mean().item() for now, start in zip(problem.weights, before, strict=True)]
        for problem in (equal, slower)
    ]
    assert moved[0][0] == moved[1][0]
    assert moved[1][1] == pytest.approx(0.1 * moved[0][1], rel=1e-3)
    slower.save(tmp_path / "state.pt")
    resumed = Regression(options, text_encoder_scale(options))
    resumed.load(tmp_path / "state.pt")
    set_learning_rate(resumed.optimizer, 0.02)
    assert [group["lr"] for group in resumed.optimizer.param_groups] == pytest.approx([0.02, 0.002])


def test_without_a_learning_rate_of_its_own_the_text_encoder_has_the_runs() -> None:
    assert text_encoder_scale(optimizer_options("adamw")) == 1.0


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library, extra = LIBRARIES[name]
    options = optimizer_options(name)
    check_library(options)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(RequestError, match=rf"optimizer={name}.*{library}.*'stepbudget\[{extra}\]'"):
        Regression(options)


REFUSED: list[tuple[str, dict[str, object], list[str]]] = [
    ("adamw", {"name": "sgd"}, ["optimizer.name=sgd", "adafactor, prodigy"]),
    ("adamw", {"name": "adafactor"}, ["optimizer.beta1=0.9", "adafactor has no such option", "weight_decay"]),
    ("adamw", {"name": "prodigy"}, ["optimizer.d_coef=null", "prodigy needs it", "optimizer=prodigy"]),
    ("adafactor", {"beta2": 0.9}, ["optimizer.beta2=0.9", "adafactor has no such option"]),
    ("adamw", {"d_coef": 2.0}, ["optimizer.d_coef=2", "adamw has no such option"]),
    ("adamw", {"beta1": None}, ["optimizer.beta1=null", "adamw needs it"]),
    ("adamw", {"beta1": 1.0}, ["optimizer.beta1=1", "[0, 1)"]),
    ("adafactor", {"weight_decay": math.inf}, ["optimizer.weight_decay=inf", "finite"]),
    ("prodigy", {"d_coef": 0.0}, ["optimizer.d_coef=0", "positive"]),
    ("prodigy", {"lr": 1e-4}, ["optimizer.lr=0.0001", "usually 1", "space=prodigy"]),
    ("prodigy", {"text_encoder_lr": 0.5}, ["text_encoder_lr=0.5", "one learning rate for all"]),
    ("adamw", {"text_encoder_lr": 0.0}, ["optimizer.text_encoder_lr=0", "positive"]),
    ("schedulefree", {"schedule": "cosine"}, ["schedule=cosine", "optimizer.schedule=constant"]),
    ("schedulefree", {"ema_decay": 0.9}, ["ema_decay=0.9", "drop one of the two"]),
    ("schedulefree", {"beta1": 0.0}, ["optimizer.beta1=0", "schedulefree", "0.9"]),
    ("adamw", {"ema_decay": 1.0}, ["optimizer.ema_decay=1", "(0, 1)"]),
    ("adamw", {"schedule": "step"}, ["schedule=step", "constant, cosine, linear, warmup_stable_decay"]),
    ("adamw", {"decay_share": 0.5}, ["decay_share=0.5", "schedule=constant has none", "warmup_stable_decay"]),
    ("adamw", {"schedule": "warmup_stable_decay", "decay_share": 1.5}, ["decay_share=1.5", "(0, 1]"]),
    (
        "adamw",  # on 400 steps
        {"schedule": "warmup_stable_decay", "warmup_steps": 321},
        ["optimizer.warmup_steps=321", "at most 320", "decay_share=0.2"],
    ),
]


@pytest.mark.parametrize(("name", "changes", "said"), REFUSED)
def test_what_cannot_work_is_refused(name: str, changes: dict[str, object], said: list[str]) -> None:
    config = copy.deepcopy(composed(name))
    for key, value in changes.items():
        setattr(config.optimizer, key, value)
    with pytest.raises(RequestError) as raised:
        validate(config)
    assert [words for words in said if words not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("share", "warmup", "steps"), [(0.2, 320, 400), (0.3, 7, 10), (0.1, 27, 30), (1.0, 0, 5)]
)
def test_a_warm_up_may_touch_the_decay(share: float, warmup: int, steps: int) -> None:
    config = copy.deepcopy(composed("adamw"))
    config.budget.max_steps = steps
    schedule = "warmup_stable_decay"
    config.optimizer = replace(config.optimizer, schedule=schedule, decay_share=share, warmup_steps=warmup)
    validate(config)
    config.optimizer.warmup_steps += 1
    with pytest.raises(RequestError, match=f"warmup_steps={warmup + 1}: must be"):
        validate(config)
