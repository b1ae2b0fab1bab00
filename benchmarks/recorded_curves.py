"""The recorded curves of public Stable Diffusion 1.5 runs as runs of a study, for the exam of stop rules.

    python -m benchmarks.recorded_curves VAL_CURVES.csv RUNS

The file has columns run, step, val and train_probe (spacepxl/demystifying-sd-finetuning, Apache-2.0). What it does not
say is known from the names of its runs: learning rate, batch, number of images, and which of the two image sets. Step 0 is
missing in it. One set has step 1, one update of 5e-7 to 2e-6 from the base, whose loss is taken for the base's; the base
of the other was measured as about 0.0583, by which all gains of that set are uncertain by some 5 %.
"""

from collections.abc import Iterator
import csv
from dataclasses import dataclass
from pathlib import Path
import re
import sys
import tempfile

from analysis.importing.command import Request, import_logs, print_import
from analysis.importing.tags import Wanted

FIRST_SET, SECOND_SET = "aerochrome", "twenty-images"
SECOND_BASE = 0.0583
BASE_LR = 5e-7  # of the runs that vary the batch
KNOWN = {"resolution": "512", "method": "text_to_image", "base_model": "sd15"}
COLUMNS = ("run", "step", "val", "train_probe", "lr", "dataset", "dataset_size", "batch", "panel", "base_loss",
           *KNOWN)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What a run's name says of it."""

    dataset: str
    images: int
    lr: float
    batch: int = 1


def recipe(run: str) -> Recipe:
    """From `dataset_size/aerochrome-50_lr5e-7`, `long_lr_sweep/1.0e-06`, `batch_size_sqrt/4` and the like.

    Raises:
        ValueError: a name of another form.
    """
    group, _, name = run.partition("/")
    if group == "dataset_size" and (found := re.fullmatch(r"aerochrome-(\d+)\w*_lr(\S+)", name)):
        return Recipe(FIRST_SET, int(found[1]), float(found[2]))
    if group in ("long_lr_sweep", "initial_lr_sweep"):
        return Recipe(SECOND_SET, 20, float(name))
    if group in ("batch_size", "batch_size_sqrt"):
        batch = int(name)
        return Recipe(SECOND_SET, 20, BASE_LR * (batch if group == "batch_size" else batch**0.5), batch)
    raise ValueError(f"{run}: a run of another collection")


def told_rows(path: Path) -> Iterator[dict[str, object]]:
    """The rows with what is known beside them; step 1 is taken out and becomes the base's loss."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    first = {row["run"]: row["val"] for row in rows if row["step"] == "1"}
    for row in rows:
        if row["step"] == "1":
            continue
        known = recipe(row["run"])
        yield {
            **row,
            **KNOWN,
            "lr": known.lr,
            "dataset": known.dataset,
            "dataset_size": known.images,
            "batch": known.batch,
            "panel": known.dataset,
            "base_loss": first.get(row["run"], SECOND_BASE),
        }


def make_study(source: Path, to: Path) -> None:
    """Import every run of the file."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "curves.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(told_rows(source))
        request = Request(table, to, "csv", Wanted("val", None, "lr", None), {}, 1, None)
        print_import(request, *import_logs(request))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    make_study(Path(sys.argv[1]), Path(sys.argv[2]))
