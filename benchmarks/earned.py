"""Is the recommendation earned? Fresh seeds to beyond three times the minimum of every answered cell, then verified.

    python benchmarks/earned.py runs/demo runs/demo-fresh [SEED]

Runs as many at once as there are cores, one thread each.
"""

from concurrent.futures import ThreadPoolExecutor
import os
from pathlib import Path
import subprocess
import sys

import yaml

from curves.recommendation import CellAnswer, read_recommendation

ROOT = Path(__file__).resolve().parents[1]
BEYOND = 3.5  # a little over three, since the fresh run's own minimum may lie later than the median
DECIDED = ("seed=", "run_dir=", "study=", "stopping=", "budget.max_steps=")


def fresh_command(study: Path, to: Path, cell: CellAnswer, seed: int) -> list[str]:
    """The command of the cell's best run with another seed, without a stop rule, to beyond three times the minimum."""
    assert cell.path is not None and cell.minimum is not None
    path = study / "trials" / Path(cell.path).name / "overrides.yaml"
    overrides = yaml.safe_load(path.read_text(encoding="utf-8"))
    kept = [item for item in overrides if not item.lstrip("+").startswith(DECIDED)]
    name = f"{cell.dataset_size}-{cell.method}-seed{seed}"
    return [
        sys.executable,
        str(ROOT / "train.py"),
        *kept,
        f"seed={seed}",
        f"run_dir={to / name}",
        "stopping=none",
        f"budget.max_steps={max(round(BEYOND * cell.minimum['median']), 101)}",
        "samples.count=0",
        "tracker=none",
    ]


def main() -> int:
    """Run them and print the table.

    Returns:
        The exit status of `analysis verify`, or 1 where a run failed.
    """
    study, to = Path(sys.argv[1]), Path(sys.argv[2])
    cells = [cell for cell in read_recommendation(study).cells if cell.status == "ok"]
    commands = [
        fresh_command(study, to, cell, seed=int(sys.argv[3]) if len(sys.argv) > 3 else 1000) for cell in cells
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(command: list[str]) -> int:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        if any(pool.map(run, commands)):
            return 1
    return subprocess.run(
        [sys.executable, "-m", "analysis", "verify", str(study), str(to)], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
