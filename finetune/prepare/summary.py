"""What a run of the preparation tells: lines for the terminal, and summary.html with thumbnails."""

import base64
from collections.abc import Iterator
import io
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, select_autoescape
from PIL import Image

from finetune.captions import long_caption_note
from finetune.names import shown
from finetune.paths import replace_with
from finetune.prepare.options import Options
from finetune.prepare.record import Entry
from finetune.prepare.work import Result

SUMMARY = "summary.html"
THUMBNAIL = 96  # pixels
MOST_THUMBNAILS = 200
MOST_LISTED = 20  # names in a list of what is not wrong


def counts(result: Result) -> list[tuple[str, int]]:
    """What there is of each kind."""
    prepared = result.of("prepared")
    captioned = sum(entry.caption is not None for entry in prepared)
    return [
        ("images found", len(result.entries)),
        ("prepared", len(prepared)),
        ("of them new", sum(entry.source in result.fresh for entry in prepared)),
        ("with a caption", captioned),
        ("without a caption", len(prepared) - captioned),
        ("pairs that look alike", len(result.pairs)),
        ("left out as copies", len(result.of("dropped"))),
        ("in quarantine", len(result.of("bad"))),
    ]


def lines(result: Result, options: Options) -> Iterator[str]:
    """The summary as text; every bad file is named."""
    yield ", ".join(f"{number} {name}" for name, number in counts(result) if number or name == "prepared")
    for entry in result.of("bad"):
        yield f"quarantine: {shown(entry.source)} {shown(entry.reason or '')}"
    for problem in result.problems:
        yield f"not used: {problem}"
    for entry in result.of("dropped"):
        yield f"left out: {shown(entry.source)} looks like {shown(entry.reason or '')}"
    for one, other in result.pairs[:MOST_LISTED]:
        yield f"alike: {shown(one.source)} and {shown(other.source)}"
    if len(result.pairs) > MOST_LISTED:
        yield f"alike: {len(result.pairs) - MOST_LISTED} pairs more, in {SUMMARY}"
    for note in notes(result, options):
        yield f"note: {note}"


def notes(result: Result, options: Options) -> list[str]:
    """What is worth knowing and not wrong."""
    found = list(result.notes)
    prepared = result.of("prepared")
    found += long_caption_note({shown(item.source): len((item.caption or "").split()) for item in prepared})
    bare = [shown(entry.source) for entry in prepared if entry.caption is None]
    if bare and options.captions == "keep":
        found.append(
            f"without a caption: {_few(bare)}; write them with --captions write, or train with captions=instance"
        )
    if result.pairs:
        found.append(
            "pairs that look alike may fall on both sides of the held-out split: --duplicates drop keeps one"
        )
    if result.stale:
        gone = [shown(entry.output or "") for entry in result.stale]
        found.append(
            f"their source is gone, yet they are still in the folder: {_few(gone)}; delete them if unwanted"
        )
    return found


def write_html(result: Result, options: Options) -> Path:
    """Write summary.html, one self-contained file."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=select_autoescape(default=True)
    )
    prepared = result.of("prepared")
    page = environment.get_template("summary.html.j2").render(
        title=shown(options.to.resolve().name),
        source=shown(options.source),
        counts=counts(result),
        bad=[(shown(entry.source), shown(entry.reason or "")) for entry in result.of("bad")],
        problems=result.problems,
        dropped=[(shown(entry.source), shown(entry.reason or "")) for entry in result.of("dropped")],
        pairs=[[_card(options.to, item) for item in pair] for pair in result.pairs[: MOST_THUMBNAILS // 2]],
        more_pairs=max(0, len(result.pairs) - MOST_THUMBNAILS // 2),
        cards=[_card(options.to, entry) for entry in prepared[:MOST_THUMBNAILS]],
        more=max(0, len(prepared) - MOST_THUMBNAILS),
        notes=notes(result, options),
        side=THUMBNAIL,
    )
    file = options.to / SUMMARY
    replace_with(file, lambda target: _write_text(target, page))
    return file


def _card(folder: Path, entry: Entry) -> dict[str, str]:
    """A thumbnail with what stands under it."""
    assert entry.output is not None and entry.size is not None
    caption = entry.caption or ""
    return {
        "name": shown(entry.output),
        "size": f"{entry.size[0]} x {entry.size[1]}",
        "caption": caption if len(caption) <= 200 else caption[:200] + "...",
        "data": _thumbnail(folder / entry.output),
    }


def _thumbnail(path: Path) -> str:
    """A data URL."""
    with Image.open(path) as image:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _write_text(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8")
