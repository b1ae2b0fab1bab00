"""The commands of `python -m sweep`. Optuna and rich are imported where they are used: `plan` is quick."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import fcntl
import json
import os
from pathlib import Path
import time
from typing import IO

from conf.errors import RequestError, WorkError, explain_os_error
from conf.quoting import override
from sweep.cells import Request, key_of, make_request
from sweep.hints import command
from sweep.plan import make_plan, refuse_changes
from sweep.record import StudyFolder, differences, hardware_facts, may_change, write_record

USAGE = """\
python -m sweep COMMAND [OVERRIDES or STUDY]

  plan OVERRIDES            compose and check every cell, print cells, trials, time and disk; start nothing
  run OVERRIDES             run the study to its planned number of trials
  resume STUDY [OVERRIDES]  continue an interrupted study; launch.* may change, sweep.trials may grow
  status [STUDY] [--json]   what a study has done, from another terminal too
  stop STUDY [--trial N]    ask a running study, or one trial of it, to end cleanly

examples:
  python -m sweep plan experiment=demo
  python -m sweep run experiment=demo study=mine budget.max_steps=300
  python -m sweep run study=sizes 'sweep.factors={dataset_size: [n4, n8, n16]}' sweep.trials=6 launch.slots=2
  python -m sweep resume mine launch.slots=4

STUDY is a name (mine), a folder (runs/mine) or study=mine.
Exit status: 0 done, 1 failed, 2 wrong request, 130 stopped by Ctrl-C.
"""
_LATER = ("launch", "tracker", "device", "cache_dir")  # what `resume` may change; sweep.trials may grow


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Raises:
        RequestError: what was asked for is wrong.
        WorkError: the sweep failed.
    """
    commands: dict[str, Callable[[list[str]], int]] = {
        "plan": plan,
        "run": run,
        "resume": resume,
        "status": status,
        "stop": stop,
    }
    if not arguments or {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0 if arguments else 2
    name, *rest = arguments
    if name not in commands:
        raise RequestError(f"{name}: there is no such command; valid are {', '.join(commands)}")
    return commands[name](rest)


def plan(arguments: list[str]) -> int:
    """Print what a run would do."""
    _only_overrides("plan", arguments)
    print("\n".join(make_plan(make_request(arguments)).lines()))
    return 0


def run(arguments: list[str]) -> int:
    """Start a study, or go on with it where its settings are the same."""
    _only_overrides("run", arguments)
    request = make_request(arguments)
    folder = StudyFolder(request.folder)
    if folder.exists():
        refuse_changes(folder, request)
    return _supervise(request, folder)


def resume(arguments: list[str]) -> int:
    """Continue a study with the settings it was started with."""
    folder, rest = _study(arguments)
    for item in rest:
        key = key_of(item)
        if key != "sweep.trials" and (key.split(".")[0] not in _LATER or not may_change(key)):
            raise RequestError(
                f"{item}: a study keeps its settings; "
                "resume may change launch.* (but launch.processes), tracker.*, device and sweep.trials"
            )
    record = folder.read()
    place = [override("study", folder.name), override("runs_dir", str(folder.path.parent)), *rest]
    renewed = {key_of(item) for item in place}
    request = make_request([*(item for item in record["overrides"] if key_of(item) not in renewed), *place])
    changed = [item for item in differences(record, request) if item[0] != "sweep.trials"]
    if changed:
        key, old, new = changed[0]
        raise RequestError(
            f"{key}={new}: the study {folder.name} was started with {key}={old}: keep to that, restore the "
            "files in conf/ where they have changed since, or start another study with study=NAME"
        )
    if request.config.sweep.trials < record["trials"]:
        raise RequestError(
            f"sweep.trials={request.config.sweep.trials}: the study has {record['trials']} trials a cell; "
            "it can only grow"
        )
    return _supervise(request, folder)


def status(arguments: list[str]) -> int:
    """Print what a study, or every study, has done."""
    from sweep.status import print_status, read_study

    as_json = "--json" in arguments
    rest = [item for item in arguments if item != "--json"]
    runs_dir = _runs_dir(rest)
    if [item for item in rest if key_of(item) != "runs_dir"]:
        folders = [_study(rest)[0]]
    else:
        folders = _studies(runs_dir)
        if not folders:
            raise RequestError(
                f"{runs_dir}: holds no study yet: start one with python -m sweep run experiment=demo"
            )
    records = [read_study(folder, _owner(folder)) for folder in folders]
    if as_json:
        print(json.dumps(records if len(records) != 1 else records[0], indent=2, ensure_ascii=False))
    else:
        print_status(records)
    return 0


def stop(arguments: list[str]) -> int:
    """Ask a supervisor to stop, and wait until it has; or ask one trial to end."""
    rest, trial = _take_trial(arguments)
    folder, more = _study(rest)
    if more:
        raise RequestError(f"{more[0]}: stop takes a study and --trial N")
    owner = _owner(folder)
    if owner is None:
        raise RequestError(f"{folder.name}: no sweep is running on it")
    if trial is not None:
        return _stop_trial(folder, trial)
    from curves.run_folder import write_json

    write_json(folder.stop_request, {"reason": "asked by `sweep stop`"})
    print(
        f"asked the sweep of {folder.name} (process {owner}) to stop; its trials write a checkpoint first",
        flush=True,
    )
    grace = float(folder.read()["config"]["launch"]["grace_s"])
    deadline = time.monotonic() + 2 * grace + 15
    while time.monotonic() < deadline:
        if _owner(folder) is None:
            print(f"stopped; continue with: {command('resume', folder.path)}")
            return 0
        time.sleep(0.1)
    raise WorkError(
        f"process {owner} still runs: end it with `kill {owner}`; resume continues the study all the same"
    )


def _stop_trial(folder: StudyFolder, number: int) -> int:
    from curves.run_folder import RunFolder

    found = sorted(folder.trials.glob(f"{number:04d}-*"))
    if not found:
        raise RequestError(f"--trial {number}: {folder.name} has no such trial")
    run_folder = RunFolder(found[0])
    if run_folder.read_verdict() is not None:
        raise RequestError(f"--trial {number}: has ended already ({run_folder.outcome()})")
    run_folder.request_stop("stopped", "asked by hand")
    print(f"asked {found[0].name} to stop; the sweep goes on with the next trial")
    return 0


def _supervise(request: Request, folder: StudyFolder) -> int:
    """Hold the study's lock and run it."""
    from sweep.gpus import find_gpus
    from sweep.launch import LocalBackend
    from sweep.screen import open_screen, say
    from sweep.supervisor import Supervisor

    gpus = find_gpus(request.config)
    backend = LocalBackend(request.config.launch, gpus)
    with contextlib.ExitStack() as stack:
        with _creating(folder):
            stack.enter_context(_lock(folder))
            write_record(folder, request, hardware_facts(gpus, backend.slots))
        say(f"{folder.path}: {len(request.cells)} cells, {request.planned} trials, {backend.slots} at once")
        try:
            return Supervisor(request, folder, backend, gpus, open_screen()).run()
        except OSError as error:
            raise WorkError(
                f"{explain_os_error(error, folder.path)}, then continue with: {command('resume', folder.path)}"
            ) from error


@contextlib.contextmanager
def _creating(folder: StudyFolder) -> Iterator[None]:
    """A place that takes no study is a wrong request."""
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"runs_dir={folder.path.parent}, study={folder.name}: {error.filename or folder.path}: "
            f"{error.strerror}: make room or give access there, or name another place"
        ) from error


