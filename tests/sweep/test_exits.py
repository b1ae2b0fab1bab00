"""What became of a trainer that did not say it itself."""

from pathlib import Path

import pytest

from curves.run_folder import RunFolder
from sweep.exits import explain_exit, log_tail

LAUNCHED = "subprocess.CalledProcessError: Command '['python', 'train.py']' "
CASES = [
    (-9, [], "crashed", "SIGKILL"),
    (-15, ["Terminated"], "crashed", "SIGTERM"),
    (
        1,
        ["Traceback", "RuntimeError: no", LAUNCHED + "returned non-zero exit status 1."],
        "crashed",
        "RuntimeError: no",
    ),
    (1, [LAUNCHED + "died with <Signals.SIGKILL: 9>."], "crashed", "memory runs out"),
    (1, [LAUNCHED + "died with <Signals.SIGSEGV: 11>."], "crashed", "SIGSEGV"),
    (1, ["error: lr=x: y", LAUNCHED + "returned non-zero exit status 2."], "config_error", "lr=x: y"),
    (1, ["ValueError: bad", "  exitcode  : 1 (pid: 77)"], "crashed", "ValueError: bad"),
    (1, ["error: lr=x: y", "  exitcode  : 2 (pid: 77)"], "config_error", "lr=x: y"),
    (2, ["usage: x", "x.py: error: unrecognized arguments: -a"], "config_error", "unrecognized"),
    (2, [], "config_error", "refused"),
    (0, ["done"], "crashed", "without an outcome"),
    (7, ["something"], "crashed", "exit status 7"),
]


@pytest.mark.parametrize(("status", "log", "outcome", "reason"), CASES)
def test_exit_is_explained(status: int, log: list[str], outcome: str, reason: str) -> None:
    told, why = explain_exit(status, log)
    assert told == outcome
    assert reason in why
    assert not why.startswith("error:")


def test_only_this_session_of_the_log_counts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert log_tail(folder) == []
    folder.log.write_text("error: old\n", encoding="utf-8")
    start = folder.log.stat().st_size
    with folder.log.open("a", encoding="utf-8") as file:
        file.write("x" * 50_000 + "\n\nlast\n")
    assert log_tail(folder, start)[-1] == "last"
    assert "error: old" not in log_tail(folder, start)
    assert log_tail(folder, 10**9) == []
