"""Whole sweeps with real processes: to the end, through crashes, kills, Ctrl-C, and on again."""

import contextlib
import json
import os
from pathlib import Path
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from curves.run_folder import RunFolder
from sweep.supervisor import AGAIN_S
from tests.sweep.harness import ROOT, Sweep, wait_until


def evaluated(folder: RunFolder, count: int = 2) -> bool:
    return len(folder.points()) >= count


def running(sweep: Sweep, count: int) -> list[RunFolder]:
    """The run folders, once so many trials have evaluated."""
    return wait_until(
        lambda: (
            [item for item in sweep.folders() if evaluated(item)][:count]
            if sum(evaluated(item) for item in sweep.folders()) >= count
            else None
        ),
        f"{count} trials with evaluations",
    )


def test_complete_sweep(sweep: Sweep) -> None:
    output = sweep.run(
        "sweep.factors={dataset_size: [n4, n16], method: [lora, text_to_image]}", "sweep.trials=2"
    )
    names = [folder.path.name for folder in sweep.folders()]
    assert [name.split("-", 1)[0] for name in names] == [f"{number:04d}" for number in range(8)]
    assert {name.split("-", 1)[1] for name in names} == {
        f"{size}-{method}-native-tiny" for size in ("n4", "n16") for method in ("lora", "text_to_image")
    }
    assert sweep.outcomes() == ["complete"] * 8
    assert sweep.states() == {"COMPLETE": 8}
    assert "next: python -m analysis report" in output
    for folder in sweep.folders():
        facts = folder.read_facts()
        low, high = (5e-4, 1e-2) if "lora" in folder.path.name else (1e-4, 2e-3)
        assert low <= facts.hyperparameters["lr"] <= high  # the range of the cell's own method
        assert facts.study == "s"
        assert facts.trial == int(folder.path.name[:4])
    assert sorted(folder.read_facts().seed for folder in sweep.folders()) == [0] * 4 + [1] * 4
    record = yaml.safe_load((sweep.study / "study.yaml").read_text(encoding="utf-8"))
    assert record["config"]["sweep"]["trials"] == 2
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["versions"]["optuna"]
    assert sweep.trainers() == []


