"""Any value survives the way through an override: Hydra's grammar, then the composed configuration."""

from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
import pytest

from conf.compose import load_config
from conf.quoting import override, quote

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda text: text != "???"
)
NASTY = st.text(st.sampled_from("\\'\"${}[]()=,: \t\n#a~+@?|é数")).filter(lambda text: text != "???")
NUMBER = st.integers() | st.floats(allow_nan=False)
PLAIN = st.none() | st.booleans() | NUMBER | TEXT | NASTY
VALUE = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{3,8}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=5,
)


def read_back(text: str) -> Any:
    """What Hydra and OmegaConf make of an override's value."""
    parsed = OverridesParser.create().parse_override(text)
    node = OmegaConf.create({"value": parsed.value()})
    return OmegaConf.to_container(node, resolve=True)["value"]  # type: ignore[index,call-overload]


@settings(max_examples=100, deadline=None)
@given(VALUE)
def test_every_value_is_read_back_unchanged(value: Any) -> None:
    back = read_back(override("key", value))
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    "text",
    [
        "a,b",
        "lr=1",
        "it's",
        'a "b"',
        "[x]",
        "{x}",
        "a b",
        "",
        "null",
        "TRUE",
        "1e3",
        "naïve/数",
        "C:\\dir\\",
        "${seed}",
    ],
)
def test_text_reaches_the_composed_configuration(text: str) -> None:
    config = load_config([override("dataset.path", text), override("tracker.project", text)])
    assert config.dataset.path == text
    assert config.tracker.project == text


@pytest.mark.parametrize("value", ["a\0b", "???", {"a b": 1}, {1: 2}, object()])
def test_what_hydra_cannot_write_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        quote(value)
