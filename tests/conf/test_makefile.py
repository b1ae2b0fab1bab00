"""`make install` on a machine that is not ready for it."""

from pathlib import Path
import shutil
import subprocess

ROOT = Path(__file__).resolve().parents[2]


def test_broken_environment_is_made_anew(tmp_path: Path) -> None:
    """Debian without python3-venv leaves an environment that has a python and no pip."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    broken = tmp_path / ".venv" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    script(broken, "exit 1")
    python = tmp_path / "python3"
    script(python, f'echo "$@" > made; printf "#!/bin/sh\\n" > {broken}')
    subprocess.run(["make", "install", f"PYTHON={python}"], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "made").read_text() == "-m venv --clear .venv\n"
    (tmp_path / "made").unlink()
    (tmp_path / "constraints.txt").touch()
    subprocess.run(["make", "--always-make", "install"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "made").exists()  # a sound one is kept


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
