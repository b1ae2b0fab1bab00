"""The commands of `python -m sweep`. Optuna and rich are imported where they are used: `plan` is quick."""

from collections.abc import Callable, Iterator, Sequence
import contextlib

from conf.errors import RequestError, WorkError, explain_os_error
from conf.quoting import override
from sweep.arguments import find_study, only_overrides, refuse_left_out, take_flag
from sweep.cells import Request, key_of, make_request
from sweep.code_state import read_code_state
from sweep.extension import may_grow, refuse_all_but_growth, refuse_changes
from sweep.hints import command, shown
from sweep.locks import lock_study
from sweep.plan import make_plan
from sweep.record import DESIGN, StudyFolder, check_code, hardware_facts, may_change, write_record
from sweep.usage import overview, usage_of
from sweep.watching import dashboard, status, stop

HELP = ("-h", "--help")
_LATER = ("launch", "tracker", "device", "cache_dir")  # what `resume` may change beside what may grow


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Raises:
        RequestError: what was asked for is wrong.
        WorkError: the sweep failed.
    """
    if not arguments or arguments[0] in HELP:
        print(overview())
        return 0 if arguments else 2
    name, *rest = arguments
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "plan": plan,
        "run": run,
        "resume": resume,
        "status": status,
        "stop": stop,
        "dashboard": dashboard,
        "reproduce": reproduce,
    }
    if name not in commands:
        raise RequestError(f"{name}: there is no such command; valid are {', '.join(commands)}")
    if set(HELP) & set(rest):
        print(usage_of(name))
        return 0
    return commands[name](rest)


def plan(arguments: Sequence[str]) -> int:
    """Print what a run would do."""
    rest, probing = take_flag(arguments, "--probe")
    only_overrides("plan", rest)
    request = make_request(rest)
    if probing:
        from sweep.probe import probe_cells

        probe_cells(request)
    made = make_plan(request)
    print("\n".join(made.lines()))
    return 0


def run(arguments: Sequence[str]) -> int:
    """Start a study, or go on with it where its settings are the same."""
    rest, changed_code = take_flag(arguments, "--changed-code")
    only_overrides("run", rest)
    request = make_request(rest)
    folder = StudyFolder(request.folder)
    if folder.exists():
        refuse_changes(folder, request)
    return _supervise(request, folder, ["run", *arguments], changed_code)


def reproduce(arguments: Sequence[str]) -> int:
    """Run a recorded trial again."""
    from sweep.reproduce import reproduce_trial

    return reproduce_trial(arguments)


def resume(arguments: Sequence[str]) -> int:
    """Continue a study with the settings it was started with."""
    given, changed_code = take_flag(arguments, "--changed-code")
    folder, rest = find_study(given)
    for item in rest:
        _refuse_other_keys(item)
    record = folder.read()
    place = [override("study", folder.name), override("runs_dir", str(folder.path.parent)), *rest]
    renewed = {key_of(item) for item in place}
    kept = [item for item in record["overrides"] if key_of(item) not in renewed]
    refuse_left_out(kept, f"resume {shown(folder.path)}")
    request = make_request([*kept, *place])
    refuse_all_but_growth(folder, record, request)
    return _supervise(request, folder, ["resume", *arguments], changed_code)


def _refuse_other_keys(item: str) -> None:
    """What `resume` may not change."""
    key = key_of(item)
    if may_grow(key) or key in ("sweep.storage", *DESIGN) or key.startswith("sweep.limits"):
        return
    if key.split(".")[0] not in _LATER or not may_change(key):
        raise RequestError(
            f"{item}: a study keeps its settings; resume may change launch.* (but launch.processes), tracker.*, "
            f"device, sweep.limits.*, sweep.storage, {', '.join(DESIGN)}; sweep.trials, budget.max_steps and sweep.factors "
            "may grow"
        )


def _supervise(request: Request, folder: StudyFolder, words: Sequence[str], changed_code: bool) -> int:
    """Hold the study's lock and run it."""
    from sweep.gpus import find_gpus
    from sweep.launch import LocalBackend
    from sweep.screen import open_screen, say
    from sweep.storage import open_storage
    from sweep.supervisor import Supervisor

    gpus = find_gpus(request.config)
    backend = LocalBackend(request.config.launch, gpus)
    code = read_code_state()
    with contextlib.ExitStack() as stack:
        with _creating(folder):
            stack.enter_context(lock_study(folder))
            changed = check_code(folder, code, changed_code) if folder.exists() else None
            session = ["python", "-m", "sweep", *words]
            write_record(folder, request, hardware_facts(gpus, backend.slots), session, code)
        if changed is not None:
            say(changed)
        say(f"{folder.path}: {len(request.cells)} cells, {request.planned} trials, {backend.slots} at once")
        try:
            storage = stack.enter_context(
                open_storage(request.config.sweep.storage, folder.journal, folder.name)
            )
            return Supervisor(request, folder, storage, backend, gpus, open_screen()).run()
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
