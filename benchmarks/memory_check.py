"""Is the accounting of benchmarks/memory.py true? The embedded base for real: the most memory its process takes in a step.

    python -m benchmarks.memory_check

Linux, on the CPU. Every run is a process of its own, whose allocator gives every larger block back at once, so that the
resident size follows the tensors.
"""

import json
import os
from pathlib import Path
import subprocess
import sys

from benchmarks.architectures import architecture_in
from benchmarks.memory import CPU, METHODS, account, autocast_as_on_gpu, configuration, make_work
from conf.schema import Config

ROOT = Path(__file__).resolve().parents[1]
TINY = architecture_in(ROOT / "assets" / "tiny-sd")
PRESETS = ("low", "normal")
PIXELS, BATCH = 96, 32  # so much that activations outweigh what else a process holds
MIB = 2**20
BLOCK = 65536  # bytes: larger blocks are mapped, and unmapped when they are freed


def resident(name: str) -> int:
    """Bytes of this process in main memory: VmRSS now, VmHWM at their most."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def real_growth(config: Config, pixels: int) -> int:
    """The most bytes that this process grows by in a training step, over what it had at rest."""
    work = make_work(TINY, config, pixels, CPU)
    with autocast_as_on_gpu():
        work.step()  # makes what kernels keep
        work.model.zero_grad(set_to_none=True)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM, see proc(5)
        before = resident("VmRSS")
        work.step()
    return resident("VmHWM") - before


def real_growth_elsewhere(method: str, preset: str, pixels: int, batch: int) -> int:
    """`real_growth` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory_check", method, preset, str(pixels), str(batch)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(BLOCK)}
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    return int(json.loads(done.stdout))


def accounted_growth(config: Config, pixels: int) -> int:
    """The same, as benchmarks.memory accounts for it."""
    found = account(TINY, config, pixels)
    return found.step - found.optimizer - found.parameters


def main() -> None:
    """Print a line for every method and preset; or, as a child, one measurement."""
    if len(sys.argv) > 1:
        method, preset, pixels, batch = sys.argv[1:]
        print(real_growth(configuration("tiny", method, preset, int(batch)), int(pixels)))
        return
    print(f"{'method':24} {'preset':8} {'accounted':>12} {'real':>12}  ratio")
    for method in METHODS:
        for preset in PRESETS:
            accounted = accounted_growth(configuration("tiny", method, preset, BATCH), PIXELS)
            real = real_growth_elsewhere(method, preset, PIXELS, BATCH)
            sizes = f"{accounted / MIB:8.1f} MiB {real / MIB:8.1f} MiB"
            print(f"{method:24} {preset:8} {sizes}  {accounted / real:.2f}", flush=True)


if __name__ == "__main__":
    main()
