"""The memory that training on the tiny base really takes, beside what benchmarks.memory accounts for it.

    python -m benchmarks.real_peak

Two measures of a step of the real trainer: what PyTorch's allocator holds at most, which is what a GPU's
`max_memory_allocated` is, and how far the process's resident memory grows, which has more in it: the math library's own
buffers and what the C library keeps of freed memory.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import tempfile

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.architectures import architecture_in
from benchmarks.memory import METHODS, PRESETS, Accounting, Footprint, configuration
from conf.compose import PROJECT_ROOT, load_config
from finetune.interruption import Interruption
from finetune.plan import make_plan
from finetune.setup import Run, set_up
from finetune.status import RunStatus
from finetune.step import training_step

BASE = PROJECT_ROOT / "assets" / "tiny-sd"
# Large enough for activations to weigh more than the smallest blocks that an allocator gives.
PIXELS, BATCH = 128, 8
OWN = {"DreamBooth, with prior": ("captions.class_word=dog", "method.prior_images=4")}


@dataclass(frozen=True)
class RealPeak:
    """Bytes of one run.

    Attributes:
        held: parameters, buffers and the optimizer's state, which stay between steps.
        allocated: beside them, the most that PyTorch's allocator gives out within a step.
        resident: how far the process's resident memory grows within a step.
    """

    held: int
    allocated: int
    resident: int

    @property
    def total(self) -> int:
        return self.held + self.allocated


def measure(method: str, preset: str, folder: Path, pixels: int = PIXELS) -> RealPeak:
    """Three steps of the trainer itself: the first makes the optimizer's state, the others are measured."""
    run = prepare(method, preset, folder, pixels)
    training_step(run)
    base = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    training_step(run)
    resident = _resident("VmHWM") - base
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        training_step(run)
    trace = folder / "trace.json"
    profiled.export_chrome_trace(str(trace))
    return RealPeak(_held(run), _most_allocated(trace), resident)


def prepare(method: str, preset: str, folder: Path, pixels: int = PIXELS) -> Run:
    """A run that is ready for its first step."""
    overrides = [
        "base_model=tiny",
        *METHODS[method],
        *OWN.get(method, ()),
        f"memory={preset}",
        "memory.compile=false",
        f"optimizer.batch_size={BATCH}",
        f"resolution.pixels={pixels}",
        f"run_dir={folder / 'run'}",
        f"cache_dir={folder / 'cache'}",
        "budget.max_steps=4",
        "tracker=none",
        "stopping=none",
        "samples.count=0",
        "evaluation.enabled=false",
        "device=cpu",
    ]
    return set_up(make_plan(load_config(overrides), overrides), RunStatus(), Interruption())


def accounted(method: str, preset: str, pixels: int = PIXELS) -> Footprint:
    """The same step as benchmarks.memory accounts for it, with the precisions of the CPU that it is compared on."""
    config = configuration("tiny", method, preset, BATCH, *OWN.get(method, ()))
    return Accounting(architecture_in(BASE), as_on_gpu=False).footprint(config, pixels)


def _held(run: Run) -> int:
    model = sum(value.nbytes for value in (*run.trained.parameters(), *run.trained.buffers()))
    if run.config.memory.offload_optimizer:  # whose state is not on the device that trains
        return model
    states = run.optimizer.state.values()
    return model + sum(
        value.nbytes
        for state in states
        for value in state.values()
        if isinstance(value, torch.Tensor) and value.ndim
    )


def _most_allocated(trace: Path) -> int:
    """The highest sum of the trace's allocations and releases, in the order of their times."""
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [(event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]"]
    now = most = 0
    for _, size in sorted(changes, key=lambda change: change[0]):
        now += size
        most = max(most, now)
    return most


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for every method and preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    chosen = parser.parse_args(arguments)
    print(
        f"{'method':<24} {'preset':<8} {'accounted MB':>12} {'real MB':>8} {'ratio':>6} {'resident growth MB':>19}"
    )
    for method in chosen.method:
        for preset in chosen.preset:
            with tempfile.TemporaryDirectory() as place:
                real = measure(method, preset, Path(place))
            expected = accounted(method, preset).step
            print(
                f"{method:<24} {preset:<8} {expected / 1e6:>12.1f} {real.total / 1e6:>8.1f} "
                f"{expected / real.total:>6.2f} {real.resident / 1e6:>19.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
