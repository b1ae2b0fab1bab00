"""Bytes of captions: what is decoded comes out as it was written, and what is not is named."""

import codecs

from hypothesis import given
from hypothesis import strategies as st
import pytest

from finetune.encoding import decode_caption

USUAL_HANZI = [bytes([row, cell]).decode("gb2312") for row in range(0xB0, 0xD7) for cell in range(0xA1, 0xFF)]
ASCII = st.text(st.sampled_from("abcdefgh ,."), max_size=8)


@given(st.text())
def test_utf8_comes_out_as_it_was_written(text: str) -> None:
    if "\0" not in text and not text.startswith("\ufeff"):
        assert decode_caption(text.encode()) == text
        assert decode_caption(codecs.BOM_UTF8 + text.encode()) == text


@given(st.text(), st.sampled_from(["utf-16", "utf-32"]))
def test_a_mark_is_taken_at_its_word(text: str, encoding: str) -> None:
    # UTF-16 that starts with a zero character reads as UTF-32.
    if not text.startswith("\0"):
        assert decode_caption(text.encode(encoding)) == text


@given(ASCII, st.lists(st.sampled_from(USUAL_HANZI), min_size=4, max_size=20), ASCII)
def test_chinese_in_gbk_is_never_read_as_something_else(before: str, hanzi: list[str], after: str) -> None:
    text = f"{before} {''.join(hanzi)}，{after}"
    data = text.encode("gbk")
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        assert decode_caption(data) == text
    assert decode_caption(data, "gbk") == text


@given(st.binary())
def test_bytes_are_text_or_a_value_error(data: bytes) -> None:
    try:
        text = decode_caption(data)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(text, str)


@pytest.mark.parametrize(
    "text",
    [
        "一只戴帽子的猫，坐在草地上",
        "红",
        "白猫, 高清, 杰作",
        "sks 狗 在雪地里",
        "東京的夜景",
        "“引号”和——破折号",
    ],
)
def test_gbk_captions_as_people_write_them(text: str) -> None:
    assert decode_caption(text.encode("gbk")) == text


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("一隻紅色的狐狸", "big5"),
        ("台北的夜景", "big5"),
        ("猫がいる", "shift_jis"),
        ("東京タワーの夜景", "euc_jp"),
        ("빨간 여우 한 마리", "euc_kr"),
        ("рыжая лиса", "cp1251"),
        ("le château à côté", "cp1252"),
        ("Übergrößen", "cp1252"),
    ],
)
def test_other_encodings_are_named_not_guessed(text: str, encoding: str) -> None:
    with pytest.raises(ValueError, match=rf"neither UTF-8 nor plainly GBK: it looks like {encoding}"):
        decode_caption(text.encode(encoding))
    assert decode_caption(text.encode(encoding), encoding) == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_wide_text_without_a_mark_is_named(encoding: str) -> None:
    with pytest.raises(ValueError, match=f"looks like {encoding}"):
        decode_caption("a fox".encode(encoding))


def test_a_mark_that_lies_is_named() -> None:
    with pytest.raises(ValueError, match="starts with the mark of utf-16 and then is not"):
        decode_caption(b"\xff\xfea")
