"""Every formula in docs/method.md names the function that computes it, and every such function its section there."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
import re

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "method.md"
PACKAGES = ("analysis", "conf", "curves", "finetune", "sweep")
NAME = re.compile(rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)+)`")
SECTION = re.compile(r"docs/method\.md, sections? (\d+(?:(?:, | and )\d+)*)")
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Formula:
    """An indented block with the line below it, which names its functions in brackets."""

    section: int
    line: int
    text: str
    functions: tuple[str, ...]


def formulas(text: str) -> list[Formula]:
    """The indented blocks of a page; fenced code is none."""
    found: list[Formula] = []
    section, fenced, block, start = 0, False, [], 0
    lines = text.splitlines()
    for number, line in enumerate([*lines, ""], start=1):
        if line.startswith("```"):
            fenced = not fenced
        heading = re.match(r"## (\d+)\. ", line)
        section = int(heading[1]) if heading else section
        if not fenced and re.match(r" {4,}\S", line):
            start = start if block else number
            block.append(line)
        elif block and line.strip():
            found.append(_formula(section, start, block, line))
            block = []
    return found + ([_formula(section, start, block, "")] if block else [])


def _formula(section: int, line: int, block: list[str], after: str) -> Formula:
    named = re.match(r"\s*\((.*?)\)", after)
    inside = re.search(r"\((`.*?)\)\s*$", block[-1])
    text = (inside[1] if inside else "") + (named[1] if named else "")
    return Formula(section, line, "\n".join(block), tuple(NAME.findall(text)))


def definitions(module: Path) -> Iterator[tuple[str, Definition]]:
    """Functions, classes and methods of a module by name: join, Linear, Linear.draw."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, Definition):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def find(name: str) -> Definition | None:
    """What a dotted name stands for, without importing it."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ROOT.joinpath(*parts[:length]).with_suffix(".py")
        if module.is_file():
            return dict(definitions(module)).get(".".join(parts[length:]))
    return None


def sections_named(node: Definition) -> set[int]:
    """Sections of docs/method.md that a docstring names."""
    found = SECTION.findall(" ".join((ast.get_docstring(node) or "").split()))
    return {int(number) for text in found for number in re.findall(r"\d+", text)}


FORMULAS = formulas(PAGE.read_text(encoding="utf-8"))


def test_the_page_has_formulas_in_every_section_that_computes_something() -> None:
    assert {1, 2, 3, 4, 5} <= {formula.section for formula in FORMULAS}


@pytest.mark.parametrize("formula", FORMULAS, ids=lambda formula: f"line {formula.line}")
def test_a_formula_names_functions_that_name_it_back(formula: Formula) -> None:
    assert formula.functions, f"no (`module.function`) below the formula:\n{formula.text}"
    for name in formula.functions:
        node = find(name)
        assert node is not None, f"{name}: there is no such function"
        assert formula.section in sections_named(node), (
            f"{name}: its docstring does not say docs/method.md, section {formula.section}"
        )


def test_what_a_docstring_points_to_names_the_function() -> None:
    text = PAGE.read_text(encoding="utf-8")
    parts = re.split(r"^## (\d+)\. .*$", text, flags=re.MULTILINE)
    named = {
        int(number): set(NAME.findall(body)) for number, body in zip(parts[1::2], parts[2::2], strict=True)
    }
    for package in PACKAGES:
        for module in sorted((ROOT / package).rglob("*.py")):
            dotted = ".".join(module.relative_to(ROOT).with_suffix("").parts)
            for name, node in definitions(module):
                for section in sections_named(node):
                    assert f"{dotted}.{name}" in named.get(section, set()), (
                        f"{dotted}.{name} points to section {section} of docs/method.md, which does not name it"
                    )


def test_the_reader_of_the_page_is_not_fooled() -> None:
    page = """## 1. One

    a = b

(`curves.panel.paired_difference`, `curves.grid.evaluation_steps`) is named.

- A list
  that goes on

        c = d    (`curves.panel.standard_error`)

```bash
    not a formula
```

## 2. Two

    e = f

and nothing (`curves.panel.paired_difference`).
"""
    assert [(item.section, item.functions) for item in formulas(page)] == [
        (1, ("curves.panel.paired_difference", "curves.grid.evaluation_steps")),
        (1, ("curves.panel.standard_error",)),
        (2, ()),
    ]
    assert find("curves.panel.Panel.name") is not None
    assert find("curves.panel.nothing") is None and find("nowhere.at_all") is None
