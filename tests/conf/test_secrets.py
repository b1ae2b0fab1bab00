"""What is written of a text that holds secrets."""

import pytest

from conf.secrets import redact, redact_text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("at postgresql://me:pass@host/base", "at postgresql://me:***@host/base"),
        ("postgresql://me:p@ss@host/base or", "postgresql://me:***@host/base or"),
        ("postgresql://me:${oc.env:NAME}@host/base", "postgresql://me:${oc.env:NAME}@host/base"),
        ("postgresql://me:${oc.env:NAME}@ss@host/base", "postgresql://me:***@host/base"),
        ("hub_token=abc, lr=1", "hub_token=***, lr=1"),
        ("+launch.environment.API_KEY=***: give it", "+launch.environment.API_KEY=***: give it"),
        ("API_KEY=${oc.env:API_KEY}", "API_KEY=${oc.env:API_KEY}"),
        ("run.py --password abc --steps 3", "run.py --password *** --steps 3"),
        ("captions.token=sks", "captions.token=sks"),  # the rare word of a subject
    ],
)
def test_texts(text: str, written: str) -> None:
    assert redact_text(text) == written
    assert redact_text(written) == written


def test_nested_values_are_redacted_by_their_keys() -> None:
    value = {
        "a": {"wandb_api_key": "abc", "steps": 3},
        "command": ["x", "--hub_token", "abc", "--steps", "3"],
    }
    written = {
        "a": {"wandb_api_key": "***", "steps": 3},
        "command": ["x", "--hub_token", "***", "--steps", "3"],
    }
    assert redact(value) == written
