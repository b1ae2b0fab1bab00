"""Text encoders that train: they move, with accumulation as without, and alone where they should be alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator
import pytest
from safetensors.torch import load_file
import torch

from finetune import loop
from finetune.setup import Run
from finetune.trained import trainable_parameters
from tests.finetune.runs import weights
from tests.finetune.tiny_sdxl import make_sdxl

Train = Callable[..., int]
SHORT = ["budget.max_steps=2", "evaluation.enabled=false", "optimizer.lr=1e-3"]


def test_a_whole_text_encoder_trains_and_is_left(run_train: Train, pipeline: Path, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", *SHORT, "method=text_to_image", "method.text_encoder=full") == 0
    for part in ("unet", "text_encoder"):
        [before], [after] = (
            list((root / part).glob("*.safetensors")) for root in (pipeline, tmp_path / "run" / "last")
        )
        start, end = load_file(before), load_file(after)
        assert start.keys() == end.keys()
        moved = [name for name in start if not torch.equal(start[name], end[name])]
        assert len(moved) > len(start) / 2, part


def test_adapters_on_both_are_in_one_file(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", *SHORT, "method.text_encoder=lora") == 0
    found = weights(tmp_path / "run")
    for part in ("unet.", "text_encoder."):
        grown = [name for name in found if name.startswith(part) and "lora_B" in name]
        assert grown
        assert all(bool(found[name].any()) for name in grown), "B starts at zero and must have moved"


def test_a_frozen_text_encoder_stays_out_of_the_file(run_train: Train, tmp_path: Path) -> None:
    assert run_train(tmp_path / "run", *SHORT) == 0
    assert all(name.startswith("unet.") for name in weights(tmp_path / "run"))


def test_its_learning_rate_is_its_own(run_train: Train, pipeline: Path, tmp_path: Path) -> None:
    """A rate near zero leaves the text encoder where it was, while the UNet trains."""
    own = ["method=text_to_image", "method.text_encoder=full", "optimizer.text_encoder_lr=1e-12"]
    assert run_train(tmp_path / "run", *SHORT, *own) == 0
    largest = {}
    for part in ("unet", "text_encoder"):
        [before], [after] = (
            list((root / part).glob("*.safetensors")) for root in (pipeline, tmp_path / "run" / "last")
        )
        start, end = load_file(before), load_file(after)
        largest[part] = max(float((start[name] - end[name]).abs().max()) for name in start)
    assert largest["text_encoder"] < 1e-6 < 1e-4 < largest["unet"]


@pytest.mark.parametrize(
    "method",
    [["method=text_to_image", "method.text_encoder=full"], ["method=lora", "method.text_encoder=lora"]],
)
def test_accumulation_covers_the_text_encoder(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: list[str]
) -> None:
    """Batch 4 is two micro-steps of 2, in every gradient."""
    gradients: list[list[torch.Tensor]] = []
    clip = Accelerator.clip_grad_norm_

    def recording(self: Accelerator, parameters: Any, *arguments: Any) -> Any:
        gradients.append([parameter.grad.clone() for parameter in parameters])
        return clip(self, parameters, *arguments)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", recording)
    names: list[str] = []
    original = loop.training_step

    def naming(run: Run) -> float:
        names[:] = trainable_parameters(run.trained)
        return original(run)

    monkeypatch.setattr(loop, "training_step", naming)
    for batch, accumulation in ((4, 1), (2, 2)):
        size = [f"optimizer.batch_size={batch}", f"optimizer.accumulation={accumulation}"]
        run_train(tmp_path / str(batch), *SHORT, "budget.max_steps=1", "captions.dropout=0.3", *method, *size)
    big, small = (dict(zip(names, found, strict=True)) for found in gradients)
    text = [name for name in names if name.startswith("text_encoders.")]
    assert any(bool(big[name].any()) for name in text)
    assert any(bool(big[name].any()) for name in names if name not in text)
    for name in names:
        torch.testing.assert_close(small[name], big[name], atol=1e-6, rtol=1e-3)


def test_a_dropped_caption_teaches_the_text_encoders_of_sdxl_nothing(
    run_train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There no caption is zeros, whatever the text encoders say; with Stable Diffusion 1 it is an empty text."""
    base = make_sdxl(tmp_path / "base")
    touched: list[dict[str, bool]] = []
    clip = Accelerator.clip_grad_norm_

    def recording(self: Accelerator, parameters: Any, *arguments: Any) -> Any:
        text = parameters[-10:]  # of the last text encoder
        touched.append({"text": any(bool(item.grad.any()) for item in text if item.grad is not None)})
        return clip(self, parameters, *arguments)

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", recording)
    method = ["method=text_to_image", "method.text_encoder=full", "captions.dropout=0.999"]
    for name, path in (("sdxl", [f"base_model.path={base}"]), ("sd", [])):
        assert run_train(tmp_path / name, *SHORT, "budget.max_steps=1", *method, *path) == 0
    assert [item["text"] for item in touched] == [False, True]
