"""`sweep reproduce`: the command of a recorded trial, run again in a fresh folder, and both curves compared."""

from collections.abc import Sequence
from dataclasses import dataclass
import datetime
import math
from pathlib import Path
import shlex
import time

import yaml

from conf.compose import load_config
from conf.errors import RequestError, WorkError
from conf.quoting import override
from conf.schema import Config
from conf.secrets import has_mark, is_secret
from curves.point import Point
from curves.run_folder import RunFolder
from sweep.arguments import find_study, refuse_left_out, take_flag, take_option, take_trial
from sweep.attempts import read_attempts
from sweep.cells import key_of
from sweep.code_state import code_name, read_code_state
from sweep.exits import explain_exit, log_tail
from sweep.gpus import find_gpus
from sweep.hints import shown
from sweep.launch import LocalBackend, Order, Process, run_environment, trainer_command, trainer_environment
from sweep.record import StudyFolder
from sweep.tail import CurveTail

COMPARED = ("train_loss", "val_loss", "val_se", "delta", "image_loss", "bins", "lr", "lr_sum", "images_seen")
TRIAL = "STEPBUDGET_TRIAL"
FAILED_OUTCOMES = (None, "crashed", "out_of_memory", "config_error")
SAY_EVERY_S = 30.0
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True)
class Recipe:
    """What makes a trial again.

    Attributes:
        overrides: of the trainer, without the run folder's place.
        config: that they make.
        code: lines of the shell that bring back its code; none where that is the code of this checkout.
        number: of the trial, which the trainer is told.
    """

    study: StudyFolder
    folder: RunFolder
    overrides: list[str]
    config: Config
    code: list[str]
    number: int


def reproduce_trial(arguments: Sequence[str]) -> int:
    """Print a trial's command, run it, and compare the curves.

    Returns:
        0 where they are equal bit for bit, else 1.

    Raises:
        RequestError: there is no such trial, or its record is not enough.
        WorkError: the trainer failed.
    """
    rest, only_print = take_flag(arguments, "--print")
    rest, target = take_option(rest, "--to")
    recipe = _find(rest)
    place = Path(target or f"{recipe.study.path}-trial-{recipe.number:04d}").absolute()
    for line in _lines(recipe, place):
        print(line, flush=True)
    if only_print:
        return 0
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RequestError(f"--to {shown(place)}: exists: name another folder with --to FOLDER")
    again = _run(recipe, RunFolder(place))
    different = first_difference(recipe.folder.points(), again.points())
    if different is None:
        points = recipe.folder.points()
        print(f"equal bit for bit: {len(points)} points up to step {points[-1].step}")
        return 0
    print(f"different: {different}")
    return 1


def first_difference(recorded: Sequence[Point], again: Sequence[Point]) -> str | None:
    """Where two curves differ first, in words; None where all that is recorded came out again, bit for bit."""
    if not recorded:
        return "the recorded trial has no points"
    made = {point.step: point for point in again}
    for point in recorded:
        if point.step not in made:
            return f"step {point.step} is recorded and was not reached again"
        for name in COMPARED:
            old, new = getattr(point, name), getattr(made[point.step], name)
            if not _same(old, new):
                return f"{name} at step {point.step} is recorded as {_short(old)}, and now {_short(new)}"
    return None


def _find(arguments: Sequence[str]) -> Recipe:
    """The trial that is meant: a run folder in a study, or a study and --trial N."""
    given = [item for item in arguments if _is_override(item)]
    rest, number = take_trial([item for item in arguments if item not in given])
    if number is None and len(rest) == 1 and Path(rest[0]).parent.name == "trials":
        path = Path(rest[0]).absolute()
        study, folder = StudyFolder(path.parents[1]), RunFolder(path)
        if not path.is_dir() or not study.exists():
            raise RequestError(f"{rest[0]}: is no trial of a study: give runs/STUDY/trials/NUMBER-CELL")
    else:
        study, _ = find_study(rest)
        if number is None:
            raise RequestError("reproduce takes a trial's folder, or a study and --trial N")
        folder = study.trial(number)
    number = int(folder.path.name.split("-", 1)[0])
    overrides = _with_secrets(_overrides(folder), given, folder)
    return Recipe(study, folder, overrides, load_config(overrides), _code_lines(study, folder), number)


def _is_override(item: str) -> bool:
    named = item.startswith("-") or key_of(item) in ("study", "runs_dir")
    return "=" in item and not named and not Path(item).exists()


def _with_secrets(recorded: Sequence[str], given: Sequence[str], folder: RunFolder) -> list[str]:
    """The recorded overrides with the secrets that the record left out, and nothing else changed."""
    left_out = {key_of(item) for item in recorded if has_mark(item)}
    for item in given:
        if key_of(item) not in left_out:
            raise RequestError(
                f"{item}: a trial is run again with its own settings; only secrets are given anew"
            )
    anew = {key_of(item): item for item in given}
    overrides = [anew.get(key_of(item), item) for item in recorded]
    refuse_left_out(overrides, f"reproduce {shown(folder.path)}")
    return overrides


