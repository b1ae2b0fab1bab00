"""The live table as a person sees it: a real terminal of 80 and of 160 columns, captured from tmux."""

from collections.abc import Iterator
import os
from pathlib import Path
import shlex
import subprocess
import sys
import time

import pytest

from tests.sweep.harness import ROOT, TRAINER, Sweep, wait_until

pytestmark = pytest.mark.services


class Terminal:
    """A tmux session of its own server."""

    def __init__(self, socket: Path, columns: int) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        command = [
            *self._tmux,
            "new-session",
            "-d",
            "-x",
            str(columns),
            "-y",
            "30",
            "bash",
            "--norc",
            "--noprofile",
        ]
        subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "LANG": "C.UTF-8", "PS1": "$ "})

    def type(self, line: str) -> None:
        subprocess.run([*self._tmux, "send-keys", line, "Enter"], check=True)

    def screen(self) -> str:
        done = subprocess.run([*self._tmux, "capture-pane", "-p"], check=True, capture_output=True, text=True)
        return done.stdout

    def close(self) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False)


@pytest.fixture(params=[80, 160])
def terminal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Terminal, int]]:
    terminal = Terminal(tmp_path / "tmux", request.param)
    yield terminal, request.param
    terminal.close()


def test_the_live_table_is_legible(terminal: tuple[Terminal, int], sweep: Sweep) -> None:
    window, columns = terminal
    words = [sys.executable, "-m", "sweep", "run", *sweep.arguments("sweep.factors={dataset_size: [n4, n8]}")]
    assert TRAINER.exists()
    script = sweep.runs_dir.parent / "command.sh"
    script.parent.mkdir(exist_ok=True)
    script.write_text("export STAND_IN='{\"step_s\": 0.02}'\n" + shlex.join(words) + "\necho status $?\n")
    window.type(f"clear; bash {shlex.quote(str(script))}")
    seen = wait_until(lambda: _screen_with(window, "n8"), "both cells on the screen")
    assert all(len(line) <= columns for line in seen.splitlines())
    for word in ("trial", "cell", "step", "n4"):
        assert word in seen, seen
    assert any(bar in seen for bar in "▁▂▃▄▅▆▇█"), seen
    end = wait_until(lambda: _screen_with(window, "status 0"), "the end of the sweep")
    assert "analysis report" in end


def _screen_with(window: Terminal, word: str) -> str | None:
    time.sleep(0.05)
    screen = window.screen()
    return screen if word in screen and (word != "n8" or any(bar in screen for bar in "▁▂▃▄▅▆▇█")) else None
