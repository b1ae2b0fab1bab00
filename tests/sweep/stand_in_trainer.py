"""A trainer that obeys the run folder's contract and trains nothing: a U-shaped curve in (lr x steps).

Usage: stand_in_trainer.py OVERRIDES, as train.py. The variable STAND_IN, a JSON object, steers it:
    step_s: seconds a step;  checkpoint_every: steps
    crash, killed, diverge, config_error: numbers of trials that end so, at half of their steps, in every attempt
    crash_once, killed_once, preempt_once: numbers of trials that do so in their first attempt
    out_of_memory: numbers of trials that have too little memory there for a batch larger than 1
    stop_rule: numbers of trials that a rule stops there
    slow: numbers of trials that go on there until they are asked to stop
    hang: numbers of trials that hang there and ignore TERM
    hang_once: numbers of trials that hang so in their first attempt
    outlive: seconds that a trainer goes on after another supervisor has taken over
    scatter: by dataset size, by how much (natural log) seeds move the time of the minimum
    hold: file that all trials wait for there, until they are asked to stop
"""

import json
import math
import os
from pathlib import Path
import random
import signal
import sys
import threading
import time
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from curves.cooldown import cooldown_start
from curves.point import Point
from curves.run_folder import RunFacts, RunFolder, Status, read_json, write_json

TELL = json.loads(os.environ.get("STAND_IN", "{}"))
NUMBER = int(os.environ.get("STEPBUDGET_TRIAL", "0"))


def told(what: str) -> bool:
    return NUMBER in TELL.get(what, [])


def parse(arguments: list[str]) -> dict[str, str]:
    pairs = (item.lstrip("+").split("=", 1) for item in arguments if "=" in item)
    return {key: value.strip("'") for key, value in pairs}


def watch_supervisor(folder: RunFolder) -> None:
    """End when standard input closes: the supervisor is gone."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock would abort the interpreter's end
        pass
    if "outlive" in TELL:
        outlive(folder, TELL["outlive"])
    os._exit(3)


def outlive(folder: RunFolder, seconds: float) -> None:
    """Go on until another supervisor has the study, and some seconds more."""
    lock = folder.path.parents[1] / "supervisor.lock"
    dead, since = lock.read_text(), None
    while since is None or time.monotonic() - since < seconds:
        if since is None and lock.read_text() not in ("", dead):
            since = time.monotonic()
        time.sleep(0.1)


def held_out_loss(lr: float, step: int, moved: float = 0.0) -> float:
    """Falls to a minimum at lr x step = 0.05 x e^moved and rises again; higher rates reach less."""
    time_passed = lr * step / (0.05 * math.exp(moved))
    return 1.0 - 0.2 * (1 - lr) * time_passed * math.exp(1 - time_passed)


def write_start(folder: RunFolder, given: dict[str, str], lr: float, steps: int) -> None:
    size = given.get("dataset_size", "n8")
    cell = {"method": given.get("method", "lora"), "base_model": "tiny", "resolution": 64, "base_id": "b"}
    cell |= {"dataset_size": size, "images": int(size[1:]), "dataset": "d", "captions": "file"}
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_facts(
        RunFacts(
            cell,
            {"lr": lr, "batch": 4},
            int(given["seed"]),
            steps,
            lr * steps,
            "panel",
            8,
            given["study"],
            NUMBER,
        )
    )
    earlier = folder.read_status()
    alone = earlier is None or earlier.pid is None or not Path(f"/proc/{earlier.pid}").exists()
    with (folder.path / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"alone": alone, "overrides": sys.argv[1:]}) + "\n")


def first_attempt(folder: RunFolder) -> bool:
    return (folder.path / "sessions.jsonl").read_text(encoding="utf-8").count('"overrides"') == 1


def misbehave(folder: RunFolder, given: dict[str, str], step: int) -> None:
    """What STAND_IN asks for, at half of the steps."""
    first = first_attempt(folder)
    if told("crash") or (first and told("crash_once")):
        raise RuntimeError("told to crash")
    if told("killed") or (first and told("killed_once")):
        os.kill(os.getpid(), signal.SIGKILL)
    if first and told("preempt_once"):
        write_json(folder.checkpoints / "last" / "state.json", {"step": step})
        end(folder, "preempted", "asked to end by SIGTERM", step)
    if told("out_of_memory") and int(given.get("optimizer.batch_size", "4")) > 1:
        end(folder, "out_of_memory", "out of memory: told to", step)
    if told("stop_rule"):
        end(folder, "stopped", "the minimum is passed", step)
    while told("slow") and not folder.stop_request.exists():
        time.sleep(0.02)
    if told("hang") or (first and told("hang_once")):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (folder.path / "hanging").touch()
        while True:
            time.sleep(0.05)
    if told("diverge"):
        folder.append_point(Point(step=step, val_loss=math.nan))
        end(folder, "diverged", "the loss is not finite", step)


def hold(folder: RunFolder, step: int) -> None:
    """Wait, with a heartbeat, until a file appears or a request to stop."""
    while not (Path(TELL["hold"]).exists() or folder.stop_request.exists()):
        folder.write_status(Status("running", step, updated=time.time(), pid=os.getpid()))
        time.sleep(0.05)


def end(folder: RunFolder, outcome: str, reason: str, step: int) -> None:
    step_s = TELL.get("step_s", 0.001)
    folder.write_status(Status("ended", step, outcome, reason, step_s, updated=time.time(), pid=os.getpid()))
    # After the status: one that is killed before that has not ended.
    with (folder.path / "sessions.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"ended": outcome}) + "\n")
    os._exit(0)


def branch_off(folder: RunFolder, given: dict[str, str], steps: int) -> None:
    """Take the trunk's state and its points, as train.py does."""
    checkpoint = folder.checkpoints / "last" / "state.json"
    if "budget.trunk" not in given or checkpoint.exists():
        return
    trunk = RunFolder(given["budget.trunk"])
    step = cooldown_start(steps, float(given["optimizer.decay_share"]))
    state = trunk.kept_state(step) / "state.json"
    if not state.exists():
        print(f"error: budget.trunk: there is no state of step {step}", file=sys.stderr)
        sys.exit(2)
    folder.curve.write_bytes(trunk.curve.read_bytes())
    write_json(checkpoint, read_json(state))


