"""The accounting of memory against what the optimizers really take, and against known sizes."""

from pathlib import Path

import pytest
import torch

from benchmarks import real_peak
from benchmarks.architectures import ARCHITECTURES
from benchmarks.live_bytes import LiveBytes
from benchmarks.memory import GIB, Accounting, configuration, optimizer_bytes
from conf.compose import load_config, options
from finetune.optimizers import ParameterGroup, make_optimizer

CPU = torch.device("cpu")
LORA = "LoRA, rank 8"


@pytest.mark.long
def test_stable_diffusion_1_5_with_an_adapter() -> None:
    """859,520,964 parameters in the UNet, whose matrices and kernels are all frozen and in half precision."""
    found = Accounting(ARCHITECTURES["sd15"]).footprint(configuration("sd15", LORA, "low", 1), 512)
    frozen = found.parameters - found.trained
    assert 2 * 859_520_964 < frozen < 2.05 * 859_520_964
    assert found.gradients == found.trained
    assert found.optimizer == 2 * found.trained
    # Activations are recomputed: a preset that did not would take 1.4 GiB for them.
    assert found.activations < 0.4 * GIB
    assert found.parameters + found.activations <= found.step - found.optimizer
    assert found.panel < 1.05 * found.step


@pytest.mark.parametrize("name", options("optimizer"))
def test_optimizers_remember_what_is_accounted(name: str) -> None:
    torch.manual_seed(0)
    shapes = [(64, 80), (8, 4, 3, 3), (32,), (4096, 1)]
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    optimizer = make_optimizer(
        [ParameterGroup(parameters)], load_config([f"optimizer={name}"]).optimizer, CPU
    )
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    held = [
        value.nbytes
        for state in optimizer.state.values()
        for key, value in state.items()
        if isinstance(value, torch.Tensor) and value.ndim and not key.startswith("qmap")
    ]
    assert sum(held) == sum(optimizer_bytes(name, shape) for shape in shapes)


def test_bytes_live_from_the_first_to_the_last_reference() -> None:
    with LiveBytes() as live:
        first = torch.zeros(1000)
        view = first[:500].view(5, 100)
        assert live.now.total() == 4000
        del first
        assert live.now.total() == 4000
        other = view + 1
        assert live.now.total() == 6000
        del view
        assert live.now.total() == 2000
        live.count(other, "gradients")
    assert (live.peak, live.now["activations"], live.now["gradients"]) == (6000, 0, 2000)


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "preset"),
    [
        (LORA, "low"),
        ("LoRA, text encoders too", "fast"),
        ("full", "normal"),
        ("DreamBooth, with prior", "minimal"),
    ],
)
def test_a_real_step_takes_what_is_accounted(method: str, preset: str, tmp_path: Path) -> None:
    expected = real_peak.accounted(method, preset, pixels=64).step
    real = real_peak.measure(method, preset, tmp_path, pixels=64).total
    assert expected == pytest.approx(real, rel=0.1)
