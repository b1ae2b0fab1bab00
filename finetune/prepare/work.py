"""From a folder of images to a prepared one, file by file: each ends prepared, dropped as a copy, or in quarantine."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
import os
from pathlib import Path, PurePosixPath
import shutil

import numpy as np
from PIL import Image
from tqdm import tqdm

from finetune.captions import MissingCaption, written_caption
from finetune.folder import QUARANTINE, ListedImage, list_folder
from finetune.images import check_size, content_of, load_image, on_white
from finetune.names import shown
from finetune.paths import hash_file, hash_texts, replace_with
from finetune.prepare.background import Session, cut_out, has_own_background, load_session
from finetune.prepare.captioner import Describe, load_captioner
from finetune.prepare.options import Options
from finetune.prepare.record import Entry, Record
from finetune.prepare.shape import reshape
from finetune.prepare.wording import dress
from finetune.similarity import Look, alike, hash_table, look_at, pairs_alike

LONGEST_NAME = 240  # bytes; file systems hold 255


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        entries: one for each image of SOURCE, by name.
        fresh: sources that were worked on now; the others were done already.
        pairs: near-duplicates among the prepared.
        stale: outputs whose source is gone.
        problems: of SOURCE's metadata.jsonl.
        notes: on what was not read.
    """

    entries: list[Entry]
    fresh: set[str]
    pairs: list[tuple[Entry, Entry]]
    stale: list[Entry]
    problems: list[str]
    notes: list[str]

    def of(self, state: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.state == state]


@dataclass(frozen=True)
class Job:
    """One image to do: its place, its caption in SOURCE or what is wrong with that, and the key of its result."""

    path: Path
    source: str
    caption: str
    problem: str | None
    key: str


class Kept:
    """The pictures that are kept so far, for finding later ones that repeat them."""

    def __init__(self) -> None:
        self._sources: list[str] = []
        self._by_content: dict[str | None, str] = {}
        self._hashes = hash_table([])

    def add(self, entry: Entry) -> None:
        self._sources.append(entry.source)
        self._by_content.setdefault(entry.content, entry.source)
        self._hashes = np.vstack([self._hashes, hash_table([look_of(entry)])])

    def twin_of(self, content: str, look: Look) -> str | None:
        """The source that a picture repeats, exactly or nearly."""
        near = np.flatnonzero(alike(look, self._hashes))
        if len(near):
            return self._sources[int(near[0])]
        return self._by_content.get(content)


