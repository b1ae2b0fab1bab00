"""What a folder of images holds: image files, rows of metadata.jsonl, and kohya's repeat folders (`10_fox`)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
import json
from pathlib import Path

from conf.errors import RequestError
from conf.inputs import IMAGE_SUFFIXES, METADATA, REPEAT_FOLDER
from finetune.encoding import decode_caption
from finetune.names import shown

CAPTION_COLUMNS = ("text", "caption", "prompt")  # of metadata.jsonl; the first that a row has
PREPARED = ("prepare.jsonl", "summary.html")  # files of `python -m finetune.prepare`
QUARANTINE = "quarantine"  # its folder of files that could not be used
MOST_NAMED = 5  # names in a note


@dataclass(frozen=True)
class ListedImage:
    """An image file and what its folder says about it.

    Attributes:
        path: the file.
        name: relative to the folder, for messages.
        repeats: times an epoch shows it: N of its folder's name N_name.
        row_caption: from metadata.jsonl.
        folder_caption: the rest of a repeat folder's name, which counts where nothing else is written.
    """

    path: Path
    name: str
    repeats: int = 1
    row_caption: str | None = None
    folder_caption: str | None = None


@dataclass(frozen=True)
class Listing:
    """A folder's images in the order of their names.

    Attributes:
        images: to be read.
        problems: of metadata.jsonl, each naming the line and what is wrong with it.
        notes: on what is not read.
    """

    images: list[ListedImage]
    problems: list[str]
    notes: list[str]


def list_folder(folder: Path, key: str = "dataset.path") -> Listing:
    """The images directly in a folder, in its repeat folders, and in places that its metadata.jsonl names.

    Hidden files, caption files and files without a suffix are passed over in silence, and so is what
    `python -m finetune.prepare` leaves there besides images.

    Args:
        folder: of images.
        key: what the user named the folder with, for messages.

    Raises:
        RequestError: the folder is missing or holds no image.
    """
    if not folder.is_dir():
        problem = "is a file, not a folder" if folder.exists() else "no such folder"
        raise RequestError(f"{key}={shown(folder)}: {problem}; give a folder of images")
    entries = _visible(folder)
    found = {path: ListedImage(path, shown(path.name)) for path in entries if _is_image(path)}
    folders = [path for path in entries if path.is_dir() and path.name != QUARANTINE]
    for inner in [path for path in folders if REPEAT_FOLDER.fullmatch(path.name)]:
        found |= {image.path: image for image in _repeat_folder(inner)}
        folders.remove(inner)
    rows, problems = _read_metadata(folder / METADATA)
    for path, caption in rows.items():
        listed = found.get(path, ListedImage(path, shown(path.relative_to(folder))))
        found[path] = replace(listed, row_caption=caption)
    others = _others(entries)
    if not found and not problems:
        kinds = f" (found only {', '.join(sorted(others))} files: convert them)" if others else ""
        valid = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise RequestError(f"{key}={shown(folder)}: no images in this folder{kinds}; {valid} are read")
    notes = [
        f"{len(names)} {kind} files are not read: {_few(names)}" for kind, names in sorted(others.items())
    ]
    unread = [path.name for path in folders if not any(path in image.parents for image in rows)]
    if unread:
        notes.append(f"{len(unread)} folders inside of {shown(folder.name)} are not read: {_few(unread)}")
    both = sum(path.with_suffix(".txt").exists() for path in rows)
    if both:
        notes.append(f"{both} images have a caption in {METADATA} and in a .txt file: {METADATA} is used")
    return Listing([found[path] for path in sorted(found)], problems, notes)


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    """By suffix; a link that leads nowhere is an image that cannot be read."""
    exists = path.is_file() or (path.is_symlink() and not path.is_dir())
    return exists and path.suffix.lower() in IMAGE_SUFFIXES


def _repeat_folder(folder: Path) -> Iterator[ListedImage]:
    match = REPEAT_FOLDER.fullmatch(folder.name)
    assert match is not None
    repeats, words = int(match[1]), match[2].replace("_", " ").strip()
    for path in _visible(folder):
        if _is_image(path):
            name = shown(f"{folder.name}/{path.name}")
            yield ListedImage(path, name, repeats=repeats, folder_caption=words or None)


def _others(entries: Iterable[Path]) -> dict[str, list[str]]:
    """Names of files that are not read, by suffix."""
    others: dict[str, list[str]] = {}
    for path in entries:
        suffix = path.suffix.lower()
        silent = suffix in ("", ".txt", *IMAGE_SUFFIXES) or path.name in (METADATA, *PREPARED)
        if path.is_file() and not silent:
            others.setdefault(shown(suffix), []).append(path.name)
    return others


def _few(names: list[str]) -> str:
    more = ", ..." if len(names) > MOST_NAMED else ""
    return ", ".join(shown(name) for name in names[:MOST_NAMED]) + more


def _read_metadata(file: Path) -> tuple[dict[Path, str], list[str]]:
    """Captions by image, and problems by line, of Hugging Face's imagefolder format.

    https://huggingface.co/docs/datasets/image_dataset: a JSON object a line, with `file_name` relative to the file.
    """
    captions: dict[Path, str] = {}
    try:
        text = decode_caption(file.read_bytes())
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        return {}, [f"{METADATA} cannot be read: {error}"]
    lines: dict[Path, int] = {}
    problems: list[str] = []
    # Not splitlines, which also splits at characters that JSON allows inside of a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            path, caption = _read_row(line, file.parent)
            if path in lines:
                raise ValueError(f"names {shown(path.name)}, as line {lines[path]} does: keep one of the two")
        except ValueError as error:
            problems.append(f"{METADATA} line {number} {error}")
            continue
        captions[path], lines[path] = caption, number
    return captions, problems


def _read_row(line: str, folder: Path) -> tuple[Path, str]:
    """One row's image and caption. Raises ValueError for a row that cannot be used."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON ({error})") from error
    name = row.get("file_name") if isinstance(row, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("has no file_name")
    path = folder / name
    if Path(name).is_absolute() or ".." in path.parts or "\0" in name:
        raise ValueError(f"names {shown(name)}, which is not inside of the folder")
    try:
        there = path.is_file()
    except OSError:  # a name that is too long
        there = False
    if path.suffix.lower() not in IMAGE_SUFFIXES or not there:
        raise ValueError(f"names {shown(name)}, which is not there or no image")
    caption = next((row[key] for key in CAPTION_COLUMNS if isinstance(row.get(key), str)), None)
    if caption is None:
        raise ValueError(f"has no caption: add one of {', '.join(CAPTION_COLUMNS)}")
    return path, caption
