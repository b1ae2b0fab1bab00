"""study.yaml: enough to make a study again, without its secrets; and code that changes under way is noticed."""

from collections.abc import Iterator
import importlib.metadata
import os
from pathlib import Path
import platform
import shutil
import socket
import sys
from typing import Any

import pytest
import yaml

from tests.sweep.checkout import git, make_checkout
from tests.sweep.harness import TRAINER, Sweep

pytestmark = pytest.mark.long

SECRETS = {
    "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
    "HF_TOKEN": "hf_aTokenThatNobodyShouldRead",
    "PGPASSWORD": "correct-horse-battery",
}
IN_OVERRIDES = "words-of-a-command-line"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Sweep]:
    """A sweep of a checkout whose code may be changed."""
    sweep = Sweep(tmp_path, make_checkout(tmp_path / "checkout"))
    yield sweep
    sweep.close()


def change(sweep: Sweep, text: str = "# changed\n", name: str = "curves/point.py") -> None:
    with (sweep.root / name).open("a", encoding="utf-8") as file:
        file.write(text)


def record_of(sweep: Sweep) -> dict[str, Any]:
    record = yaml.safe_load((sweep.study / "study.yaml").read_text(encoding="utf-8"))
    assert isinstance(record, dict)
    return record


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_the_record_is_enough_to_make_the_study_again(own: Sweep, tmp_path: Path) -> None:
    change(own)
    (own.root / "conf" / "budget" / "mine.yaml").write_text("name: fixed\nmax_steps: 24\n", encoding="utf-8")
    own.run("sweep.trials=1", "seed=3", "sweep.sampler.seed=5", "budget.max_steps=16")
    record = record_of(own)

    assert record["overrides"][-4:] == [
        "sweep.trials=1",
        "seed=3",
        "sweep.sampler.seed=5",
        "budget.max_steps=16",
    ]
    assert record["sessions"][0]["command"][:4] == ["python", "-m", "sweep", "run"]
    assert record["seeds"] == {"runs": 3, "sampler": 5}
    assert record["config"]["budget"]["max_steps"] == 16
    assert "${" not in str(record["config"]) and "???" not in str(record["config"])
    assert (record["python"], record["sessions"][0]["host"]) == (platform.python_version(), platform.node())
    for package in ("optuna", "torch", "hydra-core"):
        assert record["versions"][package] == importlib.metadata.version(package)
    assert record["hardware"]["cores"] == len(os.sched_getaffinity(0))
    assert record["hardware"]["memory_gib"] > 0 and record["hardware"]["slots"] == 2

    (code,) = record["code"]
    assert record["git"] == {"commit": git(own.root, "rev-parse", "HEAD").strip(), "dirty": True}
    assert code["commit"] == record["git"]["commit"] and code["patch_is_whole"] is True
    again = tmp_path / "again"
    git(tmp_path, "clone", "--quiet", str(own.root), str(again))
    git(again, "apply", str(own.study / code["patch"]))
    for name in ("curves/point.py", "conf/budget/mine.yaml"):
        assert (again / name).read_bytes() == (own.root / name).read_bytes()


def test_no_byte_of_a_study_is_a_secret(own: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    change(own, f"# {SECRETS['HF_TOKEN']}, or postgresql://tester:{SECRETS['PGPASSWORD']}@host/base\n")
    (own.root / "conf" / "budget" / "mine.yaml").write_text(f"api_key: {IN_OVERRIDES}\n", encoding="utf-8")
    flags = f"'--hub_token','{IN_OVERRIDES}','--password={IN_OVERRIDES}'"
    secret = (
        f"launch.command=['{sys.executable}','{TRAINER}',{flags}]",
        f"+launch.environment.MY_API_KEY={IN_OVERRIDES}",
        "+launch.environment.HF_TOKEN='${oc.env:HF_TOKEN}'",
    )
    said = own.run("sweep.trials=1", *secret)
    assert "the record keeps no secrets" in own.resume(status=2)
    said += own.resume("sweep.trials=2", *secret)

    looked_into = 0
    for path in own.study.rglob("*"):
        if path.is_file() and path.name != "sessions.jsonl":  # where the stand-in notes what it was given
            content, looked_into = path.read_bytes(), looked_into + 1
            for value in (*SECRETS.values(), IN_OVERRIDES):
                assert value.encode() not in content, path
    assert looked_into > 10
    assert not [value for value in (*SECRETS.values(), IN_OVERRIDES) if value in said]
    assert record_of(own)["code"][0]["patch_is_whole"] is False
    assert "${oc.env:HF_TOKEN}" in str(record_of(own)["overrides"])


def test_a_database_that_is_not_there_does_not_show_its_password(sweep: Sweep) -> None:
    password = SECRETS["PGPASSWORD"]
    address = f"postgresql://tester:{password}@127.0.0.1:{free_port()}/base"
    said = sweep.run(f"sweep.storage='{address}'", status=2)
    assert "sweep.storage=postgresql://tester:***@127.0.0.1" in said and password not in said
    for path in sweep.study.rglob("*"):
        assert not path.is_file() or password.encode() not in path.read_bytes(), path


def test_changed_code_is_refused_until_it_is_asked_for(own: Sweep) -> None:
    own.run("sweep.trials=1")
    change(own, "a note\n", "README.md")  # decides nothing
    own.resume("sweep.trials=2")
    change(own)
    said = own.resume("sweep.trials=3", status=2)
    first = record_of(own)["code"][0]["content"]
    assert said.startswith("error: study=s: the code has changed: the last session ran commit ")
    assert f"(content {first[:8]})" in said and "--changed-code" in said and said.count("\n") == 1
    assert len(own.folders()) == 2

    assert "the code has changed since the last session: " in own.resume("sweep.trials=3", "--changed-code")
    record = record_of(own)
    assert [state["patch"] for state in record["code"]] == [None, "code-2.patch"]
    assert "+# changed" in (own.study / "code-2.patch").read_text(encoding="utf-8")
    ran = [session["code"] for session in record["sessions"]]
    assert ran == [first, first, record["code"][1]["content"]] and ran[-1] != first
    assert own.outcomes() == ["complete"] * 3

    git(own.root, "checkout", "--quiet", "--", "curves")
    assert "the code has changed" in own.resume("sweep.trials=4", status=2)  # back, after other code


def test_code_without_a_repository_is_told_apart_by_its_content(own: Sweep) -> None:
    shutil.rmtree(own.root / ".git")
    own.run("sweep.trials=1")
    record = record_of(own)
    assert record["git"] == {"commit": None, "dirty": None}
    assert (record["code"][0]["commit"], record["code"][0]["patch"]) == (None, None)
    change(own)
    assert "the last session ran no commit (content " in own.resume("sweep.trials=2", status=2)
