"""Caps on a study: what is spent is counted over all sessions, and a limit that is reached ends the sweep cleanly."""

import json
from pathlib import Path
import shlex
from typing import Any

import pytest

from conf.compose import load_config
from conf.errors import RequestError
from curves.run_folder import RunFolder, Status, Verdict
from curves.spent import Account, Spent, amount, read_account, write_account
from sweep.attempts import note_end, note_start
from sweep.limits import LIMIT_REACHED, Spending, device_share, exceeded, trials_exhausted
from sweep.record import StudyFolder
from tests.sweep.harness import Sweep


def spent_of(sweep: Sweep) -> Spent:
    account = read_account(sweep.study)
    assert account is not None
    return account.spent


def test_steps_end_a_sweep_and_a_higher_limit_goes_on(sweep: Sweep) -> None:
    output = sweep.run("sweep.limits.steps=100", "launch.slots=1", status=LIMIT_REACHED)
    assert "a limit is reached: sweep.limits.steps=100: " in output and "steps are spent" in output
    assert sweep.trainers() == []
    assert spent_of(sweep).steps >= 100
    status = json.loads(sweep.end_of(sweep.start("status", str(sweep.study), "--json"), 0))
    assert status["spent"]["limits"] == {"steps": 100.0} and status["spent"]["reached"].startswith(
        "sweep.limits"
    )
    printed = shlex.split(output.split("continue with: ", 1)[1].splitlines()[0])
    assert printed[-1] == "sweep.limits.steps=200"
    sweep.end_of(sweep.start(*printed[3:]), 0)
    assert sweep.states() == {"COMPLETE": 3}
    assert spent_of(sweep).steps >= 192


@pytest.mark.long
def test_trials_are_counted_over_all_cells_and_running_ones_end_as_they_are(sweep: Sweep) -> None:
    factors = "sweep.factors={dataset_size: [n4, n8]}"
    output = sweep.run(factors, "sweep.limits.trials=4", status=LIMIT_REACHED)
    assert "4 of 6 trials are done: a limit is reached: sweep.limits.trials=4" in output
    assert sweep.outcomes() == ["complete"] * 4
    sweep.resume("sweep.limits.trials=null")
    assert sweep.states() == {"COMPLETE": 6}


@pytest.mark.long
@pytest.mark.parametrize(
    "limits",
    [
        ["sweep.limits.hours=0.0005"],
        ["sweep.limits.gpu_hours=0.0005"],
        ["sweep.limits.cost=0.002", "sweep.limits.price_per_gpu_hour=4", "sweep.limits.currency=EUR"],
        [
            "sweep.limits.disk_gb=0.000035"
        ],  # the study alone takes 20 kB in blocks of 4 kB, its first trial as much
    ],
)
def test_every_limit_ends_a_sweep_with_a_checkpoint(sweep: Sweep, limits: list[str]) -> None:
    process = sweep.start("run", *sweep.arguments(*limits, "launch.slots=1"), slow=[0])
    output = sweep.end_of(process, LIMIT_REACHED)
    key, value = limits[0].split("=")
    assert f"a limit is reached: {key}={float(value):g}: " in output
    (folder,) = sweep.folders()
    assert folder.outcome() == "preempted"
    assert (folder.checkpoints / "last" / "state.json").exists()
    if "cost" in key:
        assert "EUR are spent" in output


