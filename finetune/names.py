"""How a file's name is shown in messages: on one line, and printable everywhere."""

from pathlib import Path


def shown(path: Path | str) -> str:
    """A name with control characters, and bytes that are not UTF-8, as backslash escapes."""
    return "".join(
        item if item.isprintable() else item.encode("unicode_escape").decode("ascii") for item in str(path)
    )


def is_text(text: str) -> bool:
    """Whether a text can be written as UTF-8: it holds no lone surrogate."""
    return not any("\ud800" <= item <= "\udfff" for item in text)
