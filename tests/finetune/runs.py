"""What tests of whole runs share: the weights a run left, its losses, and acts from outside at a given step."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
import torch

from curves.run_folder import RunFolder
from finetune import loop
from finetune.setup import Run
from tests.finetune.tiny_pipeline import read_curve


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The final weights a run left, of an adapter's file or of whole networks."""
    kind = next(kind for kind in ("best", "last") if list(run.glob(f"{kind}*")))
    file = RunFolder(run).adapter(kind)
    if file.exists():
        found: dict[str, torch.Tensor] = load_file(file)
        return found
    return {
        f"{part.parent.name}.{name}": value
        for part in sorted(RunFolder(run).model(kind).glob("*/*.safetensors"))
        for name, value in load_file(part).items()
    }


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def losses(run: Path) -> list[Any]:
    return [point["val_loss"] for point in read_curve(run)]


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[Run], None]) -> None:
    """Do something right after an update, as if it came from outside."""
    original = loop.training_step

    def stepping(run: Run) -> float:
        loss = original(run)
        if run.counters.step + 1 == step:
            act(run)
        return loss

    monkeypatch.setattr(loop, "training_step", stepping)