@pytest.mark.long
def test_every_fold_of_a_parameter_set_is_a_run_and_the_sweep_can_be_extended(
    sweep: Sweep, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        (photos / f"{index}.png").touch()
    few = ["experiment=few_images", f"dataset.path={photos}", "optimizer.warmup_steps=0"]
    output = sweep.run(*few, "sweep.trials=1")
    assert "dataset.fold=2" in output
    sweep.resume("sweep.trials=2")
    given = [sweep.sessions(folder)[0]["overrides"] for folder in sweep.folders()]
    assert [[item for item in one if item.startswith("dataset.fold=")] for one in given] == [
        [f"dataset.fold={number % 3}"] for number in range(6)
    ]
    assert all("dataset.folds=3" in one for one in given)
    facts = [folder.read_facts() for folder in sweep.folders()]
    assert [item.seed for item in facts] == [0, 0, 0, 1, 1, 1]
    rates = [item.hyperparameters["lr"] for item in facts]
    assert rates == [rates[0]] * 3 + [rates[3]] * 3
    assert rates[0] != rates[3]
    assert "6 of 6 trials done" in sweep.end_of(sweep.start("status", str(sweep.study)), 0)
    (photos / "3.png").touch()  # the folder has grown: its folds would be others
    changed = sweep.end_of(sweep.start("run", *sweep.arguments(*few, "sweep.trials=2")), 2)
    assert "dataset.folds=4: the study s was started with dataset.folds=3" in changed


def test_same_request_again_does_nothing_and_a_larger_total_extends(sweep: Sweep) -> None:
    sweep.run()
    before = {folder.path.name: folder.curve.stat().st_mtime_ns for folder in sweep.folders()}
    sweep.run("launch.slots=1")  # how fast is not what
    assert {folder.path.name: folder.curve.stat().st_mtime_ns for folder in sweep.folders()} == before
    sweep.resume("sweep.trials=4")
    assert sweep.states() == {"COMPLETE": 4}
    assert {folder.path.name: folder.curve.stat().st_mtime_ns for folder in sweep.folders()[:3]} == before


def test_killed_and_crashed_trainers_do_not_end_the_sweep(sweep: Sweep) -> None:
    output = sweep.run("sweep.trials=4", crash=[1], killed=[2], diverge=[3])
    assert sweep.outcomes() == ["complete", "crashed", "crashed", "diverged"]
    assert sweep.states() == {"COMPLETE": 1, "FAIL": 3}
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [1, 3, 3, 1]  # launch.retries=2
    assert output.count("another attempt follows") == 4
    _, crashed, killed, _ = sweep.folders()
    assert all(evaluated(folder) for folder in (crashed, killed))
    crash, kill = crashed.read_verdict(), killed.read_verdict()
    assert crash is not None and crash.exit_status == 1 and "told to crash" in crash.reason
    assert kill is not None and kill.exit_status == -9 and "SIGKILL" in kill.reason
    assert "log.txt" in output


def test_every_trial_of_a_cell_failing_is_a_failure(sweep: Sweep) -> None:
    output = sweep.run(crash=[0, 1, 2], status=1)
    assert "every trial failed in n8-lora-native-tiny: exit status 1: RuntimeError: told to crash" in output
    assert f"python -m sweep resume {shlex.quote(str(sweep.study))} sweep.trials=6" in output
    sweep.resume("sweep.trials=6")  # once the cause is gone
    assert sweep.states() == {"COMPLETE": 3, "FAIL": 3}


def test_configuration_error_ends_the_sweep_at_once(sweep: Sweep) -> None:
    output = sweep.run("sweep.trials=5", config_error=[1], status=2, hold=str(sweep.hold))
    assert "error: 0001-n8-lora-native-tiny: dataset.path=nowhere: there is no such folder" in output
    assert sweep.outcomes() == ["preempted"]  # the neighbour was stopped cleanly and goes on later
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 5}
    assert len(sweep.folders()) == 5


def test_interrupt_stops_cleanly_and_resume_continues_in_the_same_folders(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments(), hold=str(sweep.hold))
    folders = running(sweep, 2)
    process.send_signal(signal.SIGINT)
    output = sweep.end_of(process, 130)
    assert sweep.trainers() == []
    assert sweep.outcomes() == ["preempted"] * 2
    assert sweep.states() == {"RUNNING": 2}
    parameters = [folder.read_facts().hyperparameters for folder in folders]
    printed = shlex.split(output.split("continue with: ", 1)[1].splitlines()[0])
    assert printed[:3] == ["python", "-m", "sweep"]  # copied from the screen, it works: spaces are quoted
    output = sweep.end_of(sweep.start(*printed[3:]), 0)
    assert "continued 0000" in output
    assert [folder.read_facts().hyperparameters for folder in folders] == parameters
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [2, 2, 1]
    assert sweep.outcomes() == ["complete"] * 3
    assert sweep.states() == {"COMPLETE": 3}
    for folder in sweep.folders():
        assert [point.step for point in folder.points()] == [0, 1, 2, 4, 8, 16, 32, 64]


@pytest.mark.parametrize("launched", [False, True])
def test_killed_supervisor_leaves_no_trainer_and_is_continued(sweep: Sweep, launched: bool) -> None:
    overrides = sweep.arguments(*([sweep.launcher()] if launched else []))
    process = sweep.start("run", *overrides, hold=str(sweep.hold), checkpoint_every=4)
    folders = running(sweep, 2)
    assert len(sweep.trainers()) == (4 if launched else 2)
    process.kill()
    process.communicate()
    wait_until(lambda: not sweep.trainers(), "no trainer and no launcher", seconds=5)
    sweep.resume()
    assert sweep.states() == {"COMPLETE": 3}
    assert [len(sweep.sessions(folder)) for folder in sweep.folders()] == [2, 2, 1]
    assert [folder.path for folder in sweep.folders()[:2]] == [folder.path for folder in folders]


