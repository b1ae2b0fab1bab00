"""Where relative paths of the configuration lead, and files remembered by content."""

from collections.abc import Callable
import hashlib
import os
from pathlib import Path
import uuid

from conf.compose import PROJECT_ROOT


def project_path(path: str) -> Path:
    """An input's path: absolute, or relative to the project root, or else to the working directory."""
    given = Path(path).expanduser()
    inside = PROJECT_ROOT / given
    return inside if inside.exists() or not given.exists() else given.resolve()


def replace_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, then put it in place: other processes see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remembered_hash(path: Path, cache_dir: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """`compute(path)`, remembered on disk as long as the file's size and time of change stay the same."""
    stat = path.stat()
    key = f"{kind}|{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}"
    note = cache_dir / "hashes" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.txt"
    try:
        known = note.read_text(encoding="ascii")
        if len(known) == 64:
            return known
    except OSError:
        pass
    value = compute(path)

    def write(target: Path) -> None:
        target.write_text(value, encoding="ascii")

    replace_with(note, write)
    return value


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_texts(*texts: str) -> str:
    """SHA-256 of a sequence of texts, in which no two sequences run together."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
