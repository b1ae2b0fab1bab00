"""Sweeps of somebody's own script: how it is told what a trial is, and the mistakes in telling it."""

import json
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from sweep.cells import make_request
from sweep.launch import flags
from tests.sweep.harness import ROOT, TRAINER, Sweep

pytestmark = pytest.mark.long

SCRIPT = ["study=s", "launch=script", "launch.command=[python,mine.py]"]


def test_a_configuration_is_told_by_flags(tmp_path: Path) -> None:
    more = "++launch.flags={memory.compile: --compile, memory.channels_last: --channels_last, seed: ''}"
    config = load_config(
        [*SCRIPT, more, f"run_dir='{tmp_path}/a, b'", "optimizer.lr=0.002", "memory.compile=true"]
    )
    told = flags(config)
    assert "--learning_rate=0.002" in told
    assert f"--output_dir={tmp_path}/a, b" in told
    assert "--lr_scheduler=constant" in told
    assert "--compile" in told
    assert not any(
        flag.startswith(("--channels_last", "--resolution", "--seed")) for flag in told
    )  # false, null, ''
    # The script may run anywhere: the project's own folders are told from the root of the disk.
    assert f"--pretrained_model_name_or_path={ROOT / 'assets' / 'tiny-sd'}" in told
    hub = load_config(
        [*SCRIPT, "base_model=custom", "base_model.path=owner/name", f"dataset.path={tmp_path}"]
    )
    assert {"--pretrained_model_name_or_path=owner/name", f"--train_data_dir={tmp_path}"} < set(flags(hub))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["launch=script"], "launch.command=null: launch.flags are those of another's script"),
        ([*SCRIPT, "launch.flags={optimizer.rl: --rl}"], "launch.flags.optimizer.rl: there is no key"),
        ([*SCRIPT, "launch.flags={captions.dropout: drop}"], "must be a flag such as --dropout"),
        (
            [*SCRIPT, "space.parameters=[{name: captions.dropout, low: 0.0, high: 0.5}]"],
            "space.parameters[captions.dropout]: launch.flags has no flag for it",
        ),
    ],
)
def test_a_mistake_in_telling_a_script_is_refused(overrides: list[str], told: str) -> None:
    with pytest.raises(RequestError, match=re.escape(told)):
        make_request(["study=s", *overrides])


@pytest.fixture
def told_by_environment(sweep: Sweep, tmp_path: Path) -> str:
    """The override of a trainer that looks at its environment alone, as StepBudget does."""
    path = tmp_path / "mine.py"
    path.write_text(
        "import json, os, runpy, sys\n"
        "sys.argv[1:] = [*json.loads(os.environ['STEPBUDGET_OVERRIDES'])]\n"
        "assert sys.argv[-1].split('=', 1)[1].strip(\"'\") == os.environ['STEPBUDGET_RUN_DIR']\n"
        f"runpy.run_path({str(TRAINER)!r}, run_name='__main__')\n"
    )
    return f"launch.command=['{sys.executable}','{path}']"


def test_trials_and_their_reproduction_are_told_by_the_environment(
    sweep: Sweep, told_by_environment: str, tmp_path: Path
) -> None:
    sweep.run(told_by_environment, "sweep.trials=1")
    assert sweep.outcomes() == ["complete"]
    trial = str(sweep.folders()[0].path)
    output = sweep.end_of(sweep.start("reproduce", trial, "--to", str(tmp_path / "again")), 0)
    assert "equal bit for bit" in output
    # The line that is printed for a shell does the same.
    place = tmp_path / "by hand"
    line = sweep.end_of(sweep.start("reproduce", trial, "--to", str(place), "--print"), 0).splitlines()[-1]
    given = next(word for word in shlex.split(line) if word.startswith("STEPBUDGET_OVERRIDES="))
    assert f"run_dir='{place}'" in json.loads(given.split("=", 1)[1])[-1]
    done = subprocess.run(["sh", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (place / "curve.jsonl").is_file()


def test_a_probe_is_told_by_the_environment(sweep: Sweep, told_by_environment: str) -> None:
    output = sweep.end_of(sweep.start("plan", *sweep.arguments(told_by_environment), "--probe"), 0)
    assert "probe 1 of 1: n8-lora-native-tiny: 0.001 s a step, " in output
