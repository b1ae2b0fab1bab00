"""How a study may grow once it is started: more trials, more cells, more steps."""

from collections.abc import Mapping, Sequence
import shlex
from typing import Any

from conf.errors import RequestError
from conf.quoting import override
from conf.schema import Config
from curves.run_folder import RunFolder
from sweep.branches import budgets
from sweep.cells import Request
from sweep.hints import command
from sweep.record import StudyFolder, differences
from sweep.tail import CurveTail

TRIALS, STEPS, FACTORS = "sweep.trials", "budget.max_steps", "sweep.factors"
RISE = 0.1  # of the gain; what the last two evaluations lie above the best where the minimum is passed


def may_grow(key: str) -> bool:
    """Whether a key is one of those that make a study larger."""
    return key in (TRIALS, STEPS) or key == FACTORS or key.startswith(f"{FACTORS}.")


def refuse_changes(folder: StudyFolder, request: Request) -> None:
    """`run` and `plan` on a study that is there: it keeps its settings.

    Raises:
        RequestError: naming the first key that differs, and the remedies.
    """
    changed = differences(folder.read(), request)
    if not changed:
        return
    if all(may_grow(key) for key, _, _ in changed):
        for item in changed:
            _refuse_less(folder, *item)
        overrides = [override(key, new) for key, _, new in changed]
        was = ", ".join(f"{key}={_shown(old)}" for key, old, _ in changed)
        raise RequestError(
            f"{', '.join(overrides)}: the study {folder.name} was started with {was}: "
            f"extend it with `{command('resume', folder.path, *map(shlex.quote, overrides))}`"
        )
    key, old, new = next(item for item in changed if not may_grow(item[0]))
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise RequestError(
        f"{key}={_shown(new)}: the study {folder.name} was started with {key}={_shown(old)}{more}: continue it as it is "
        f"with `{command('resume', folder.path)}`, or take another name with study=NAME"
    )


def refuse_all_but_growth(folder: StudyFolder, record: Mapping[str, Any], request: Request) -> None:
    """`resume`: a study keeps its settings, but for what makes it larger.

    Raises:
        RequestError: naming the first key that differs otherwise.
    """
    for key, old, new in differences(record, request):
        if may_grow(key):
            _refuse_less(folder, key, old, new)
        else:
            raise RequestError(
                f"{key}={_shown(new)}: the study {folder.name} was started with {key}={_shown(old)}: keep to that, "
                "restore the files in conf/ where they have changed since, or start another study with study=NAME"
            )
    schedule = request.config.optimizer.schedule
    longer = request.config.budget.max_steps != record["config"]["budget"]["max_steps"]
    if longer and budgets(request.config):
        raise RequestError(
            f"{STEPS}={request.config.budget.max_steps}: trunks and their branches have the budgets that the study was "
            "started with: start another study with study=NAME"
        )
    if longer and schedule != "constant":
        raise RequestError(
            f"{STEPS}={request.config.budget.max_steps}: with optimizer.schedule={schedule} more steps are another "
            "schedule from the first step on: start another study with study=NAME"
        )


def _refuse_less(folder: StudyFolder, key: str, old: Any, new: Any) -> None:
    if isinstance(old, list) and isinstance(new, list):
        missing = [level for level in old if level not in new]
        if missing:
            raise RequestError(
                f"{key}={_shown(new)}: the study {folder.name} has {', '.join(missing)} too; it can only grow"
            )
    elif isinstance(old, int) and isinstance(new, int):
        if new < old:
            raise RequestError(f"{key}={new}: the study {folder.name} has {old}; it can only grow")
    else:  # a factor that was not varied before, or is no more
        raise RequestError(
            f"{key}={_shown(new)}: the study {folder.name} was started with {key}={_shown(old)}: a factor may get "
            "more levels, not come or go: start another study with study=NAME"
        )


def _shown(value: Any) -> str:
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def falls_short(folder: RunFolder, config: Config) -> bool:
    """Whether a finished run ended at fewer steps than are asked for now, before it had passed its minimum.

    Never a trunk or a branch, each of which has its own.
    """
    if budgets(config):
        return False
    status = folder.read_status()
    if folder.outcome() != "complete" or status is None or status.step >= (config.budget.max_steps or 0):
        return False
    tail = CurveTail(folder.curve)
    tail.read()
    return not has_risen(list(tail.losses.values()))


def has_risen(losses: Sequence[float]) -> bool:
    """Whether the last two evaluations both lie `RISE` of the observed gain above the best, as `evidence` asks."""
    if len(losses) < 3:
        return False
    lowest = min(losses)
    return min(losses[-2:]) >= lowest + RISE * (losses[0] - lowest)


def can_be_lengthened(folder: RunFolder) -> bool:
    """Whether a finished run has kept the state that training goes on from."""
    return (folder.checkpoints / "last").is_dir()
