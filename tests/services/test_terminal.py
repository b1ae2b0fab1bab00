"""A sweep as a person sees it: a real terminal of 80 and of 160 columns, captured from tmux; and a log file."""

from collections.abc import Iterator
import json
import os
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from tests.sweep.harness import ROOT, TRAINER, Sweep, wait_until

pytestmark = pytest.mark.services
CELLS = "sweep.factors={dataset_size: [n4, n16], method: [lora, dreambooth_lora]}"
NAMES = [f"{size}-{method}-native-tiny" for method in ("lora", "dreambooth_lora") for size in ("n4", "n16")]
LIMITS = (
    "captions.class_word=dog",
    "sweep.limits.hours=2",
    "sweep.limits.gpu_hours=3",
    "sweep.limits.disk_gb=1",
    "sweep.limits.cost=10",
    "sweep.limits.price_per_gpu_hour=2",
)
BAR = "[▁▂▃▄▅▆▇█]"


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


def begin(window: Terminal, sweep: Sweep, *overrides: str, **stand_in: object) -> None:
    words = [sys.executable, "-m", "sweep", "run", *sweep.arguments(CELLS, *LIMITS, *overrides)]
    assert TRAINER.exists()
    script = sweep.runs_dir.parent / "command.sh"
    script.parent.mkdir(exist_ok=True)
    variable = f"export STAND_IN={shlex.quote(json.dumps(stand_in))}\n"
    script.write_text(variable + shlex.join(words) + "\necho status $?\n", encoding="utf-8")
    window.type(f"clear; bash {shlex.quote(str(script))}")


def rows_of(screen: str) -> list[str]:
    return [line for line in screen.splitlines() if re.match(r"\d{4} ", line)]


def test_the_live_table_is_legible(terminal: tuple[Terminal, int], sweep: Sweep) -> None:
    window, columns = terminal
    hold = str(sweep.hold)
    begin(window, sweep, "sweep.trials=2", "launch.slots=4", hold=hold)

    def all_four() -> str | None:
        screen = window.screen()
        return screen if len(rows_of(screen)) == 4 and screen.count(" 32/64 ") == 4 else None

    screen = wait_until(all_four, "four trials at half of their steps")
    for line, number in zip(rows_of(screen), range(4), strict=True):
        name = next(name for name in NAMES if f" {name} " in line)  # a whole one
        assert re.fullmatch(rf"{number:04d} +{name} +32/64 +0\.\d{{4}} +{BAR}+ +\d+s +running", line), line
    text = " ".join(screen.split())
    assert "s: 0 of 8 trials done, 4 running, elapsed " in text
    for amount in (" of 2 hours", " of 3 device-hours", " of 1 GB", " of 10 USD"):
        assert any(re.search(rf"[\d.]+{amount}\b", line) for line in screen.splitlines()), screen
    assert all(len(line) <= columns for line in screen.splitlines())

    sweep.hold.touch()
    end = wait_until(lambda: found(window, "status 0"), "the end of the sweep")
    assert len(rows_of(end)) == 8
    for name in NAMES:
        assert f"  {name}: 2 complete; lowest held-out loss 0." in end
    assert "analysis report" in " ".join(end.split())


@pytest.mark.parametrize("terminal", [80], indirect=True)
def test_a_hundred_trials_fit_a_screen(terminal: tuple[Terminal, int], sweep: Sweep) -> None:
    window, _ = terminal
    overrides = ("sweep.trials=25", "launch.slots=4")
    begin(window, sweep, *overrides, diverge=[1], hold=str(sweep.hold), step_s=0)
    wait_until(lambda: found(window, "diverged"), "a trial that diverged")
    wait_until(lambda: window.screen().count(" 32/64 ") >= 5, "four trials beside it")
    assert [line.split()[-1] for line in rows_of(window.screen())] == ["running"] * 4 + ["diverged"]
    sweep.hold.touch()
    end = wait_until(lambda: found(window, "status 0"), "the end of the sweep", seconds=240)
    numbers = [int(line[:4]) for line in rows_of(end)]  # the first ones have made room for what follows
    assert numbers == sorted(numbers, reverse=True) and numbers[0] > 90 and numbers[-1] == 1
    assert re.search(r"^\d\d that have ended are not shown$", end, flags=re.MULTILINE)


def test_the_log_of_a_sweep_without_a_terminal_is_plain(sweep: Sweep) -> None:
    lines = sweep.run(CELLS, *LIMITS, "sweep.trials=2", "launch.slots=4", diverge=[2]).splitlines()
    assert lines[0] == f"{sweep.study}: 4 cells, 8 trials, 4 at once"
    assert sum(line.startswith("started 000") for line in lines) == 8
    ended = re.compile(r"complete 000\d-\S+ at step 64, lowest held-out loss 0\.\d{4}")
    assert sum(ended.fullmatch(line) is not None for line in lines) == 7
    assert sum(line.startswith("diverged 0002-") and "see " in line for line in lines) == 1
    assert not any("\x1b" in line or line != line.rstrip() for line in lines)
    assert lines[-1].startswith("next: python -m analysis report ")


def found(window: Terminal, word: str) -> str | None:
    screen = window.screen()
    return screen if word in screen else None
