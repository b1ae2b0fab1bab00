"""What a folder of images may look like: plain, with metadata.jsonl, with repeat folders."""

import json
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
import pytest

from conf.errors import RequestError
from conf.schema import Captions
from finetune.captions import caption_for
from finetune.folder import list_folder
from finetune.names import is_text, shown
from tests.finetune.tiny_pipeline import make_images

FILE = Captions(name="file")


def write_rows(folder: Path, *rows: object) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def captions_of(folder: Path) -> dict[str, str]:
    return {image.name: caption_for(image, FILE) for image in list_folder(folder).images}


@pytest.mark.parametrize("backwards", [False, True])
def test_listing_is_sorted_and_names_what_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool
) -> None:
    """Whatever the order in which the filesystem gives the names."""
    make_images(tmp_path, 3)
    make_images(tmp_path / "10_fox", 2)
    (tmp_path / "._image-000.png").write_bytes(b"left by a file manager")
    (tmp_path / "notes.md").write_text("hello")
    (tmp_path / "UPPER.PNG").write_bytes((tmp_path / "image-000.png").read_bytes())
    for name in ("a.heic", "b.HEIC"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    (tmp_path / "less").mkdir()
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=backwards)))
    listing = list_folder(tmp_path)
    fox = ["10_fox/image-000.png", "10_fox/image-001.png"]
    names = [image.name for image in listing.images]
    assert names == [*fox, "UPPER.PNG", "image-000.png", "image-001.png", "image-002.png"]
    assert listing.notes == [
        "2 .heic files are not read: a.heic, b.HEIC",
        "1 .md files are not read: notes.md",
        f"2 folders inside of {tmp_path.name} are not read: less, more",
    ]


def test_a_folder_of_other_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(b"")
    with pytest.raises(RequestError, match=r"no images in this folder \(found only \.heic"):
        list_folder(tmp_path)


@pytest.mark.parametrize(("name", "problem"), [("missing", "no such folder"), ("file", "is a file")])
def test_a_folder_that_is_none_says_so(tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=rf"dataset\.path=.*{name}: {problem}"):
        list_folder(tmp_path / name)


def test_rows_of_metadata_caption_images_also_in_folders(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    make_images(tmp_path / "train", 2)
    (tmp_path / "image-001.txt").unlink()
    write_rows(
        tmp_path,
        {"file_name": "image-001.png", "text": " a  fox "},
        {"file_name": "train/image-000.png", "caption": "ein Fuchs\u2028im Schnee", "text": None},
        "",
        {"file_name": "train/image-001.png", "prompt": "狐狸", "text_length": 2},
    )
    listing = list_folder(tmp_path)
    assert (listing.problems, listing.notes) == (
        [],
        ["2 images have a caption in metadata.jsonl and in a .txt file: metadata.jsonl is used"],
    )
    assert captions_of(tmp_path) == {
        "image-000.png": "box 0",
        "image-001.png": "a fox",
        "train/image-000.png": "ein Fuchs im Schnee",
        "train/image-001.png": "狐狸",
    }


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([1], "has no file_name"),
        ({"text": "a fox"}, "has no file_name"),
        ({"file_name": 3, "text": "a fox"}, "has no file_name"),
        ({"file_name": "absent.png", "text": "a fox"}, "names absent.png, which is not there or no image"),
        ({"file_name": "x" * 5000 + ".png", "text": "a fox"}, "which is not there"),
        ({"file_name": "image-000.txt", "text": "a fox"}, "which is not there or no image"),
        ({"file_name": "../x.png", "text": "a fox"}, "names ../x.png, which is not inside of the folder"),
        ({"file_name": "/etc/x.png", "text": "a fox"}, "which is not inside"),
        ({"file_name": "a\0.png", "text": "a fox"}, "names a\\x00.png, which is not inside"),
        ({"file_name": "image-000.png"}, "has no caption: add one of text, caption, prompt"),
        ({"file_name": "image-000.png", "text": ["a"]}, "has no caption"),
        ({"file_name": "image-001.png", "text": "again"}, "names image-001.png, as line 1 does"),
    ],
)
def test_rows_that_cannot_be_used_are_named_by_line(tmp_path: Path, row: object, complaint: str) -> None:
    make_images(tmp_path, 2)
    write_rows(tmp_path, {"file_name": "image-001.png", "text": "a fox"}, row)
    [problem] = list_folder(tmp_path).problems
    assert problem.startswith("metadata.jsonl line 2 ")
    assert complaint in problem


def test_metadata_in_another_encoding_is_named(tmp_path: Path) -> None:
    make_images(tmp_path, 1)
    (tmp_path / "metadata.jsonl").write_bytes(
        '{"file_name": "image-000.png", "text": "été"}'.encode("cp1252")
    )
    [problem] = list_folder(tmp_path).problems
    assert problem.startswith("metadata.jsonl cannot be read")
    assert "looks like cp1252" in problem


def test_repeat_folders_give_repeats_and_a_caption_where_there_is_none(tmp_path: Path) -> None:
    for name in ("10_sks fox", "2_dog_in_snow", "000_no", "5", "quarantine", "x_3"):
        make_images(tmp_path / name, 2)
    (tmp_path / "10_sks fox" / "image-001.txt").unlink()
    (tmp_path / "2_dog_in_snow" / "image-000.txt").unlink()
    listing = list_folder(tmp_path)
    found = {image.name: (image.repeats, caption_for(image, FILE)) for image in listing.images}
    assert found == {
        "10_sks fox/image-000.png": (10, "box 0"),
        "10_sks fox/image-001.png": (10, "sks fox"),
        "2_dog_in_snow/image-000.png": (2, "dog in snow"),
        "2_dog_in_snow/image-001.png": (2, "box 1"),
    }
    assert listing.notes == [f"3 folders inside of {tmp_path.name} are not read: 000_no, 5, x_3"]


def test_a_link_that_leads_nowhere_is_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    make_images(tmp_path, 1)
    (tmp_path / "gone.png").symlink_to("nowhere.png")
    assert [image.name for image in list_folder(tmp_path).images] == ["gone.png", "image-000.png"]


def test_names_are_shown_on_one_line_whatever_they_hold() -> None:
    assert shown("a\nb\x1b[31m.png") == "a\\nb\\x1b[31m.png"
    assert shown(os.fsdecode(b"\xff.png")) == "\\udcff.png"
    assert shown("狐狸 é 🦊.png") == "狐狸 é 🦊.png"


@given(st.text(st.characters(exclude_categories=[])))
def test_any_name_can_be_printed(name: str) -> None:
    assert shown(name).isprintable()
    assert is_text(shown(name))
    assert is_text(name) == (name.encode(errors="ignore").decode() == name)
