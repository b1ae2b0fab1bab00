"""What is put around a caption: prefix, suffix, special words."""

from collections.abc import Sequence
import re


def dress(caption: str, prefix: str, suffix: str, special_words: Sequence[str]) -> str:
    """prefix, those special words that are lacking, caption, suffix: parted by a space, save before punctuation.

    Case counts for special words: a trigger word has to stand as it will be prompted.
    """
    written = " ".join([prefix, caption, suffix])
    lacking = [word for word in special_words if not _has(written, word)]
    text = " ".join(" ".join([prefix, *lacking, caption]).split())
    glue = "" if re.match(r"\s*[,;.，；。、]", suffix) else " "
    return " ".join(f"{text}{glue}{suffix.strip()}".split())


def _has(text: str, word: str) -> bool:
    """As a whole word; Chinese and its like have no spaces to tell."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, flags=re.ASCII) is not None
