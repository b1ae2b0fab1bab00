"""Which code a study ran with: its content, the commit, and a patch of what was not committed."""

from dataclasses import dataclass
import hashlib
import os
from pathlib import Path
import re
import subprocess

from conf.compose import PROJECT_ROOT
from conf.secrets import MARK, is_secret, redact_text

# What decides what a run computes; documents, tests and pictures do not.
PLACES = ("analysis", "conf", "curves", "finetune", "sweep", "train.py", "pyproject.toml", "constraints.txt")
_SUFFIXES = (".py", ".yaml", ".j2", ".toml", ".txt")
_MOST_BYTES = 1_000_000  # of a patch
_LEAST_SECRET = 8  # characters; shorter values of the environment are words
_YAML_ENTRY = re.compile(r"([+\- ]\s*(?:- )?[\"']?([\w.-]+)[\"']?\s*:\s*)(\S.*)")


@dataclass(frozen=True)
class CodeState:
    """The code as it lies on disk now.

    Attributes:
        content: hash of the packages' files; two states with the same one compute the same.
        commit: None outside a repository.
        dirty: whether anything in the repository is not committed; None outside one.
        patch: what of `PLACES` is not committed, as `git apply` takes it; "" where all is.
        whole: whether the patch holds all of it: too large files, and secrets, are left out.
    """

    content: str
    commit: str | None
    dirty: bool | None
    patch: str
    whole: bool

    def name(self) -> str:
        return code_name(self.commit, bool(self.patch), self.content)


def code_name(commit: str | None, changed: bool, content: str) -> str:
    """A state in words, for messages."""
    base = f"commit {commit[:12]}" if commit else "no commit"
    return f"{base}{' with changes' if changed else ''} (content {content[:8]})"


def read_code_state() -> CodeState:
    """The code of this project."""
    top = git("rev-parse", "--show-toplevel")
    inside = top is not None and Path(top.strip()).resolve() == PROJECT_ROOT.resolve()
    commit = (git("rev-parse", "HEAD") or "").strip() if inside else ""
    if not commit:
        return CodeState(_content(), None, None, "", True)
    changes = git("status", "--porcelain")
    patch, whole = _patch()
    return CodeState(_content(), commit, None if changes is None else bool(changes.strip()), patch, whole)


def git(*arguments: str, statuses: tuple[int, ...] = (0,)) -> str | None:
    """What git prints on the project; None where it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), *arguments], capture_output=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.decode("utf-8", errors="replace") if done.returncode in statuses else None


def _content() -> str:
    digest = hashlib.sha256()
    for path in _files():
        digest.update(f"{path.relative_to(PROJECT_ROOT)}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _files() -> list[Path]:
    """The packages' files, without what Python and editors leave beside them."""
    found: list[Path] = []
    for place in PLACES:
        path = PROJECT_ROOT / place
        found += [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    parts = {path: path.relative_to(PROJECT_ROOT).parts for path in found}
    return sorted(
        path
        for path in found
        if path.suffix in _SUFFIXES and not any(part.startswith((".", "__pycache__")) for part in parts[path])
    )


def _patch() -> tuple[str, bool]:
    """Changes of tracked files, then each new file that git does not ignore; and whether nothing is left out."""
    places = [place for place in PLACES if (PROJECT_ROOT / place).exists()]
    tracked = git("diff", "HEAD", "--no-ext-diff", "--no-color", "--", *places) or ""
    new = (git("ls-files", "--others", "--exclude-standard", "-z", "--", *places) or "").split("\0")
    parts = [tracked, *(_as_patch(name) for name in new if name)]
    kept, size = [], 0
    for part in parts:
        size += len(part.encode())
        if size <= _MOST_BYTES:
            kept.append(part)
    text = "".join(kept)
    clean = _without_secrets(text)
    return clean, len(kept) == len(parts) and clean == text


def _as_patch(name: str) -> str:
    """A new text file as a patch; nothing for links, which may lead out of the repository, and for binary files."""
    path = PROJECT_ROOT / name
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return ""
    options = ("diff", "--no-index", "--no-ext-diff", "--no-color", "--", os.devnull, name)
    patch = git(*options, statuses=(0, 1)) or ""
    return "" if "\nBinary files " in patch else patch


def _without_secrets(patch: str) -> str:
    """Passwords in URLs, values of yaml keys that name secrets, and whatever secret the environment holds."""
    for name, value in os.environ.items():
        if is_secret(name) and len(value) >= _LEAST_SECRET:
            patch = patch.replace(value, MARK)
    return "\n".join(_clean_line(line) for line in patch.split("\n"))


def _clean_line(line: str) -> str:
    entry = _YAML_ENTRY.fullmatch(line)
    if entry is not None and is_secret(entry[2]) and "(" not in entry[3] and entry[2] != "key":
        return f"{entry[1]}{MARK}"
    return redact_text(line) if "://" in line else line
