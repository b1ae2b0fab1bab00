"""prepare.jsonl: what became of each source file, so that a rerun does only what is new."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
import itertools
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any
import unicodedata

from conf.errors import RequestError
from conf.inputs import REPEAT_FOLDER
from finetune.names import shown
from finetune.paths import replace_with

RECORD = "prepare.jsonl"
SCHEMA = 1
LONGEST_STEM = 251  # bytes; file systems hold 255, and `.png` is four


@dataclass(frozen=True)
class Entry:
    """What became of one source file.

    Attributes:
        source: its path relative to SOURCE, with slashes.
        key: of the file's bytes, its caption and the options; equal keys give equal results.
        state: started, prepared, bad, or dropped (as a near-duplicate).
        output: the PNG, relative to FOLDER; the caption lies beside it.
        caption: as written; null without one.
        size: width and height of the output.
        content, look: of the source, for finding duplicates.
        reason: of a bad file; of a dropped one the source that it repeats.
    """

    source: str
    key: str
    state: str
    output: str | None = None
    caption: str | None = None
    size: tuple[int, int] | None = None
    content: str | None = None
    look: str | None = None
    reason: str | None = None


class Record:
    """The entries of a folder, one line each, appended as the work goes on; the last line of a source counts."""

    def __init__(self, folder: Path, source: Path) -> None:
        """Open a folder's record, or start one.

        Raises:
            RequestError: the folder holds other things, or was prepared from another source.
        """
        self._file = folder / RECORD
        self._folder = folder
        self.entries: dict[str, Entry] = {}
        self._taken: set[str] = set()
        try:
            text = self._file.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            _check_empty(folder)
            folder.mkdir(parents=True, exist_ok=True)
            text = ""
        header = self._read(text)
        before = header.get("source")
        if isinstance(before, str) and before != str(source.resolve()) and Path(before).is_dir():
            raise RequestError(
                f"--to={shown(folder)}: was prepared from {shown(before)}; choose another folder for "
                f"{shown(source)}"
            )
        self._header = {"schema": SCHEMA, "source": str(source.resolve())}
        self.compact()

    def _read(self, text: str) -> dict[str, Any]:
        """Fill the entries; a torn or strange line is as if it were not there, and its file is done again."""
        header: dict[str, Any] = {}
        known = {item.name for item in fields(Entry)}
        for line in text.split("\n"):
            try:
                row = json.loads(line)
                if "schema" in row:
                    header = row
                    continue
                values = {key: value for key, value in row.items() if key in known}
                if values.get("size") is not None:
                    values["size"] = tuple(values["size"])
                self._take(Entry(**values))
            except (ValueError, TypeError, AttributeError):
                continue
        return header

    def _take(self, entry: Entry) -> None:
        self.entries[entry.source] = entry
        if entry.output is not None:
            self._taken.add(_folded(entry.output))

    def compact(self) -> None:
        """Rewrite the file with one line a source."""
        rows = [self._header, *(asdict(entry) for entry in self.entries.values())]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        replace_with(self._file, lambda target: _write(target, text))

    def put(self, entry: Entry) -> Entry:
        """Add an entry at once, so that a killed run loses at most the file it was at."""
        self._take(entry)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(entry)) + "\n")
        return entry

    def output_for(self, source: str) -> str:
        """The name of a source's PNG: the one it has, else its stem's, made unlike every other.

        A repeat folder is kept; images from other folders come to lie in FOLDER itself, where training reads them.
        """
        known = self.entries.get(source)
        if known is not None and known.output is not None:
            return known.output
        path = PurePosixPath(source)
        parent = path.parent if REPEAT_FOLDER.fullmatch(str(path.parent)) else PurePosixPath()
        kind = path.suffix.lower().removeprefix(".")
        for number in itertools.count():
            addition = "" if not number else f"-{kind}" if number == 1 else f"-{kind}-{number}"
            name = str(parent / f"{_fitting(path.stem, addition)}.png")
            if _folded(name) not in self._taken and not (self._folder / name).exists():
                return name
        raise AssertionError("unreachable")

    def stale(self, sources: Iterable[str]) -> list[Entry]:
        """Entries with a file in the folder, whose source is gone."""
        there = set(sources)
        gone = [
            item for item in self.entries.values() if item.output is not None and item.source not in there
        ]
        return [item for item in gone if (self._folder / str(item.output)).exists()]


def _folded(name: str) -> str:
    """Names that differ only in case or Unicode form are alike: some file systems hold them for one."""
    return unicodedata.normalize("NFC", name).casefold()


def _fitting(stem: str, addition: str) -> str:
    """A stem with an addition, cut so that a file of that name can be made."""
    room = LONGEST_STEM - len(os.fsencode(addition))
    while len(os.fsencode(stem)) > room:
        stem = stem[:-1]
    return stem + addition


def _write(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")


def _check_empty(folder: Path) -> None:
    if not folder.exists():
        return
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    if others:
        raise RequestError(
            f"--to={shown(folder)}: holds {len(others)} files and folders that are not of this command, "
            f"such as {shown(sorted(others)[0])}; choose a new or an empty folder"
        )
