"""`sweep dashboard`: optuna-dashboard answers for the study, and nothing is written into it."""

from collections.abc import Iterator
import json
from pathlib import Path
import re
import signal
import socket
import subprocess
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from conf.errors import RequestError
from sweep.commands import main
from tests.sweep.harness import Sweep

pytestmark = pytest.mark.long

OPEN = build_opener(ProxyHandler({})).open  # this machine only, whatever the environment says of proxies


@pytest.fixture
def dashboard(sweep: Sweep) -> Iterator[tuple[Sweep, str, "subprocess.Popen[str]"]]:
    """A study that has ended, the address that the dashboard prints, and its process."""
    sweep.run("sweep.factors={dataset_size: [n8]}", "sweep.trials=2")
    process = sweep.start("dashboard", str(sweep.study), "--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    address = re.match(r"http://127\.0\.0\.1:\d+(?=/dashboard shows s; Ctrl-C ends)", line)
    assert address is not None, line
    yield sweep, address[0], process


def answer(request: str | Request) -> Any:
    with OPEN(request, timeout=60) as response:
        return json.loads(response.read())


def test_the_dashboard_shows_the_study_and_changes_nothing(
    dashboard: tuple[Sweep, str, "subprocess.Popen[str]"],
) -> None:
    sweep, address, process = dashboard
    before = {path: path.read_bytes() for path in sweep.study.rglob("*") if path.is_file()}
    with OPEN(f"{address}/dashboard", timeout=60) as response:
        assert b"<title>" in response.read()
    (summary,) = answer(f"{address}/api/studies")["study_summaries"]
    name = "n8-lora-native-tiny" if sweep.storage is None else "s/n8-lora-native-tiny"
    assert summary["study_name"] == name
    trials = answer(f"{address}/api/studies/{summary['study_id']}?after=0")["trials"]
    assert [trial["state"] for trial in trials] == ["Complete", "Complete"]

    for method, path in (("DELETE", f"studies/{summary['study_id']}"), ("POST", "studies")):
        with pytest.raises(HTTPError) as refused:
            answer(Request(f"{address}/api/{path}", data=b"{}", method=method))
        with refused.value as error:
            assert error.code == 405 and b"nothing is written" in error.read()
    process.send_signal(signal.SIGINT)
    assert "Traceback" not in sweep.end_of(process, 0)
    assert {path: path.read_bytes() for path in sweep.study.rglob("*") if path.is_file()} == before


def test_a_taken_port_and_other_mistakes(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="study=s: there is no such study"):
        main(["dashboard", "s", f"runs_dir={tmp_path}"])
    sweep.run("sweep.trials=1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = sweep.end_of(sweep.start("dashboard", str(sweep.study), f"--port={port}"), 2)
    assert (
        said == f"error: --port {port}: Address already in use: take another, for example --port {port + 1}\n"
    )
    for text in ("high", "-1", "70000", ""):
        with pytest.raises(RequestError, match="must be a number up to 65535"):
            main(["dashboard", str(sweep.study), "--port", text])
    with pytest.raises(RequestError, match=r"seed=3: dashboard takes a study, --port N and sweep\.storage"):
        main(["dashboard", str(sweep.study), "seed=3"])
    if sweep.storage is None:
        (sweep.study / "journal.log").unlink()
        with pytest.raises(RequestError, match=r"has no journal\.log yet"):
            main(["dashboard", str(sweep.study)])