def test_plan_says_whether_each_limit_holds(sweep: Sweep) -> None:
    limits = ("sweep.limits.steps=100", "sweep.limits.trials=50", "sweep.limits.cost=9")
    price = "sweep.limits.price_per_gpu_hour=1.5"
    output = sweep.end_of(sweep.start("plan", *sweep.arguments(*limits, price)), 0)
    assert "limit: sweep.limits.steps=100 will end the sweep early: about 192 steps are needed" in output
    assert "limit: sweep.limits.trials=50 holds: about 3 trials are needed" in output
    assert "limit: sweep.limits.cost=9 holds" in output
    assert "device-hours: about" in output and "cost: about" in output


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sweep.limits.steps=0", "1 or more"),
        ("sweep.limits.hours=-1", "positive number"),
        ("sweep.limits.gpu_hours=nan", "positive number"),
        ("sweep.limits.cost=5", "price_per_gpu_hour"),
        ("sweep.limits.currency='US dollars'", "short word"),
        ("sweep.limits.step=5", "did you mean sweep.limits.steps"),
    ],
)
def test_wrong_limits_are_refused(override: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        load_config([override])
    assert override.split("=")[0] in str(caught.value) and words in str(caught.value)


def attempt(folder: RunFolder, first: int, last: int, seconds: float, devices: float = 1.0) -> None:
    note_start(folder, [], devices, {})
    note_end(folder, Verdict("crashed", "", 1, 0.0), last, seconds, first)


def spending(tmp_path: Path, **limits: Any) -> Account:
    config = load_config([f"sweep.limits.{key}={value}" for key, value in limits.items()])
    return Spending(StudyFolder(tmp_path), config.sweep.limits, 1.0, False).update([])


def test_what_is_trained_again_is_paid_for_again(tmp_path: Path) -> None:
    first, second = (RunFolder(tmp_path / "trials" / name) for name in ("0000-a", "0001-b"))
    attempt(first, 0, 30, 60.0)
    attempt(first, 20, 50, 30.0)  # from the checkpoint of step 20
    attempt(second, 0, 10, 3600.0, devices=2.0)
    account = spending(tmp_path, price_per_gpu_hour=2)
    assert account.spent.trials == 2
    assert account.spent.steps == 30 + 30 + 10
    assert account.spent.gpu_hours == pytest.approx((60 + 30 + 7200) / 3600)
    assert account.spent.cost == pytest.approx(2 * account.spent.gpu_hours)
    assert account.spent.disk_gb > 0


def test_an_attempt_that_nobody_saw_end_counts_to_the_trainers_last_word(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "trials" / "0000-a")
    note_start(folder, [], 1.0, {})
    started = json.loads(folder.attempts.read_text())["time"]
    folder.write_status(Status("running", 12, updated=started + 90))
    account = spending(tmp_path)
    assert account.spent.steps == 12
    assert account.spent.gpu_hours == pytest.approx(90 / 3600)


def test_hours_go_on_counting_in_the_next_session(tmp_path: Path) -> None:
    write_account(tmp_path, Account(Spent(hours=1.5), {}))
    assert spending(tmp_path).spent.hours == pytest.approx(1.5, abs=0.01)


def test_limits_in_words() -> None:
    account = Account(
        Spent(trials=3, steps=120, gpu_hours=0.4), {"steps": 100.0, "trials": 3.0}, on_gpus=True
    )
    assert exceeded(account) == "sweep.limits.steps=100: 120 steps are spent"
    assert trials_exhausted(account) == "sweep.limits.trials=3: 3 trials are spent"
    assert "0.4 GPU-hours" in account.words()
    assert account.left("steps") == 0
    assert exceeded(Account(Spent(steps=99), {"steps": 100.0})) is None


@pytest.mark.parametrize(
    ("gpus", "slots", "processes", "share"),
    [([], 2, 1, 1.0), (["0", "1"], 2, 1, 1.0), (["0"], 2, 1, 0.5), (["0", "1"], 1, 2, 2.0)],
)
def test_devices_of_a_trial(gpus: list[str], slots: int, processes: int, share: float) -> None:
    launch = load_config([f"launch.processes={processes}"]).launch
    assert device_share(launch, gpus, slots) == share


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.00421, "0.0042"), (0.42, "0.42"), (4.21, "4.2"), (42.1, "42.1"), (4200.4, "4,200"), (0, "0")],
)
def test_amounts_are_short(value: float, shown: str) -> None:
    assert amount(value) == shown


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", '{"spent": 3, "limits": {}}', '{"spent": {"steps": "x"}, "limits": {}}']
)
def test_damaged_account_is_none(tmp_path: Path, damage: str) -> None:
    (tmp_path / "spent.json").write_text(damage)
    assert read_account(tmp_path) is None
