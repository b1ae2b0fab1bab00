"""Who may import whom: data flows one way, and what must start fast never loads torch."""

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("conf", "curves", "finetune", "analysis", "sweep")
ALLOWED = {
    "conf": {"conf"},
    "curves": {"curves"},
    "finetune": {"conf", "curves", "finetune"},
    "train.py": {"conf", "finetune"},
    "analysis": {"conf", "curves", "analysis"},
    "sweep": {"conf", "curves", "analysis", "sweep"},
}
HEAVY = {"torch", "diffusers", "transformers", "peft", "accelerate"}
MAY_BE_HEAVY = {"finetune"}


def imports_of(path: Path) -> set[str]:
    """Top-level names of every module that a file imports, wherever in the file the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add((node.module or "").split(".")[0])
    return found


def sources(place: str) -> list[Path]:
    files = [ROOT / place] if place.endswith(".py") else sorted((ROOT / place).rglob("*.py"))
    assert files, place
    return files


@pytest.mark.parametrize("place", sorted(ALLOWED))
def test_imports_follow_the_direction_of_the_data(place: str) -> None:
    for path in sources(place):
        imported = imports_of(path)
        ours = imported & (set(PACKAGES) | {"train", "tests"})
        assert ours <= ALLOWED[place], f"{path.relative_to(ROOT)} imports {sorted(ours - ALLOWED[place])}"
        if place not in MAY_BE_HEAVY:
            assert not imported & HEAVY, f"{path.relative_to(ROOT)} imports {sorted(imported & HEAVY)}"


def test_package_init_files_are_empty() -> None:
    for package in PACKAGES:
        for path in (ROOT / package).rglob("__init__.py"):
            assert path.read_text() == "", path


def test_light_packages_leave_torch_unloaded() -> None:
    modules = []
    for package in ("sweep", "analysis", "curves", "conf"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__main__.py":
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                modules.append(name.removesuffix(".__init__"))
    program = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        f"print(sorted(loaded & {HEAVY!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
