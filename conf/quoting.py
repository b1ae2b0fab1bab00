"""Values as Hydra overrides: whatever the value holds, Hydra reads back the same value."""

from collections.abc import Mapping, Sequence
import re
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString

_PLAIN = re.compile(r"/?[A-Za-z_][A-Za-z0-9_/.+-]*")  # read by Hydra as a string without quotes
_WORDS = frozenset(("null", "true", "false", "inf", "nan"))  # unless it is one of these, in any case
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def override(key: str, value: Any) -> str:
    """One `key=value` that Hydra reads back as exactly this value.

    Raises:
        ValueError: Hydra has no way to write the value (see `quote`).
    """
    return f"{key}={quote(value)}"


def quote(value: Any) -> str:
    """A value in Hydra's override grammar: null, bool, int, float, str, list or dict with plain keys.

    Raises:
        ValueError: a text with a NUL character, the text `???`, a dict key that is no word, or another type.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quote_text(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_check_key(key)}:{quote(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ",".join(quote(item) for item in value) + "]"
    raise ValueError(f"{value!r}: a {type(value).__name__} cannot be written as a Hydra override")


def _quote_text(text: str) -> str:
    if "\0" in text or text == "???":
        raise ValueError(f"{text!r} cannot be written as a Hydra override")
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    # `${` would be read as an interpolation: it is escaped, and so are the backslashes right before it
    escaped = _INTERPOLATION.sub(lambda match: match[1] * 2 + "\\${", text)
    return QuotedString(escaped, Quote.single).with_quotes()


def _check_key(key: object) -> str:
    if not isinstance(key, str) or not _KEY.fullmatch(key) or key.lower() in _WORDS:
        raise ValueError(f"{key!r} cannot be the key of a mapping in a Hydra override")
    return key
