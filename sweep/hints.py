"""Commands as they are printed for copying: whatever the study is called, the shell reads them back."""

import os
from pathlib import Path
import shlex


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory."""
    try:
        short = os.fspath(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        short = os.fspath(path)
    return shlex.quote(short)


def command(name: str, study: Path, *more: str) -> str:
    """A command of `python -m sweep` on a study, by its folder, which works wherever that lies."""
    return " ".join(["python -m sweep", name, shown(study), *more])