def _lock(folder: StudyFolder) -> IO[str]:
    """The study's lock, while the file is open: the kernel lets go of it when the process ends, however it ends."""
    folder.path.mkdir(parents=True, exist_ok=True)
    file = folder.lock.open("a+", encoding="utf-8")
    file.seek(0)
    if not _try_lock(file):
        with file:
            raise RequestError(
                f"study={folder.name}: process {file.read().strip() or '?'} already runs it: "
                f"watch it with `{command('status', folder.path)}`"
            )
    file.truncate()
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _owner(folder: StudyFolder) -> int | None:
    """Process number of the supervisor that runs a study now."""
    try:
        with folder.lock.open("r+", encoding="utf-8") as file:
            if _try_lock(file):
                return None
            text = file.read().strip()
            return int(text) if text.isdigit() else 0
    except FileNotFoundError:
        return None


def _study(arguments: Sequence[str]) -> tuple[StudyFolder, list[str]]:
    """The study that arguments name (demo, runs/demo, study=demo) and the other arguments.

    Raises:
        RequestError: none is named, or it does not exist; existing ones are listed.
    """
    runs_dir = _runs_dir(arguments)
    rest: list[str] = []
    named: list[str] = []
    for item in arguments:
        if item.startswith("-"):
            raise RequestError(f"{item}: there is no such option; see python -m sweep --help")
        if key_of(item) == "study" and "=" in item:
            named.append(_text_of(item))
        elif "=" not in item or StudyFolder(Path(item)).exists():
            named.append(item)
        elif key_of(item) != "runs_dir":
            rest.append(item)
    existing = [folder.name for folder in _studies(runs_dir)]
    known = f"there are {', '.join(existing)}" if existing else f"there is none in {runs_dir} yet"
    if len(named) != 1:
        raise RequestError(f"name one study, for example `resume runs/demo`; {known}")
    for path in (Path(named[0]), runs_dir / named[0]):
        if StudyFolder(path).exists():
            return StudyFolder(path.absolute()), rest
    raise RequestError(f"study={named[0]}: there is no such study; {known}")


def _text_of(item: str) -> str:
    """The value of `key=value`, without the quotes that `run` needs around a name with spaces."""
    text = item.split("=", 1)[1].strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _studies(runs_dir: Path) -> list[StudyFolder]:
    paths = sorted(runs_dir.glob("*/study.yaml"), key=lambda path: path.stat().st_mtime)
    return [StudyFolder(path.parent.absolute()) for path in paths]


def _runs_dir(arguments: Sequence[str]) -> Path:
    given = [_text_of(item) for item in arguments if key_of(item) == "runs_dir" and "=" in item]
    return Path(given[-1] if given else "runs")


def _take_trial(arguments: Sequence[str]) -> tuple[list[str], int | None]:
    """Split off `--trial N` or `--trial=N`."""
    rest: list[str] = []
    trial: str | None = None
    items = iter(arguments)
    for item in items:
        if item == "--trial":
            trial = next(items, "")
        elif item.startswith("--trial="):
            trial = item.split("=", 1)[1]
        else:
            rest.append(item)
    if trial is not None and not trial.isdigit():
        raise RequestError(f"--trial {trial}: must be the number of a trial, for example --trial 3")
    return rest, int(trial) if trial is not None else None


def _only_overrides(command: str, arguments: Sequence[str]) -> None:
    for item in arguments:
        if item.startswith("-"):
            raise RequestError(f"{item}: there is no such option; see python -m sweep --help")
        if "=" not in item and not item.startswith("~"):
            raise RequestError(
                f"{item}: {command} takes overrides such as experiment=demo; did you mean study={item}?"
            )
