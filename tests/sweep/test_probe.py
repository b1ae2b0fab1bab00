"""`plan --probe`: ten real steps of each cell, and what the plan makes of them."""

import json
from pathlib import Path
import sys

import pytest

from conf.compose import load_config
from curves.spent import amount
from sweep.cells import make_request
from sweep.clock import duration
from sweep.cost import evaluation_count, expected_cost
from sweep.probe import CACHE, Probe
from tests.sweep.harness import TRAINER, Sweep

pytestmark = pytest.mark.long

PLANNED = (
    "sweep.factors={dataset_size: [n4, n8]}",
    "samples.count=0",
    "sweep.limits.price_per_gpu_hour=6",
    "sweep.limits.hours=0.0001",
    "sweep.limits.steps=1000",
)


def plan(sweep: Sweep, *arguments: str, status: int = 0, **stand_in: object) -> str:
    process = sweep.start("plan", *sweep.arguments(*PLANNED), *arguments, **stand_in)
    return sweep.end_of(process, status)


def probes(sweep: Sweep) -> list[Probe]:
    text = (sweep.runs_dir / CACHE).read_text(encoding="utf-8")
    return [Probe(**record) for record in json.loads(text).values()]


def test_a_probe_measures_each_cell_and_the_plan_is_made_of_it(sweep: Sweep) -> None:
    output = plan(sweep, "--probe", step_s=0.1)
    known = probes(sweep)
    assert len(known) == 2
    for number, (size, probe) in enumerate(zip(("n4", "n8"), known, strict=True), start=1):
        assert f"probe {number} of 2: {size}-lora-native-tiny: 0.1 s a step, " in output
        assert probe.step_s == 0.1  # which the trainer has said itself
        assert probe.launch_s > 0 and probe.megabytes > 0
        assert probe.memory_gib is not None and probe.memory_gib > 0
    assert [path.name for path in sweep.runs_dir.iterdir()] == [CACHE]  # nothing else is left, and no study

    config = make_request(sweep.arguments(*PLANNED)).cells[0].config
    costs = [expected_cost(config, [], probe) for probe in known]
    for cost, probe in zip(costs, known, strict=True):
        trained = 64 * probe.step_s + evaluation_count(config) * probe.evaluation_s
        assert cost.seconds == pytest.approx(trained + probe.launch_s)
        assert f"3 x 64 steps, about {duration(cost.seconds)} each" in output
    total = 3 * sum(cost.seconds for cost in costs)
    assert (
        f"time: about {duration(total / 2)} for 6 trials in 2 slots, estimated from a probe of ten" in output
    )
    assert "steps: at most 384; disk: about " in output
    assert f"device-hours: about {amount(total / 3600)}; cost: about {amount(total / 600)} USD" in output
    assert "limit: sweep.limits.hours=0.0001 will end the sweep early" in output
    assert "limit: sweep.limits.steps=1000 holds: about 384 steps are needed" in output

    again = plan(sweep, "--probe", "seed=1")  # which is no matter of speed
    assert again.count("known from an earlier one") == 2
    assert "estimated from a probe of ten steps" in plan(sweep)
    assert "a probe" not in plan(sweep, "optimizer.batch_size=3")


def test_a_probe_is_a_trial_cut_to_ten_steps(sweep: Sweep, tmp_path: Path) -> None:
    """By a launcher that writes down what the trainer is told."""
    launcher = tmp_path / "launcher.py"
    launcher.write_text(
        "import json, os, pathlib, subprocess, sys\n"
        f"pathlib.Path({str(tmp_path / 'told.json')!r}).write_text(json.dumps(sys.argv[1:]))\n"
        f"sys.exit(subprocess.call([sys.executable, {str(TRAINER)!r}, *sys.argv[1:]]))\n",
        encoding="utf-8",
    )
    command = f"launch.command=['{sys.executable}','{launcher}']"
    plan(sweep, "--probe", command, "tracker=wandb", "samples.count=4", "sweep.factors={}")
    config = load_config(json.loads((tmp_path / "told.json").read_text(encoding="utf-8")))
    assert (config.budget.max_steps, config.samples.count, config.tracker.name) == (10, 0, "none")
    assert (config.stopping.name, config.evaluation.first_step) == ("none", 10)
    assert evaluation_count(config) == 2  # before the first step and after the last
    (searched,) = make_request(sweep.arguments()).cells[0].space.parameters
    assert searched.declared.name == "optimizer.lr"
    assert searched.declared.low <= config.optimizer.lr <= searched.declared.high


def test_a_probe_that_is_refused_or_fails_is_one_line(sweep: Sweep) -> None:
    refused = plan(sweep, "--probe", status=2, config_error=[0])
    assert refused == (
        "error: dataset.path=nowhere: there is no such folder (probe of the cell n4-lora-native-tiny)\n"
    )
    failed = plan(sweep, "--probe", status=1, crash=[0])
    assert failed.startswith("failed: the probe of the cell n4-lora-native-tiny ended as crashed: ")
    assert "told to crash" in failed and failed.count("\n") == 1
    assert list(sweep.runs_dir.iterdir()) == []