class Preparation:
    """One run over a folder."""

    def __init__(self, options: Options) -> None:
        """List SOURCE and open FOLDER's record.

        Raises:
            RequestError: either folder cannot be used.
        """
        self._options = options
        self._listing = list_folder(options.source, key="SOURCE")
        self._record = Record(options.to, options.source)
        self._fingerprint = options.fingerprint()

    def run(self) -> Result:
        """Do every image that is new or changed.

        Raises:
            RequestError: a model that was named cannot be loaded.
            WorkError: it cannot be used.
        """
        jobs = [self._job(image) for image in self._listing.images]
        # Those that are prepared first: a new copy of a picture never replaces the one that is there.
        jobs.sort(key=lambda job: not self._is_prepared(job))
        kept, entries, fresh = Kept(), {}, set()
        for job in tqdm(jobs, "preparing", unit="image", disable=None, delay=2, leave=False):
            before = self._record.entries.get(job.source)
            entry = self._do(job, kept)
            entries[job.source] = entry
            if entry is not before:
                fresh.add(job.source)
            if entry.state == "prepared":
                kept.add(entry)
        self._record.compact()
        ordered = [entries[source] for source in sorted(entries)]
        return Result(
            entries=ordered,
            fresh=fresh,
            pairs=[] if self._options.duplicates == "keep" else _pairs(ordered),
            stale=self._record.stale(entries),
            problems=self._listing.problems,
            notes=self._listing.notes,
        )

    def _job(self, image: ListedImage) -> Job:
        """Read what decides about an image's result, without decoding it."""
        caption, problem = "", None
        try:
            if self._options.captions == "keep":
                caption = written_caption(image, self._options.encoding)
        except MissingCaption:
            pass
        except ValueError as error:
            problem = str(error)
        try:
            content = hash_file(image.path)
        except OSError as error:
            content = ""
            problem = f"cannot be read ({error.strerror})"
        source = image.path.relative_to(self._options.source).as_posix()
        key = hash_texts(self._fingerprint, content, caption, problem or "")
        return Job(image.path, source, caption, problem, key)

    def _known(self, job: Job) -> Entry | None:
        """The entry of the same file, caption and options, whose outputs are all there."""
        entry = self._record.entries.get(job.source)
        if entry is None or entry.key != job.key or entry.state == "started":
            return None
        places: list[Path] = []
        if entry.state == "bad":
            places = [self._reason_file(job.source)]
        elif entry.output is not None:
            output = self._options.to / entry.output
            places = [output, *([output.with_suffix(".txt")] if entry.caption else [])]
        return entry if all(place.is_file() for place in places) else None

    def _is_prepared(self, job: Job) -> bool:
        known = self._known(job)
        return known is not None and known.state == "prepared"

    def _do(self, job: Job, kept: Kept) -> Entry:
        known = self._known(job)
        if known is not None and known.state == "bad":
            return known
        decode = lru_cache(maxsize=1)(load_image)
        try:
            if job.problem is not None:
                raise ValueError(job.problem)
            if known is not None and known.content is not None and known.look is not None:
                content, look = known.content, Look.from_text(known.look)
            else:
                content, look = _identify(on_white(decode(job.path)))
            entry = Entry(job.source, job.key, "started", content=content, look=look.as_text())
            twin = kept.twin_of(content, look) if self._options.duplicates == "drop" else None
            if twin is not None:
                return self._end(replace(entry, state="dropped", reason=twin))
            if known is not None and known.state == "prepared":
                return known
            return self._prepare(job, entry, decode(job.path))
        except ValueError as error:
            return self._quarantine(job, str(error))

    def _prepare(self, job: Job, entry: Entry, image: Image.Image) -> Entry:
        """Make and write the output. Raises ValueError where the image does not suit the options."""
        check_size(*image.size)
        if self._options.background == "remove" and not has_own_background(image):
            image = cut_out(image, self._session)
        picture = reshape(on_white(image), self._options.square, self._options.size)
        caption = self._caption(job, picture)
        # Recorded before it is written, so that after an interruption the file is known to be ours.
        entry = self._record.put(replace(entry, output=self._record.output_for(job.source)))
        assert entry.output is not None
        output = self._options.to / entry.output
        text_file = output.with_suffix(".txt")
        # The caption first: whoever reads the folder meanwhile finds no image without it.
        if caption:
            replace_with(text_file, lambda target: _write_text(target, caption + "\n"))
        else:
            text_file.unlink(missing_ok=True)
        replace_with(output, lambda target: picture.save(target, format="PNG"))
        return self._end(replace(entry, state="prepared", caption=caption or None, size=picture.size))

    def _caption(self, job: Job, picture: Image.Image) -> str:
        if self._options.captions == "none":
            return ""
        caption = job.caption
        if self._options.captions == "write":
            caption = self._describe(picture)
            if not caption:
                raise ValueError("got no caption from the captioner: write one, and use --captions keep")
        return dress(caption, self._options.prefix, self._options.suffix, self._options.special_words)

    @cached_property
    def _session(self) -> Session:
        return load_session(self._options.background_model)

    @cached_property
    def _describe(self) -> Describe:
        return load_captioner(self._options.captioner)

    def _quarantine(self, job: Job, reason: str) -> Entry:
        """Copy a bad file and its caption file, and say beside them what is wrong."""
        copy = self._options.to / QUARANTINE / _short(job.source)
        for source, target in ((job.path, copy), (job.path.with_suffix(".txt"), copy.with_suffix(".txt"))):
            if _can_read(source):
                replace_with(target, partial(shutil.copyfile, source))
        reason_file = self._reason_file(job.source)
        replace_with(reason_file, lambda target: _write_text(target, f"{shown(job.source)} {reason}\n"))
        return self._end(Entry(job.source, job.key, "bad", reason=reason))

    def _reason_file(self, source: str) -> Path:
        return self._options.to / QUARANTINE / f"{_short(source)}.reason.txt"

    def _end(self, entry: Entry) -> Entry:
        """Record what became of a source, and remove what an earlier run made of it."""
        before = self._record.entries.get(entry.source)
        if before is not None and before.output is not None and entry.output is None:
            output = self._options.to / before.output
            output.unlink(missing_ok=True)
            output.with_suffix(".txt").unlink(missing_ok=True)
        if entry.state != "bad" and self._reason_file(entry.source).exists():
            copy = self._options.to / QUARANTINE / _short(entry.source)
            for place in (copy, copy.with_suffix(".txt"), self._reason_file(entry.source)):
                place.unlink(missing_ok=True)
        return self._record.put(entry)


def look_of(entry: Entry) -> Look:
    assert entry.look is not None
    return Look.from_text(entry.look)


def _pairs(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Prepared files that show the same or nearly the same picture."""
    prepared = [entry for entry in entries if entry.state == "prepared"]
    near = set(pairs_alike([look_of(entry) for entry in prepared]))
    first: dict[str | None, int] = {}
    for index, entry in enumerate(prepared):
        if first.setdefault(entry.content, index) != index:
            near.add((first[entry.content], index))
    return [(prepared[one], prepared[other]) for one, other in sorted(near)]


def _identify(picture: Image.Image) -> tuple[str, Look]:
    return content_of(picture), look_at(picture)


def _short(source: str) -> str:
    """A source's name in the quarantine, cut where `.reason.txt` would make it longer than names may be."""
    path = PurePosixPath(source)
    if len(os.fsencode(path.name)) <= LONGEST_NAME:
        return source
    return str(path.with_name(f"{path.stem[:40]}-{hash_texts(ascii(source))[:12]}{path.suffix}"))


def _can_read(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def _write_text(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")
