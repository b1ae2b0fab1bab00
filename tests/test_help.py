"""Hydra's habits: help, the composed configuration and tab completion, all without waiting for torch."""

import os
from pathlib import Path
import re
import subprocess
import sys

import pytest
import yaml

from conf.compose import groups, options

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments: str, **environment: str) -> str:
    """What a command prints; it imports no torch, as the interpreter's own list of imports tells."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    imported = {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time:")}
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hydra" in imported and not imported & {"torch", "accelerate", "diffusers", "transformers"}
    assert [line for line in lines if not line.startswith("import time:")] == []
    return done.stdout


def completions(line: str) -> list[str]:
    return python("train.py", "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line))).split()


def test_help_shows_every_group_with_its_purpose_and_options() -> None:
    text = python("train.py", "--help", "method=text_to_image")
    shown = dict(re.findall(r"^  (\w+)=\w+ +\S.*: (.*)$", text, flags=re.MULTILINE))
    assert set(shown) == set(groups())
    for group, listed in shown.items():
        assert listed.split(", ") == options(group)
    assert "\n  dataset_size=n8        how many images train: all, n2, n4, n8, " in text
    assert yaml.safe_load(text.split("what they mean:\n", 1)[1])["method"]["name"] == "text_to_image"


def test_cfg_prints_the_configuration_and_trains_nothing() -> None:
    config = yaml.safe_load(python("train.py", "--cfg", "job", "dataset_size=n16", "optimizer.lr=0.5"))
    assert (config["dataset_size"]["images"], config["optimizer"]["lr"]) == (16, 0.5)
    assert python("train.py", "--cfg", "job", "--package", "budget") == (
        "# @package budget\nname: fixed\nmax_steps: 400\nhorizon: null\nstudy: null\ntrunk: null\n"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python train.py method=", [f"method={name}" for name in options("method")]),
        ("python train.py method=lora base_model=sd1", ["base_model=sd14", "base_model=sd15"]),
        ("python train.py budget.max", ["budget.max_steps="]),
    ],
)
def test_tab_completion_answers(line: str, expected: list[str]) -> None:
    assert completions(line) == expected


def test_tab_completion_in_a_shell() -> None:
    """As `eval` and the tab key do it."""
    script = (
        f'PATH="{Path(sys.executable).parent}:$PATH"\n'
        'eval "$(python train.py --shell-completion install=bash)"\n'
        "complete -p python\n"
        'COMP_LINE="python train.py stopping=p" COMP_POINT=26 COMP_CWORD=2\n'
        "hydra_bash_completion\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    complete, answers = done.stdout.splitlines()
    assert "hydra_bash_completion python" in complete
    assert answers.split() == ["stopping=patience", "stopping=posterior", "stopping=pq"]


def test_help_that_nobody_reads_to_its_end_ends_quietly() -> None:
    command = f"{sys.executable} train.py --help | head -n 1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("python train.py [GROUP=OPTION] [KEY=VALUE] ...\n", "")


def test_the_sweeps_help_has_each_command_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from sweep.commands import main\n"
        "from sweep.usage import COMMANDS\n"
        "assert main(['--help']) == 0\n"
        "for name in COMMANDS:\n"
        "    assert main([name, '--help']) == 0\n"
        "assert not {'torch', 'optuna', 'rich'} & set(sys.modules)\n"
    )
    text = python("-c", script)
    for name in ("plan", "run", "resume", "status", "stop", "dashboard", "reproduce"):
        assert len(re.findall(rf"^  {name} .*  \S", text, flags=re.MULTILINE)) == 1
        assert len(re.findall(rf"^python -m sweep {name} ", text, flags=re.MULTILINE)) == 1
        assert f"\n  python -m sweep {name} " in text  # an example
    assert all(len(line) <= 140 for line in text.splitlines())