def test_trainer_that_hangs_is_terminated_then_killed(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments("launch.grace_s=0.3", "launch.slots=1"), hang=[0])
    wait_until(lambda: list(sweep.study.glob("trials/*/hanging")), "a hanging trainer")
    process.send_signal(signal.SIGTERM)
    sweep.end_of(process, 143)
    assert sweep.trainers() == []
    verdict = sweep.folders()[0].read_verdict()
    assert verdict is not None
    assert verdict.outcome == "preempted"
    assert verdict.exit_status == -9
    assert "did not end by itself" in verdict.reason


@pytest.mark.long
def test_resume_waits_for_a_trainer_that_outlives_its_supervisor(sweep: Sweep) -> None:
    process = sweep.start(
        "run", *sweep.arguments("launch.slots=1", sweep.launcher()), hold=str(sweep.hold), outlive=3
    )
    (folder,) = running(sweep, 1)
    process.kill()
    process.communicate()
    sweep.resume()
    assert [session["alone"] for session in sweep.sessions(folder)] == [True, True]
    assert sweep.states() == {"COMPLETE": 3}


def reasons(sweep: Sweep) -> list[str]:
    return [verdict.reason for folder in sweep.folders() if (verdict := folder.read_verdict()) is not None]


@pytest.mark.parametrize("by_request", [False, True])
def test_interrupt_while_stopping_kills_and_says_so(sweep: Sweep, by_request: bool) -> None:
    process = sweep.start("run", *sweep.arguments("launch.grace_s=3600"), hang=[0, 1])
    wait_until(lambda: len(list(sweep.study.glob("trials/*/hanging"))) == 2, "two hanging trainers")
    if by_request:
        (sweep.study / "stop.json").write_text("{}")  # as `sweep stop` does
    else:
        process.send_signal(signal.SIGINT)
    wait_until(lambda: all(folder.stop_request.exists() for folder in sweep.folders()), "the request to stop")
    since = time.monotonic()
    wait_until(lambda: time.monotonic() - since > AGAIN_S, "a Ctrl-C that is meant as another one")
    process.send_signal(signal.SIGINT)
    sweep.end_of(process, 130)
    assert sweep.trainers() == []
    said = "asked by `sweep stop`; killed by Ctrl-C" if by_request else "Ctrl-C; killed by a second Ctrl-C"
    assert reasons(sweep) == [said] * 2


def test_the_same_signal_twice_is_one_request(sweep: Sweep) -> None:
    """As `timeout` and service managers send it: to the process and to its group."""
    process = sweep.start("run", *sweep.arguments("launch.grace_s=2"), hang=[1], hold=str(sweep.hold))
    wait_until(lambda: list(sweep.study.glob("trials/*/hanging")), "a hanging trainer")
    running(sweep, 2)
    process.send_signal(signal.SIGTERM)
    wait_until(lambda: sweep.folders()[1].stop_request.exists(), "the request to stop")
    process.send_signal(signal.SIGTERM)
    sweep.end_of(process, 143)
    assert reasons(sweep) == ["SIGTERM", "SIGTERM; did not end by itself within 2 s"]
    assert has_checkpoint(sweep.folders()[0])


def has_checkpoint(folder: RunFolder) -> bool:
    return (folder.checkpoints / "last" / "state.json").exists()


def test_closed_terminal_stops_cleanly(sweep: Sweep) -> None:
    process, terminal = sweep.start_in_terminal("run", *sweep.arguments(), hold=str(sweep.hold))

    def two_run() -> bool:
        with contextlib.suppress(BlockingIOError):
            os.read(terminal, 65536)
        return sum(evaluated(folder) for folder in sweep.folders()) >= 2

    wait_until(two_run, "two trials with evaluations")
    os.close(terminal)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert sweep.outcomes() == ["preempted"] * 2
    assert all(has_checkpoint(folder) for folder in sweep.folders())
    assert reasons(sweep) == ["SIGHUP"] * 2


def test_reader_that_goes_away_does_not_end_the_sweep(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments(), hold=str(sweep.hold))
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()  # as `| head -1`
    running(sweep, 2)
    sweep.hold.touch()
    assert process.wait(60) == 0
    assert sweep.outcomes() == ["complete"] * 3


