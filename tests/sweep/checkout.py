"""A checkout of the project in a repository of its own, whose code a test may change."""

from pathlib import Path
import shutil
import subprocess

from tests.sweep.harness import ROOT

COPIED = ("analysis", "conf", "curves", "sweep", "finetune")


def make_checkout(folder: Path) -> Path:
    """The packages as they lie on disk now, committed; the large assets are shared."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("train.py", "pyproject.toml", "constraints.txt", ".gitignore"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "assets").symlink_to(ROOT / "assets")
    git(folder, "init", "--quiet")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    """Commit everything; the commit's name."""
    git(folder, "add", "--all")
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false")
    git(folder, *who, "commit", "--quiet", "--message", "A state of the code")
    return git(folder, "rev-parse", "HEAD").strip()


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout
