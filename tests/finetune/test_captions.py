"""The captions axis: what each of instance, class, file, short and dropout makes of an image's caption."""

import os
from pathlib import Path

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from conf.schema import Captions
from finetune.captions import MissingCaption, caption_for, first_phrase, written_caption
from finetune.folder import ListedImage


def image(folder: Path, caption: bytes | None = None, **known: str | None) -> ListedImage:
    path = folder / "cat.png"
    if caption is not None:
        path.with_suffix(".txt").write_bytes(caption)
    return ListedImage(path, path.name, **known)  # type: ignore[arg-type]


def axis(*overrides: str) -> Captions:
    return load_config(overrides).captions


def test_each_level_of_the_axis(tmp_path: Path) -> None:
    cat = image(tmp_path, b"a cat on a mat, sleeping. It is old.")
    assert caption_for(cat, axis("captions=file")) == "a cat on a mat, sleeping. It is old."
    assert caption_for(cat, axis("captions=short")) == "a cat on a mat"
    assert caption_for(cat, axis("captions=short", "captions.words=2")) == "a cat"
    assert caption_for(cat, axis("captions=class", "captions.class_word=cat")) == "a photo of cat"
    own = [
        "captions=class",
        "captions.class_word='old cat'",
        "captions.text='one {class_word}, {class_word}'",
    ]
    assert caption_for(cat, axis(*own)) == "one old cat, old cat"
    assert caption_for(cat, axis("captions=instance", "captions.text='sks cat'")) == "sks cat"
    dropout = axis("captions=dropout")
    assert caption_for(cat, dropout) == caption_for(cat, axis("captions=file"))
    assert dropout.dropout == 0.1


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (["captions=class"], r"captions\.class_word=null: captions\.text has a place for it"),
        (
            ["captions=class", "captions.class_word=' '"],
            r"captions\.class_word= : captions\.text has a place",
        ),
        (
            ["captions=class", "captions.class_word=cat", "captions.text=cat"],
            r"captions\.text=cat: .*\{class_word\}",
        ),
        (["captions=instance", "captions.text=null"], r"captions\.text=null: captions=instance needs"),
        (["captions=instance"], r"captions\.class_word=null: captions\.text has a place"),
        (["captions=instance", "captions.text='a {class_word}'"], r"captions\.class_word=null"),
        (["captions=short", "captions.words=0"], r"captions\.words=0: must be 1 or more"),
        (["captions.encoding=klingon"], r"captions\.encoding=klingon: must be auto, utf-8, gbk"),
        (["captions.encoding=hex"], r"captions\.encoding=hex: must be"),
        (["captions.source=files"], r"captions\.source=files: must be one of file, short, instance, class"),
    ],
)
def test_captions_that_make_no_sense_are_refused(overrides: list[str], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        load_config(overrides)


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(RequestError, match=r"captions\.text=.*is not UTF-8"):
        load_config(["captions=instance", f"captions.text='{os.fsdecode(bytes([0x61, 0xFF]))}'"])


def test_captions_lose_only_white_space(tmp_path: Path) -> None:
    assert written_caption(image(tmp_path, "\ufeff a  cat,\n é \n".encode())) == "a cat, é"


def test_the_first_that_says_something_counts(tmp_path: Path) -> None:
    assert written_caption(image(tmp_path, b"in the file", row_caption="in the row")) == "in the row"
    assert written_caption(image(tmp_path, b"in the file", folder_caption="of the folder")) == "in the file"
    (tmp_path / "cat.txt").unlink()
    assert written_caption(image(tmp_path, folder_caption="of the folder")) == "of the folder"
    with pytest.raises(MissingCaption, match=r"has no caption: write a \.txt file"):
        written_caption(image(tmp_path))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b" \n", "has a caption in its .txt file that is empty"),
        (b"a\xff\xfe", "caption file that cannot be read: it is neither"),
    ],
)
def test_unusable_captions_say_why(tmp_path: Path, content: bytes, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        written_caption(image(tmp_path, content))


def test_a_caption_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lone surrogates"):
        written_caption(image(tmp_path, row_caption="a \ud800"))


def test_another_encoding_can_be_named(tmp_path: Path) -> None:
    cat = image(tmp_path, "一隻貓".encode("big5"))
    assert caption_for(cat, axis("captions.encoding=big5")) == "一隻貓"
    with pytest.raises(ValueError, match="is not in the encoding utf-8"):
        caption_for(cat, axis("captions.encoding=utf-8"))


@pytest.mark.parametrize(
    ("caption", "phrase"),
    [
        ("a fox", "a fox"),
        ("a fox. In snow", "a fox"),
        ("version 1.5 of a fox, red", "version 1.5 of a fox"),
        (", a fox", "a fox"),
        ("一只狐狸，在雪地里。", "一只狐狸"),
        ("...", "..."),
        ("one two three four five six seven eight nine", "one two three four five six seven eight"),
    ],
)
def test_the_first_phrase(caption: str, phrase: str) -> None:
    assert first_phrase(caption, 8) == phrase
