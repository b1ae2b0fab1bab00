"""Templates become pages: html that is safe whatever a study is called, and markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATES = Path(__file__).parent / "templates"


def markdown_cell(value: object) -> str:
    """A text as one cell of a markdown table."""
    return " ".join(str(value).split("\n")).replace("\\", "\\\\").replace("|", "\\|")


def render(name: str, context: dict[str, Any]) -> str:
    """A template filled in; an undefined name in it is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    page = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html.j2"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters["cell"] = markdown_cell
    return page.get_template(name).render(context)
