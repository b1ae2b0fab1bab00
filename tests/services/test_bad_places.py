"""Disks that are full or read-only, clocks that go back, GPUs that are not there, ports that are taken."""

from collections.abc import Iterator
from dataclasses import replace
import json
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys

import pytest
import yaml

from curves.run_folder import RunFolder
from tests.sweep.harness import ROOT, Sweep, wait_until
from tests.sweep.test_supervisor import running

pytestmark = pytest.mark.services
REAL = ("launch.command=null", "budget.max_steps=4", "sweep.trials=1", "launch.slots=1", "stopping=none")
QUICK = ("samples.count=0", "evaluation.training_images=0", "tracker=none", "dataset_size=n4")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place))
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def on_disk(small_disk: Path) -> Iterator[Sweep]:
    sweep = Sweep(small_disk)
    yield sweep
    sweep.close()


def fill(disk: Path) -> Path:
    """Take all that is free; the file that holds it."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    return path


def test_disk_that_fills_up_in_mid_sweep(on_disk: Sweep, small_disk: Path) -> None:
    sweep = on_disk
    process = sweep.start("run", *sweep.arguments(), hold=str(small_disk / "go"), checkpoint_every=4)
    running(sweep, 2)
    before = [folder.points() for folder in sweep.folders()]
    filler = fill(small_disk)
    (small_disk / "go").touch()
    output = sweep.end_of(process, 1)
    assert "No space left on device: free space, then continue with: python -m sweep resume" in output
    assert sweep.trainers() == []
    filler.unlink()
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}
    assert sweep.outcomes() == ["complete"] * 3
    for folder, points in zip(sweep.folders(), before, strict=False):
        steps = [point.step for point in folder.points()]
        assert steps == sorted(set(steps))
        assert folder.points()[: len(points) - 1] == points[:-1]


def test_no_study_starts_on_a_full_or_read_only_disk(on_disk: Sweep, small_disk: Path) -> None:
    sweep = on_disk
    filler = fill(small_disk)
    for words in ("No space left on device", "Read-only file system"):
        output = sweep.run(status=2)
        assert words in output and f"runs_dir={sweep.runs_dir}" in output
        assert "make room or give access there, or name another place" in output
        mount("-o", "remount,ro", str(small_disk))
    mount("-o", "remount,rw", str(small_disk))
    filler.unlink()
    sweep.run()
    assert sweep.states() == {"COMPLETE": 3}


def test_study_on_a_disk_that_has_become_read_only(on_disk: Sweep, small_disk: Path) -> None:
    sweep = on_disk
    process = sweep.start("run", *sweep.arguments(), hold=str(small_disk / "go"))
    running(sweep, 2)
    process.send_signal(signal.SIGINT)
    sweep.end_of(process, 130)
    mount("-o", "remount,ro", str(small_disk))
    output = sweep.resume(status=2)
    assert "Read-only file system" in output
    assert "0 of 3 trials done" in sweep.end_of(sweep.start("status", str(sweep.study)), 0)
    mount("-o", "remount,rw", str(small_disk))
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}


def put_into_the_future(folder: RunFolder, seconds: float) -> None:
    """All times of a run, of its record and of its files, as if the clock had been that much ahead."""
    status = folder.read_status()
    assert status is not None
    folder.write_status(replace(status, updated=status.updated + seconds))
    lines = [json.loads(line) for line in folder.attempts.read_text().splitlines()]
    later = [{**line, "time": line["time"] + seconds} for line in lines]
    folder.attempts.write_text("".join(json.dumps(line) + "\n" for line in later))
    for path in folder.path.rglob("*"):
        os.utime(path, (path.stat().st_atime + seconds, path.stat().st_mtime + seconds))


def test_clock_that_is_set_back_between_sessions(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments(), hold=str(sweep.hold), checkpoint_every=4)
    running(sweep, 2)
    process.kill()
    process.communicate()
    wait_until(lambda: not sweep.trainers(), "no trainer")
    for folder in sweep.folders():
        put_into_the_future(folder, 26 * 3600)
    sweep.resume(crash_once=[2])
    assert sweep.states() == {"COMPLETE": 3}
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [2, 2, 2]
    for folder in sweep.folders():
        assert [point.step for point in folder.points()] == [0, 1, 2, 4, 8, 16, 32, 64]


def test_gpu_that_is_not_there_ends_the_sweep_with_its_name(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shutil.which("nvidia-smi") is None, (
        "this machine has GPUs: CUDA_VISIBLE_DEVICES=7 is checked before"
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    output = sweep.end_of(sweep.start("run", *sweep.arguments(*REAL, *QUICK)), 2)
    assert "device=cuda" in output and "0000-n4-lora-native-tiny" in output
    assert "launch.gpus=9: there is no such GPU (there are 7)" in sweep.end_of(
        sweep.start("run", *sweep.arguments(*REAL, *QUICK, "launch.gpus=['9']")), 2
    )


def test_port_of_an_accelerate_config_may_be_taken(sweep: Sweep, tmp_path: Path) -> None:
    """Two processes a trial, and a user's file that names a port which somebody else has."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = {
            "compute_environment": "LOCAL_MACHINE",
            "distributed_type": "MULTI_GPU",
            "use_cpu": True,
            "mixed_precision": "no",
            "num_machines": 1,
            "num_processes": 2,
            "machine_rank": 0,
            "main_process_ip": "127.0.0.1",
            "main_process_port": taken.getsockname()[1],
        }
        file = tmp_path / "accelerate.yaml"
        file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        own = (f"launch.accelerate_config={file}", "launch.processes=2", "optimizer.batch_size=2")
        process = sweep.start("run", *sweep.arguments(*REAL, *QUICK, *own))
        output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output + sweep.folders()[0].log.read_text()
    facts = sweep.folders()[0].read_facts()
    assert facts.extra["processes"] == 2 and facts.hyperparameters["batch"] == 4
    assert sweep.trainers() == []


def test_port_of_the_dashboard_may_be_taken(sweep: Sweep) -> None:
    sweep.run("sweep.trials=1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "sweep", "dashboard", str(sweep.study), "--port", str(port)],
            cwd=ROOT,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"error: --port {port}: Address already in use: take another, for example --port {port + 1}"
    )
