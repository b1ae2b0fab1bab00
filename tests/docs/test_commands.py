"""Every command in the documentation runs, made small: fewer steps, the embedded base, a folder of example images."""

from collections.abc import Iterator
from importlib.util import find_spec
import os
from pathlib import Path
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.analysis.make_logs import (
    together,
    training_losses,
    u_curve,
    write_events,
    write_val_csv,
    write_wandb,
)
from tests.finetune.tiny_captioner import make_captioner

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "README.zh.md", *(ROOT / "docs").glob("*.md")])
SMALL = [
    "budget.max_steps=12",
    "samples.count=0",
    "evaluation.strata=2",
    "evaluation.training_images=0",
    "dataset.held_out=8",
    "method.prior_images=2",
]
SMALL_TRIALS = [*SMALL, "optimizer.warmup_steps=0", "sweep.trials=1"]
SMALL_FOLDS = [*SMALL_TRIALS, "dataset.folds=3"]
SMALL_SWEEP = [
    *SMALL_TRIALS,
    "sweep.factors.dataset_size=[n4,n8]",
    "sweep.factors.method=[lora]",
]
SMALL_COOLDOWN = [*SMALL_TRIALS, "sweep.cooldown.branches=2"]
OWN_SMALL = {"experiment=few_images": SMALL_FOLDS, "experiment=cooldown": SMALL_COOLDOWN}
SCRIPT = (
    "train_text_to_image_lora.py"  # diffusers' example, for which tests/finetune/own_trainer.py stands in
)
SMALL_SCRIPT = ["--max_train_steps=6", '--settings={"dataset.held_out": 8, "evaluation.strata": 2}']
# What the reader has and the test does not: an SD base, and runs long enough for an answer.
INSTEAD = {
    "base_model=sd15": ["base_model=tiny"],
    "base_model=sdxl": ["base_model=tiny"],
    "Salesforce/blip-image-captioning-large": ["captioner"],
    "sweep.trials=8": ["sweep.trials=1"],
    "checkpoints.keep=[204]": ["checkpoints.keep=[9]"],  # of 12 steps
}
NEEDS_BACKGROUND = {"rembg", "onnxruntime"}  # modules of the extra
CALLED_BY_CI = {"make demo", "make test", "make install", "make lint", "source .venv/bin/activate"}


def commands(page: Path) -> list[str]:
    """The command lines of a page's bash blocks, continuation lines joined, comments dropped."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]


def own_commands(page: Path) -> list[str]:
    """Those of a page that another program does not call anyway."""
    return [line for line in dict.fromkeys(commands(page)) if line not in CALLED_BY_CI]


def programs(page: Path) -> list[tuple[str, str]]:
    """The whole programs that a page shows: those of its Python blocks whose first line is their file's name."""
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = [(re.match(r"# (\w+\.py)\n", block), block) for block in blocks]
    return [(found[1], block) for found, block in named if found]


@pytest.fixture
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout whose runs and caches are thrown away, with a folder of photos in it."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("analysis", "assets", "benchmarks", "conf", "curves", "finetune", "sweep"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "train.py", folder)
    images = sorted((ROOT / "assets" / "line-drawings").glob("*.png"))[:16]
    (folder / "photos").mkdir()
    for image in images:
        shutil.copy(image, folder / "photos")
        shutil.copy(image.with_suffix(".txt"), folder / "photos")
    make_captioner(folder / "captioner")
    make_other_logs(folder)
    shutil.copy(ROOT / "tests" / "finetune" / "own_trainer.py", folder / SCRIPT)
    for page in PAGES:
        for name, text in programs(page):
            (folder / name).write_text(text, encoding="utf-8")
    yield folder


def make_other_logs(folder: Path) -> None:
    """Logs of other trainers where the reader of importing-logs.md has them."""
    curve = u_curve()
    for name in ("cats-1", "dogs-1"):
        write_events(
            folder / "logs" / name, together(("train_loss", training_losses(600)), ("loss/val/pooled", curve))
        )
    write_wandb(folder, together(("loss/val/pooled", curve)), {"learning_rate": 1e-4}, "mine")
    write_val_csv(folder / "history.csv", curve, "eval/loss")


def run(project: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, *words],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def needs_minimum(words: list[str]) -> bool:
    """Whether a command asks the law across cells, which runs this short do not make."""
    asks = words[:3] == ["-m", "analysis", "recommend"] and any("=" in word for word in words)
    return words[:3] == ["-m", "analysis", "law"] or (asks and "--prior" not in words)


@pytest.mark.long
# The README in another language shows the same commands, as a test below holds.
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if own_commands(page) and "zh" not in page.name],
    ids=lambda page: page.name,
)
def test_every_command_of_a_page_runs(project: Path, page: Path) -> None:
    for line in own_commands(page):
        program, *words = shlex.split(line)
        assert program == "python", f"{line}: not a command this test knows"
        words = [new for word in words for new in INSTEAD.get(word, [word])]
        if words[:2] == ["-m", "sweep"] and words[2] in ("plan", "run"):
            words += next((small for name, small in OWN_SMALL.items() if name in words), SMALL_SWEEP)
        elif words[0] == SCRIPT:
            words += SMALL_SCRIPT
        elif words[0] == "train.py" and "--help" not in words and "budget=recommended" not in words:
            words += SMALL
        done = run(project, words)
        if "budget=recommended" in words:
            # Runs this short cannot have passed their minimum: the command must say so, and name what there is.
            assert done.returncode == 2, f"{line}: {done.stderr}"
            assert "not_reached" in done.stderr or "refused" in done.stderr or "no_gain" in done.stderr
        elif needs_minimum(words):
            assert done.returncode == 2, f"{line}: {done.stderr}"
            assert "shows its minimum" in done.stderr
        elif words[-2:] == ["--background", "remove"] and done.returncode != 0:
            missing = not all(map(find_spec, NEEDS_BACKGROUND))
            assert done.returncode == (2 if missing else 1), f"{line}: {done.stderr}"
            remedy = "pip install 'stepbudget[background]'" if missing else "give it with --background-model"
            assert remedy in done.stderr  # its model is downloaded, which no test does
        elif "--pdf" in words and find_spec("weasyprint") is None:
            assert done.returncode == 2, f"{line}: {done.stderr}"
            assert "pip install 'stepbudget[pdf]'" in done.stderr
        else:
            assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr


def test_the_pages_show_the_same_commands_in_both_languages() -> None:
    assert commands(ROOT / "README.md") == commands(ROOT / "README.zh.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if not target.startswith(("http://", "https://", "mailto:")):
            assert (page.parent / target).exists(), target


def test_inline_commands_name_modules_and_keys_that_exist() -> None:
    for page in PAGES:
        for code in re.findall(r"`(python [^`]+)`", page.read_text(encoding="utf-8")):
            words = shlex.split(code)
            target = words[2] if words[1] == "-m" else words[1]
            module = ROOT / target.replace(".", "/")
            assert module.is_dir() or module.with_suffix(".py").is_file() or (ROOT / target).is_file(), code