def test_median_pruner_ends_a_poor_trial(sweep: Sweep) -> None:
    choices = "{name: optimizer.lr, choices: [0.002, 0.00001], first: 0.002}"
    output = sweep.run(
        f"space.parameters=[{choices}]",
        "sweep.pruner.name=median",
        "sweep.pruner.parameters={n_startup_trials: 1, n_warmup_steps: 4}",
        "sweep.trials=8",
        "sweep.sampler.name=random",
        "launch.slots=1",
        step_s=0.02,
    )
    rates = {folder.path.name: folder.read_facts().hyperparameters["lr"] for folder in sweep.folders()}
    outcomes = {folder.path.name: folder.outcome() for folder in sweep.folders()}
    assert rates["0000-n8-lora-native-tiny"] == 0.002  # the stated first value
    assert set(rates.values()) == {0.002, 0.00001}
    assert {outcomes[name] for name, rate in rates.items() if rate == 0.00001} == {"pruned"}
    assert {outcomes[name] for name, rate in rates.items() if rate == 0.002} == {"complete"}
    assert sweep.states()["PRUNED"] == list(outcomes.values()).count("pruned")
    assert "pruned 0" in output


def test_one_supervisor_a_study_and_stop_from_another_terminal(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments(), hold=str(sweep.hold))
    running(sweep, 2)
    output = sweep.end_of(sweep.start("resume", str(sweep.study)), 2)
    assert str(process.pid) in output
    status = sweep.end_of(sweep.start("status", str(sweep.study), "--json"), 0)
    record = json.loads(status)
    assert (record["planned"], record["done"], record["running"]) == (3, 0, 2)
    assert record["supervisor"] == process.pid
    sweep.end_of(sweep.start("stop", str(sweep.study), "--trial", "1"), 0)
    wait_until(lambda: sweep.folders()[1].outcome() == "stopped", "the stopped trial")
    running(sweep, 3)  # the slot was filled again
    assert "resume" in sweep.end_of(sweep.start("stop", str(sweep.study)), 0)
    sweep.end_of(process, 130)
    assert sweep.outcomes() == ["preempted", "stopped", "preempted"]
    assert "no sweep is running" in sweep.end_of(sweep.start("stop", str(sweep.study)), 2)


def test_command_that_cannot_be_started(sweep: Sweep) -> None:
    output = sweep.run("launch.command=[/nowhere/trainer]", status=2)
    assert "launch.command=/nowhere/trainer" in output


def test_log_that_cannot_be_written_is_not_blamed_on_the_command(sweep: Sweep) -> None:
    process = sweep.start("run", *sweep.arguments("launch.slots=1"), hold=str(sweep.hold))
    (folder,) = running(sweep, 1)
    process.send_signal(signal.SIGINT)
    sweep.end_of(process, 130)
    folder.log.unlink()
    folder.log.mkdir()
    output = sweep.resume(status=1)
    assert f"failed: {folder.log}: Is a directory" in output
    assert "launch.command" not in output
    assert "python -m sweep resume" in output


def test_run_folder_that_is_gone_is_replaced(sweep: Sweep) -> None:
    sweep.run()
    shutil.rmtree(sweep.folders()[1].path)
    output = sweep.resume()
    assert "0001-n8-lora-native-tiny: its run folder is gone; another trial takes its place" in output
    assert [folder.path.name[:4] for folder in sweep.folders()] == ["0000", "0002", "0003"]
    assert sweep.outcomes() == ["complete"] * 3
    sweep.resume()
    assert len(sweep.folders()) == 3


def test_status_in_a_pipe_is_not_cut(sweep: Sweep) -> None:
    sweep.run("sweep.factors={base_model: [tiny], captions: [file], optimizer: [adamw], memory: [normal]}")
    name = sweep.folders()[0].path.name.split("-", 1)[1]
    done = subprocess.run(
        [sys.executable, "-m", "sweep", "status", str(sweep.study)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={key: value for key, value in os.environ.items() if key != "COLUMNS"},
    )
    assert done.stdout.count(name) == 3
    assert done.stdout.count("complete") == 3
