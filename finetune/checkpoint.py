"""Training states on disk: everything that a run needs to go on bit for bit, put in place at once."""

from collections.abc import Mapping
import contextlib
from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import shutil
import time
from typing import Any

from safetensors.torch import load_file, save_file
import torch
from torch import Tensor

from conf.errors import WorkError
from conf.schema import Checkpoints


@dataclass(frozen=True)
class Checkpoint:
    """A training state.

    Attributes:
        weights: the trained weights, by name.
        best: those of the lowest held-out loss so far; None before the first evaluation.
        optimizer: state dict.
        counters: plain numbers, lists and the stop rule's state.
        scaler: of the gradients in half precision; None elsewhere.
        average: of the weights, where one is kept beside them.
        aging: the average that is measured beside the weights that count.
    """

    weights: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    counters: dict[str, Any]
    scaler: dict[str, Any] | None = None
    average: dict[str, Tensor] = field(default_factory=dict)
    aging: dict[str, Tensor] = field(default_factory=dict)


class CheckpointTimes:
    """When training states are due: every so many steps, and every so many seconds since the last."""

    def __init__(self, options: Checkpoints) -> None:
        self._options = options
        self._last = time.monotonic()

    def due(self, step: int) -> bool:
        """Asked once a step; what is due counts as written."""
        every, every_s = self._options.every, self._options.every_s
        by_step = every is not None and step > 0 and step % every == 0
        by_time = every_s is not None and time.monotonic() - self._last >= every_s
        if by_step or by_time:
            self._last = time.monotonic()
        return by_step or by_time


def save_checkpoint(folder: Path, checkpoint: Checkpoint, name: str = "last") -> None:
    """Write `folder`/`name`; whatever happens meanwhile, an older one is kept until the new one is whole."""
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(_contiguous(checkpoint.weights), temporary / "weights.safetensors")
    if checkpoint.best is not None:
        save_file(_contiguous(checkpoint.best), temporary / "best.safetensors")
    for kind in ("average", "aging"):
        if getattr(checkpoint, kind):
            save_file(_contiguous(getattr(checkpoint, kind)), temporary / f"{kind}.safetensors")
    torch.save({"optimizer": checkpoint.optimizer, "scaler": checkpoint.scaler}, temporary / "optimizer.pt")
    (temporary / "state.json").write_text(json.dumps(checkpoint.counters) + "\n", encoding="utf-8")
    state, old = folder / name, folder / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if state.exists():
        state.rename(old)
    temporary.rename(state)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read `folder`/last.

    Raises:
        WorkError: it is damaged.
    """
    last = folder / "last"
    try:
        files = {kind: last / f"{kind}.safetensors" for kind in ("best", "average", "aging")}
        found = {kind: load_file(file) for kind, file in files.items() if file.exists()}
        states = torch.load(last / "optimizer.pt", map_location="cpu", weights_only=True)
        return Checkpoint(
            weights=load_file(last / "weights.safetensors"),
            best=found.get("best"),
            optimizer=states["optimizer"],
            scaler=states["scaler"],
            average=found.get("average", {}),
            aging=found.get("aging", {}),
            counters=json.loads((last / "state.json").read_text(encoding="utf-8")),
        )
    except Exception as error:  # safetensors, pickle and zip each raise errors of their own
        reason = " ".join(str(error).split())[:200]
        raise WorkError(
            f"{last}: the checkpoint is damaged ({reason}); delete it to start the run anew"
        ) from error


def drop_checkpoints(folder: Path) -> None:
    """Remove the training state: a finished run needs its weights only. States that are kept for branches stay."""
    for path in [folder / "last", *folder.glob(".*")]:
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):  # not empty, or never there
        folder.rmdir()


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}