def train(folder: RunFolder, given: dict[str, str], lr: float, steps: int) -> None:
    checkpoint = folder.checkpoints / "last" / "state.json"
    kept = set(json.loads(given.get("checkpoints.keep", "[]")))
    branch_off(folder, given, steps)
    start = read_json(checkpoint)["step"] if checkpoint.exists() else 0
    folder.cut_curve(start)
    scatter = TELL.get("scatter", {}).get(given.get("dataset_size", "n8"), 0.0)
    moved = scatter * random.Random(int(given["seed"])).choice((-1, 1))
    step_s, every = TELL.get("step_s", 0.001), TELL.get("checkpoint_every", 0)
    for step in range(start, steps + 1):
        if step & (step - 1) == 0 or step == steps:
            loss = held_out_loss(lr, step, moved)
            folder.append_point(
                Point(step=step, images_seen=4 * step, lr=lr, lr_sum=lr * step, val_loss=loss)
            )
            folder.write_status(Status("running", step, None, "", step_s, steps, time.time(), os.getpid()))
        if step == steps // 2:
            misbehave(folder, given, step)
        if every and step % every == 0:
            write_json(checkpoint, {"step": step})
        if step in kept:
            write_json(folder.kept_state(step) / "state.json", {"step": step})
        if step == steps // 2 and "hold" in TELL:
            hold(folder, step)
        if folder.stop_request.exists():
            write_json(checkpoint, {"step": step})
            request: dict[str, Any] = read_json(folder.stop_request)
            end(folder, request["outcome"], request["reason"], step)
        time.sleep(step_s)
    write_json(checkpoint, {"step": steps})  # so that it can be lengthened
    end(folder, "complete", "", steps)


def main() -> None:
    given = parse(sys.argv[1:])
    if told("config_error"):
        print("error: dataset.path=nowhere: there is no such folder", file=sys.stderr)
        sys.exit(2)
    folder, lr, steps = (
        RunFolder(given["run_dir"]),
        float(given.get("optimizer.lr", "1e-3")),
        int(given["budget.max_steps"]),
    )
    write_start(folder, given, lr, steps)
    if "STEPBUDGET_SUPERVISED" in os.environ:
        threading.Thread(target=watch_supervisor, args=(folder,), daemon=True).start()
    train(folder, given, lr, steps)


if __name__ == "__main__":
    main()
