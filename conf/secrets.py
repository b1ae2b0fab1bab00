"""Secrets never reach a file or the screen: what counts as one, and what is written in its place."""

from collections.abc import Iterable, Iterator, Mapping
import re
from typing import Any

MARK = "***"
_NAME = re.compile(r"(.*[_-])?(api|hub|auth)?(token|key|password|passwd|secret|credentials?)", re.IGNORECASE)
_HARMLESS = ("captions.token",)  # the rare word that comes to name a subject
# Of a URL: everything up to its last @, unless that only says where the password is.
_PASSWORD = re.compile(r"(://[^\s:/@'\"]*):(?!\$\{[^}@]*\}@[^\s'\"@]*(?:[\s'\"]|$))[^\s'\"]+@")
_ASSIGNMENT = re.compile(
    r"""(?P<name>[\w.+~/-]+)(?P<sign>=)(?P<value>'[^']*'|"[^"]*"|[^\s,'"\]}{\[][^\s,'"\]}]*)"""
    r"""|(?<=[{,])(?P<entry>\s*["']?[\w-]+["']?\s*:\s*)(?P<held>'[^']*'|"[^"]*"|[^\s,'"\]}]+)"""
)

_FLAG = re.compile(
    r"""(?P<name>--?\w[\w-]*)(?P<sign>['"]?[\s,]+)(?P<value>'[^']*'|"[^"]*"|[^\s,'"\]}-][^\s,'"\]}]*)"""
)


def is_secret(key: str) -> bool:
    """Whether a key's name says that its value is a secret: hub_token, api_key, --password."""
    plain = key.strip(" +~-\"'")
    return plain not in _HARMLESS and _NAME.fullmatch(plain.rsplit(".", 1)[-1]) is not None


def redact(value: Any, key: str = "") -> Any:
    """A value of the configuration without the secrets in it; nested mappings and lists too."""
    if isinstance(value, Mapping):
        return {name: redact(item, f"{key}.{name}" if key else str(name)) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return list(redact_arguments(value, key))
    if value in (None, "") or isinstance(value, bool):
        return value
    if key and is_secret(key):
        return value if _refers(str(value)) else MARK
    return redact_text(value) if isinstance(value, str) else value


def redact_arguments(items: Iterable[Any], key: str = "") -> Iterator[Any]:
    """The items of a list, for example a command line: `--hub_token VALUE` hides the item after it."""
    hide = False
    for item in items:
        text = item if isinstance(item, str) else ""
        yield MARK if hide and not _refers(text) else redact(item, key)
        hide = text.startswith("-") and "=" not in text and is_secret(text)


def redact_text(text: str) -> str:
    """A text without passwords in URLs and without values of `secret=...` and `--secret ...`."""
    return _FLAG.sub(_hide_flag, _ASSIGNMENT.sub(_hide, _PASSWORD.sub(rf"\1:{MARK}@", text)))


def has_mark(item: str) -> bool:
    """Whether something was left out of a recorded override."""
    return MARK in item


def _hide(match: re.Match[str]) -> str:
    if match["name"] is not None:
        name, sign, value = match["name"], match["sign"], match["value"]
    else:
        name, sign, value = match["entry"].partition(":")[0], match["entry"], match["held"]
    if not is_secret(name) or _refers(value):
        return match[0]
    return f"{name}{sign}{MARK}" if match["name"] is not None else f"{sign}{MARK}"


def _hide_flag(match: re.Match[str]) -> str:
    hidden = is_secret(match["name"]) and not _refers(match["value"])
    return f"{match['name']}{match['sign']}{MARK}" if hidden else match[0]


def _refers(value: str) -> bool:
    """Whether a value only says where the secret is, as `${oc.env:HF_TOKEN}` does, or that it was left out."""
    return value.strip("'\"").startswith(("${", MARK))
