"""Studies in a PostgreSQL database: the tests of the supervisor again, and what a shared database adds."""

from collections.abc import Iterator
import os
from pathlib import Path
import shutil
import socket
import subprocess
import sys

import pytest

from tests.sweep.harness import DATABASES, ROOT, Sweep, make_database
from tests.sweep.test_starts import RATES, best_rate, rates
from tests.sweep.test_supervisor import running

pytestmark = pytest.mark.services
PASSWORD = "correct-horse-battery"
CELL = "n8-lora-native-tiny"


def plain(sweep: Sweep) -> list[str]:
    """Arguments without the address of the database."""
    return [item for item in sweep.arguments() if not item.startswith("sweep.storage")]


def program(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    assert found is not None, "PostgreSQL is not installed: .ci/run installs it"
    return found


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of our own, with a password; PostgreSQL refuses to run as root."""
    place = Path("/tmp") / f"stepbudget-postgresql-{os.getpid()}"
    place.mkdir(mode=0o700)
    (place / "password").write_text(PASSWORD)
    demoted = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if demoted:
        for path in (place, place / "password"):
            shutil.chown(path, "postgres")
    data = place / "data"
    subprocess.run(
        [
            *demoted,
            program("initdb"),
            "-D",
            data,
            "-U",
            "tester",
            "-A",
            "scram-sha-256",
            "--pwfile",
            place / "password",
        ],
        check=True,
        capture_output=True,
        cwd="/",
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"-c listen_addresses=127.0.0.1 -p {port} -k {place} -c fsync=off"
    control = [*demoted, program("pg_ctl"), "-D", str(data), "-w"]
    subprocess.run(
        [*control, "-l", str(place / "log"), "-o", options, "start"],
        check=True,
        cwd="/",
        stdout=subprocess.DEVNULL,
    )
    yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}"
    subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/", stdout=subprocess.DEVNULL)
    shutil.rmtree(place)


@pytest.fixture
def shared(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sweep]:
    monkeypatch.setenv(DATABASES, server)
    sweep = Sweep(tmp_path)
    yield sweep
    sweep.close()


def test_the_supervisors_tests_pass_on_a_database(server: str) -> None:
    files = [f"tests/sweep/test_{name}.py" for name in ("supervisor", "transitions", "dashboard")]
    options = ("-q", "-n", "2", "-p", "no:cacheprovider", "-m", "not journal and not services")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *files],
        cwd=ROOT,
        env={**os.environ, DATABASES: server},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_no_file_and_no_command_line_holds_the_password(shared: Sweep) -> None:
    process = shared.start("run", *shared.arguments(), hold=str(shared.hold))
    running(shared, 2)
    lines = [Path(f"/proc/{number}/cmdline").read_bytes() for number in (process.pid, *shared.trainers())]
    assert all(PASSWORD.encode() not in line for line in lines)
    shared.hold.touch()
    assert PASSWORD not in shared.end_of(process, 0)
    for path in shared.study.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    assert not (shared.study / "journal.log").exists()


def test_a_password_on_the_command_line_is_not_recorded_and_has_to_be_given_anew(shared: Sweep) -> None:
    shared.end_of(shared.start("run", *plain(shared), f"sweep.storage={shared.storage}"), 0)
    for path in shared.study.rglob("*"):
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    output = shared.resume("sweep.trials=4", status=2)
    assert "the record keeps no secrets" in output and "${oc.env:NAME}" in output
    shared.resume("sweep.trials=4", f"sweep.storage={shared.storage}")
    assert shared.states() == {"COMPLETE": 4}


def test_two_supervisors_never_exceed_the_total(shared: Sweep, tmp_path: Path) -> None:
    """Neither in one folder nor from two folders that share a database."""
    process = shared.start("run", *shared.arguments(), hold=str(shared.hold))
    running(shared, 2)
    other = shared.arguments(f"runs_dir={tmp_path / 'elsewhere'}")
    assert "another sweep runs it" in shared.end_of(shared.start("run", *other), 2)
    shared.hold.touch()
    shared.end_of(process, 0)
    assert "holds a study of this name that has another folder" in shared.end_of(
        shared.start("run", *other), 2
    )
    assert shared.states() == {"COMPLETE": 3}
    assert len(shared.folders()) == 3


def test_database_that_is_not_there_or_lets_nobody_in(shared: Sweep, server: str) -> None:
    where, name = server.rsplit("@", 1)[1], "sweep.storage=postgresql://tester"
    for address, words in (
        (f"{name}@127.0.0.1:9/x", "refused"),
        (f"{name}:wrong-secret-word@{where}/postgres", "password authentication failed"),
        (f"{name}:{PASSWORD}@{where}/nowhere", '"nowhere" does not exist'),
    ):
        output = shared.end_of(shared.start("run", *shared.arguments(address)), 2)
        assert words in output and "leave sweep.storage out for a journal" in output
        assert "wrong-secret-word" not in output and PASSWORD not in output
    shared.end_of(shared.start("run", *shared.arguments()), 0)  # the right address, under the same name
    assert shared.states() == {"COMPLETE": 3}


def test_a_study_starts_from_the_best_of_one_in_a_database(shared: Sweep) -> None:
    """From another database or a journal too; a password that was not recorded comes from this sweep's own address."""
    shared.end_of(shared.start("run", *shared.arguments(RATES)), 0)
    earlier, best = shared.study, best_rate(shared.study, CELL)
    given = shared.start("run", *plain(shared), RATES, "study=given", f"sweep.storage={shared.storage}")
    shared.end_of(given, 0)
    later = {"same": shared.arguments(RATES), "journal": [*plain(shared), RATES]}
    for study, arguments in later.items():
        start = f"sweep.start_from='{earlier}'"
        output = shared.end_of(shared.start("run", *arguments, f"study={study}", start, "sweep.trials=1"), 0)
        assert f"starts from the best of {earlier} {CELL}" in output
        assert rates(shared, shared.runs_dir / study)[CELL] == [best]
    start = f"sweep.start_from='{shared.runs_dir / 'given'}'"
    refused = shared.end_of(shared.start("run", *plain(shared), RATES, "study=refused", start), 2)
    assert "keeps no secrets: give this sweep the same database" in refused and PASSWORD not in refused
    shared.end_of(shared.start("run", *shared.arguments(RATES), "study=own", start, "sweep.trials=1"), 0)
    assert rates(shared, shared.runs_dir / "own")[CELL] == [best_rate(shared.runs_dir / "given", CELL)]


def test_server_that_stops_in_mid_sweep_loses_nothing(shared: Sweep, server: str) -> None:
    """Its end cuts every connection; here they are cut from inside."""
    import psycopg

    process = shared.start("run", *shared.arguments(), hold=str(shared.hold), checkpoint_every=4)
    running(shared, 2)
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        name = str(shared.storage).rsplit("/", 1)[1]
        connection.execute("ALTER DATABASE " + name + " ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
    shared.hold.touch()
    output = shared.end_of(process, 1)
    assert "sweep.storage=" in output and PASSWORD not in output
    assert shared.trainers() == []
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute("ALTER DATABASE " + name + " ALLOW_CONNECTIONS true")  # type: ignore[arg-type]
    shared.resume()
    assert shared.states() == {"COMPLETE": 3}
    assert shared.outcomes() == ["complete"] * 3


def test_a_database_of_its_own_is_made_for_every_test(server: str) -> None:
    assert make_database(server) != make_database(server)
