"""Commands, environments and slots."""

from pathlib import Path
import sys

from conf.compose import load_config
from conf.schema import Launch
from sweep.launch import LocalBackend, Order, slot_count, trainer_command, trainer_environment
from tests.sweep.harness import wait_until


def test_trainer_is_started_by_accelerate() -> None:
    config = load_config([])
    argv = trainer_command(config, ["optimizer.lr=0.1"], gpus=[])
    assert argv[:3] == [sys.executable, "-m", "accelerate.commands.launch"]
    assert "--cpu" in argv
    assert argv[argv.index("--main_process_port") + 1] == "0"
    assert Path(argv[-2]).name == "train.py"
    assert argv[-1] == "optimizer.lr=0.1"
    assert "--cpu" not in trainer_command(config, [], gpus=["0"])
    config.launch.processes = 2
    assert "--multi_gpu" in trainer_command(config, [], gpus=[])
    config.launch.command = ["my", "trainer"]
    assert trainer_command(config, ["a=b"], gpus=[]) == ["my", "trainer", "a=b"]


def test_each_slot_has_its_own_gpus_and_threads() -> None:
    launch = Launch("local", threads=3, processes=2)
    gpus = ["0", "1", "2", "3"]
    assert slot_count(launch, gpus) == 2
    assert [trainer_environment(launch, gpus, slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == [
        "0,1",
        "2,3",
    ]
    environment = trainer_environment(launch, [], 0)
    assert environment["OMP_NUM_THREADS"] == environment["MKL_NUM_THREADS"] == "3"
    assert environment["STEPBUDGET_SUPERVISED"] == "1"
    assert environment["TOKENIZERS_PARALLELISM"] == "false"
    assert "CUDA_VISIBLE_DEVICES" not in environment
    assert slot_count(Launch("local", slots=5), []) == 5
    assert slot_count(Launch("local", threads=4096), []) == 1


def test_process_group_is_gone_when_its_leader_has_ended(tmp_path: Path) -> None:
    """A launcher that dies leaves nothing behind, and what it started is killed with it."""
    child = "import time\ntime.sleep(600)"
    code = f"import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', {child!r}]).pid)\n"
    process = LocalBackend(Launch("local"), []).start(
        0, Order([sys.executable, "-c", code], tmp_path / "log.txt")
    )
    assert wait_until(lambda: process.exit_status() is not None, "the end of the launcher")
    pid = int((tmp_path / "log.txt").read_text())
    stat = Path(f"/proc/{pid}/stat")
    wait_until(
        lambda: not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] == "Z", "the child's end"
    )
    process.kill()  # again, after its end: nothing happens
    assert process.exit_status() == 0
