"""The commands that look at a study from another terminal, or ask it to stop: status, stop, dashboard."""

from collections.abc import Sequence
import json
import time

from conf.errors import RequestError, WorkError
from sweep.arguments import (
    all_studies,
    find_study,
    refuse_left_out,
    runs_dir,
    take_flag,
    take_option,
    take_trial,
)
from sweep.cells import key_of, make_request
from sweep.hints import command, shown
from sweep.locks import owner_of
from sweep.record import StudyFolder

DEFAULT_PORT = 8080


def status(arguments: Sequence[str]) -> int:
    """Print what a study, or every study, has done."""
    from sweep.status import print_status, read_study

    rest, as_json = take_flag(arguments, "--json")
    if [item for item in rest if key_of(item) != "runs_dir"]:
        folders = [find_study(rest)[0]]
    else:
        folders = all_studies(runs_dir(rest))
        if not folders:
            raise RequestError(
                f"{runs_dir(rest)}: holds no study yet: start one with python -m sweep run experiment=demo"
            )
    records = [read_study(folder, owner_of(folder)) for folder in folders]
    if as_json:
        print(json.dumps(records if len(records) != 1 else records[0], indent=2, ensure_ascii=False))
    else:
        print_status(records)
    return 0


def stop(arguments: Sequence[str]) -> int:
    """Ask a supervisor to stop, and wait until it has; or ask one trial to end."""
    rest, trial = take_trial(arguments)
    folder, more = find_study(rest)
    if more:
        raise RequestError(f"{more[0]}: stop takes a study and --trial N")
    owner = owner_of(folder)
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
        if owner_of(folder) is None:
            print(f"stopped; continue with: {command('resume', folder.path)}")
            return 0
        time.sleep(0.1)
    raise WorkError(
        f"process {owner} still runs: end it with `kill {owner}`; resume continues the study all the same"
    )


def dashboard(arguments: Sequence[str]) -> int:
    """Open optuna-dashboard on a study, until Ctrl-C."""
    rest, text = take_option(arguments, "--port")
    folder, given = find_study(rest)
    other = [item for item in given if key_of(item) != "sweep.storage"]
    if other:
        raise RequestError(f"{other[0]}: dashboard takes a study, --port N and sweep.storage")
    port = DEFAULT_PORT if text is None else int(text) if text.isdigit() else -1
    if not 0 <= port < 65536:
        raise RequestError(f"--port {text}: must be a number up to 65535, for example --port {DEFAULT_PORT}")
    from sweep.dashboard import serve

    return serve(folder, _storage_of(folder, given), port)


def _storage_of(folder: StudyFolder, given: Sequence[str]) -> str | None:
    """The address of the database that holds a study; None where it has a journal."""
    record = folder.read()
    if not given and (record["config"].get("sweep") or {}).get("storage") is None:
        return None
    kept = [item for item in record["overrides"] if not given or key_of(item) != "sweep.storage"]
    own = [item for item in kept if key_of(item) == "sweep.storage"]
    refuse_left_out(own, f"dashboard {shown(folder.path)}")
    return make_request([*kept, *given]).config.sweep.storage


def _stop_trial(folder: StudyFolder, number: int) -> int:
    run_folder = folder.trial(number)
    if run_folder.read_verdict() is not None:
        raise RequestError(f"--trial {number}: has ended already ({run_folder.outcome()})")
    run_folder.request_stop("stopped", "asked by hand")
    print(f"asked {run_folder.path.name} to stop; the sweep goes on with the next trial")
    return 0