def _overrides(folder: RunFolder) -> list[str]:
    """Those of the attempt that the trial ended with, without what only says where it lies."""
    found: list[str] = []
    attempts = read_attempts(folder)
    if attempts and attempts[-1].overrides:
        found = list(attempts[-1].overrides)
    elif folder.overrides.is_file():
        try:
            read = yaml.safe_load(folder.overrides.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            read = None
        found = [str(item) for item in read] if isinstance(read, list) else []
    if not found:
        raise RequestError(
            f"{shown(folder.path)}: neither attempts.jsonl nor overrides.yaml says how it was started"
        )
    return [item for item in found if key_of(item) != "run_dir"]


def _code_lines(study: StudyFolder, folder: RunFolder) -> list[str]:
    """How to get the trial's code back, where it is not this checkout's."""
    record = study.read()
    attempts = read_attempts(folder)
    states = {item["content"]: item for item in record.get("code") or []}
    sessions = record.get("sessions") or []
    started = [item for item in sessions if attempts and _unix(item["started"]) <= attempts[-1].started + 1]
    state = states.get((started or sessions or [{}])[-1].get("code"))
    now = read_code_state()
    if state is None or state["content"] == now.content:
        return []
    was = code_name(state["commit"], bool(state["patch"]), state["content"])
    lines = [f"# the trial ran {was}, this checkout is {now.name()}"]
    if state["commit"]:
        lines.append(f"git checkout {state['commit']}")
    if state["patch"]:
        note = "" if state["patch_is_whole"] else "  # without large files and secrets"
        lines.append(f"git apply {shown(study.path / state['patch'])}{note}")
    return lines


def _lines(recipe: Recipe, place: Path) -> list[str]:
    """The commands for a shell."""
    launch, gpus = recipe.config.launch, find_gpus(recipe.config)
    own = {name: value for name, value in launch.environment.items() if not is_secret(name)}
    added = {**own, **trainer_environment(launch, gpus, 0), TRIAL: str(recipe.number)}
    del added["STEPBUDGET_SUPERVISED"]  # with which a trainer ends when its standard input does
    overrides = _with_place(recipe, place)
    if launch.command is not None:
        added |= run_environment(place, overrides)
    words = shlex.join(trainer_command(recipe.config, overrides, gpus))
    return [*recipe.code, " ".join([*(f"{key}={shlex.quote(value)}" for key, value in added.items()), words])]


def _with_place(recipe: Recipe, place: Path) -> list[str]:
    return [*recipe.overrides, override("run_dir", str(place))]


def _run(recipe: Recipe, folder: RunFolder) -> RunFolder:
    """Run the trial to where the recorded one ended.

    Raises:
        WorkError: the trainer failed before.
    """
    gpus = find_gpus(recipe.config)
    overrides = _with_place(recipe, folder.path)
    command = trainer_command(recipe.config, overrides, gpus)
    folder.path.mkdir(parents=True, exist_ok=True)
    added = {TRIAL: str(recipe.number), **run_environment(folder.path, overrides)}
    order = Order(command, folder.log, added)
    process = LocalBackend(recipe.config.launch, gpus).start(0, order)
    try:
        _follow(process, folder, _last_step(recipe.folder), recipe.folder.outcome())
    finally:
        if process.exit_status() is None:
            process.kill()
    if folder.outcome() in FAILED_OUTCOMES and _last_step(folder) < _last_step(recipe.folder):
        outcome, reason = explain_exit(process.exit_status() or 0, log_tail(folder))
        status = folder.read_status()
        said = status.reason if status and status.outcome else reason
        raise WorkError(
            f"the trainer ended as {folder.outcome() or outcome}: {said}; see {shown(folder.log)}"
        )
    return folder


def _follow(process: Process, folder: RunFolder, last: int, outcome: str | None) -> None:
    """Wait for the end, with a line every 30 s; a trial that was ended from outside is ended at the same step."""
    tail, said = CurveTail(folder.curve), time.monotonic()
    while process.exit_status() is None:
        tail.read()
        step = tail.last.step if tail.last else 0
        if step >= last and outcome != "complete" and not folder.stop_request.exists():
            folder.request_stop("stopped", "the recorded trial ended here")
        if time.monotonic() - said >= SAY_EVERY_S:
            said = time.monotonic()
            print(f"step {step} of {last}", flush=True)
        time.sleep(_LOOK_EVERY_S)


def _last_step(folder: RunFolder) -> int:
    points = folder.points()
    return points[-1].step if points else 0


def _unix(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _same(old: object, new: object) -> bool:
    """Equal, not-a-number included."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, float) and isinstance(new, float) and math.isnan(old):
        return math.isnan(new)
    return old == new


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
