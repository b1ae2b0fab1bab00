"""Files remembered by content, and put in place whole."""

from collections.abc import Callable
from errno import EACCES
import hashlib
import os
from pathlib import Path
import uuid

from conf.errors import RequestError


def make_cache(name: str, folder: Path) -> None:
    """Make the cache folder of the configuration.

    Raises:
        RequestError: it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES))
    except OSError as error:
        raise RequestError(
            f"cache_dir={name}: cannot be written to ({error.strerror}); choose another folder"
        ) from error


def replace_with(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file beside `path`, then put it in place: other processes see all of it or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the file's own name, which may be as long as names can be.
    temporary = path.with_name(f".{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(mode)  # safetensors makes files that only their owner may read
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remembered_hash(path: Path, cache_dir: Path, kind: str, compute: Callable[[Path], str]) -> str:
    """`compute(path)`, remembered on disk as long as the file's size, inode and times stay the same."""
    stat = path.stat()
    # The inode and its time of change too: a copy that keeps modification times must not pass for the old file.
    times = f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ctime_ns}|{stat.st_ino}"
    key = os.fsencode(path.resolve()) + f"|{kind}|{times}".encode()
    note = cache_dir / "hashes" / f"{hashlib.sha256(key).hexdigest()[:32]}.txt"
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
