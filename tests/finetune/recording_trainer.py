"""train.py that also notes what its process trains on: `python -m tests.finetune.recording_trainer FILE overrides`."""

import os
from pathlib import Path
import sys
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from conf.errors import exit_status
from finetune.batches import Batch, Source
import train


def main(file: Path, overrides: list[str]) -> int:
    """Train; FILE-<rank>.pt then has every batch, by what it was drawn for, and the learning rates of every update."""
    batches: dict[tuple[str, int, int], dict[str, torch.Tensor]] = {}
    rates: list[list[float]] = []
    draw = Source.batch

    def drawing(source: Source, step: int, first: int, device: torch.device) -> Batch:
        batch = draw(source, step, first, device)
        positions = range(first, first + len(batch.latents))
        images = torch.tensor([source.draws.at(step, position).image for position in positions])
        parts = {
            "image": images,
            "latents": batch.latents,
            "noise": batch.noise,
            "timesteps": batch.timesteps,
        }
        for index, position in enumerate(positions):
            drawn = {name: value[index].clone() for name, value in {**parts, **batch.given}.items()}
            batches[source.draws.purpose, step, position] = drawn
        return batch

    def updated(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        rates.append([float(group["lr"]) for group in optimizer.param_groups])

    Source.batch = drawing  # type: ignore[method-assign]
    register_optimizer_step_post_hook(updated)
    status = exit_status(lambda: train.run(overrides))
    torch.save({"batches": batches, "rates": rates}, f"{file}-{os.environ.get('RANK', 0)}.pt")
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
