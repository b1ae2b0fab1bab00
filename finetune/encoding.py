"""From the bytes of a caption file to text: UTF-8, or GBK where the bytes are plainly Chinese."""

from collections.abc import Callable
import re

MARKS = {  # byte-order marks; UTF-32's first, since it starts with UTF-16's
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
LIKELY = 0.5  # share of a text's non-ASCII characters that must be usual ones of its language


def decode_caption(data: bytes, encoding: str = "auto") -> str:
    """The text of a caption file.

    `auto` takes a byte-order mark at its word, then UTF-8, then GBK (as its superset GB18030) where most of the
    characters would be usual Chinese ones and no other encoding fits as well.

    Args:
        data: the file.
        encoding: auto, or the name of a text encoding that Python knows.

    Raises:
        ValueError: the bytes are not in this encoding; with `auto`, the likely ones are named.
    """
    if encoding != "auto":
        try:
            return data.decode(encoding).removeprefix("\ufeff")
        except UnicodeError as error:
            raise ValueError(f"is not in the encoding {encoding} ({_reason(error)})") from error
    for mark, name in MARKS.items():
        if data.startswith(mark):
            try:
                return data.decode(name)
            except UnicodeError as error:
                raise ValueError(
                    f"starts with the mark of {name} and then is not ({_reason(error)})"
                ) from error
    if b"\0" in data:
        wide = "utf-16-be" if data[:1] == b"\0" else "utf-16-le"
        raise ValueError(f"holds zero bytes: it looks like {wide}, or is no text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    shares = plausible_encodings(data)
    if shares and shares[0] == "gb18030":
        return data.decode("gb18030")
    likely = f"looks like {' or '.join(shares[:3])}" if shares else "looks like no text"
    raise ValueError(f"is neither UTF-8 nor plainly GBK: it {likely}")


def plausible_encodings(data: bytes) -> list[str]:
    """The encodings that bytes which are not UTF-8 may be in, the likeliest first."""
    shares: dict[str, float] = {}
    for name, usual in _USUAL.items():
        try:
            text = data.decode(name)
        except UnicodeDecodeError:
            continue
        others = sum(not item.isascii() for item in text)
        share = usual(text) / others if others else 0.0
        if share >= LIKELY:
            shares[name] = share
    # Of equals the one that stands first below.
    return sorted(shares, key=lambda name: -shares[name])


def _reason(error: UnicodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"{error.reason} at byte {error.start}"
    return str(error)


def _chinese(text: str) -> float:
    """Usual hanzi and full-width marks count in full, rarer ones less: a wrong guess is made of rare ones."""
    count = 0.0
    for item in text:
        if item.isascii():
            continue
        try:
            lead = item.encode("gb2312")[0]
        except UnicodeEncodeError:
            count += 0.7 if "\u4e00" <= item <= "\u9fff" else 0.0
        else:
            # GB2312 rows: A1-A3 marks and full-width forms, B0-D7 the usual hanzi by sound, D8-F7 the rarer ones.
            count += 1.0 if lead <= 0xA3 or 0xB0 <= lead <= 0xD7 else 0.8 if lead >= 0xD8 else 0.0
    return count


def _traditional(text: str) -> float:
    """Big5's usual hanzi (A4-C6), which have few strokes first, and its marks (A1-A3)."""
    return sum(0xA1 <= item.encode("big5")[0] <= 0xC6 for item in text if not item.isascii())


def _japanese(text: str) -> float:
    """Kana; kanji only in a text that has kana, for Japanese is not written without."""
    kana = len(re.findall(r"[\u3041-\u3096\u30a1-\u30fc]", text))
    return kana + len(re.findall(r"[\u4e00-\u9fff\u3001\u3002\uff01-\uff5e]", text)) if kana else 0.0


def _korean(text: str) -> float:
    """Syllables; a little more than Chinese where spaces part them, as Chinese is not written."""
    syllables = len(re.findall(r"[\uac00-\ud7a3]", text))
    spaced = syllables >= 4 and re.search(r"[\uac00-\ud7a3] [\uac00-\ud7a3]", text)
    return syllables * (1.01 if spaced else 0.99)


def _cyrillic(text: str) -> float:
    """Small letters, and a capital where a word starts."""
    return float(sum(map(len, re.findall(r"\b[А-ЯЁ]?[а-яё]+\b", text))))


def _latin(text: str) -> float:
    """Accented letters, one or two at once, beside ASCII ones; and typographic marks."""
    accented = "[À-ÖØ-öø-ÿŠšŽžŒœŸ]"
    alone = rf"(?<![^\x00-\x7f])(?:(?<=[A-Za-z]){accented}|{accented}(?=[A-Za-z]))(?![^\x00-\x7f])"
    double = rf"(?<=[A-Za-z]){accented}{{2}}(?=[a-z])"
    marks = r"[‘’“”–—…€](?![^\x00-\x7f])"
    return float(sum(map(len, re.findall(f"{alone}|{double}|{marks}", text))))


_USUAL: dict[str, Callable[[str], float]] = {
    "gb18030": _chinese,
    "big5": _traditional,
    "shift_jis": _japanese,
    "euc_jp": _japanese,
    "euc_kr": _korean,
    "cp1251": _cyrillic,
    "cp1252": _latin,
}
