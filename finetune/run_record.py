"""What a run writes about itself before it trains, and whether its folder may be used. Needs no torch."""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
import os
from pathlib import Path
import shutil
import time
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from conf.errors import RequestError
from conf.schema import Config
from conf.secrets import redact, redact_arguments
from curves.cooldown import cooldown_start
from curves.panel import Panel
from curves.run_folder import RunFacts, RunFolder, read_json, write_atomically, write_json
from finetune.branching import Branch, free_keys, put_in_place, refuse_in_scripts, take_over
from finetune.budget import hyperparameters
from finetune.plan import Plan
from finetune.status import FINISHED, RunStatus, is_main_process

TRIAL = "STEPBUDGET_TRIAL"  # number of the trial in its study, set by the supervisor
LIVE_S = 15.0  # a status younger than this belongs to a process that is still at work
# Keys that may differ between a run and its resumption, for they do not change what is computed.
FREE_KEYS = (
    "run_dir",
    "runs_dir",
    "cache_dir",
    "study",
    "tracker",
    "launch",
    "sweep",
    "space",
    "device",
    "checkpoints.every",
    "checkpoints.every_s",
    "evaluation.batch_size",
    "optimizer.batch_size",  # the batch an update has is compared on its own
    "optimizer.accumulation",
)
LENGTHENED_OUTCOMES = ("complete", "stopped")
LENGTHENED_KEYS = (
    "budget",
    "stopping",
    "checkpoints",
)  # which may also differ where a finished run is lengthened


def pinned_folder(overrides: Sequence[str]) -> Path | None:
    """The run folder that the command line pins, known before the configuration is; None without one."""
    for item in reversed(overrides):
        if item.startswith(("run_dir=", "+run_dir=", "++run_dir=")):
            try:
                value = OverridesParser.create().parse_override(item).value()
            except HydraException:
                return None
            return Path(str(value)) if value else None
    return None


def claim(path: Path, status: RunStatus) -> None:
    """Take a run folder: refuse one that is in use or finished, and drop what an earlier life left to say.

    Raises:
        RequestError: the folder is in use or finished, or cannot be made.
    """
    folder = RunFolder(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"run_dir={path}: cannot be made ({error.strerror}); choose another folder"
        ) from error
    outcome = folder.outcome()
    if outcome in FINISHED:
        if not (folder.checkpoints / "last").is_dir():
            raise RequestError(
                f"run_dir={path}: holds a finished run ({outcome}); choose another folder or remove this one"
            )
        return  # begin decides whether it may be lengthened, once the configuration is known
    if not is_main_process():
        return
    old = folder.read_status()
    if (
        old is not None
        and old.state != "ended"
        and time.time() - old.updated < LIVE_S
        and old.pid != os.getpid()
        and old.writer_exists()
    ):
        raise RequestError(
            f"run_dir={path}: process {old.pid} is writing to it; wait for it or choose another folder"
        )
    _drop_old_request(folder)
    folder.verdict.unlink(missing_ok=True)
    status.open(path)


def make_default_folder(config: Config, pixels: int) -> Path:
    """Make <runs_dir>/<method>-<dataset_size>-<resolution>-<time>, with a number where another run has the name.

    Raises:
        RequestError: runs_dir cannot be made.
    """
    stem = f"{config.method.name}-{config.dataset_size.name}-px{pixels}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        Path(config.runs_dir).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"runs_dir={config.runs_dir}: cannot be made ({error.strerror}); choose another folder"
        ) from error
    for number in count(1):
        path = Path(config.runs_dir) / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("unreachable")


def begin(
    folder: RunFolder, plan: Plan, panel: Panel | None, status: RunStatus, resumable: bool | None = None
) -> bool:
    """Write config.yaml, overrides.yaml, run.json and panel.json.

    Args:
        folder: of the run.
        plan: of the run.
        panel: of the held-out images.
        status: of the run.
        resumable: whether there is a training state, where another's script keeps it; None: checkpoints/last.

    Returns:
        Whether the folder holds a training state to go on from, which may be another run's that it branches off;
        without one, a crashed run's rest is cleared.

    Raises:
        RequestError: it, or the run that it branches off, is of another configuration.
    """
    if resumable is not None:
        refuse_in_scripts(plan.config)
    folder.path.mkdir(parents=True, exist_ok=True)
    _recover_checkpoint(folder)
    resumed = (folder.checkpoints / "last").is_dir() if resumable is None else resumable
    facts = run_facts(plan, panel.name if panel else None)
    branch = plan.branch if not resumed else None
    if branch is not None:
        _refuse_other_trunk(branch, plan, facts)
    lengthening = folder.outcome() in FINISHED
    if resumed:
        free = LENGTHENED_KEYS if lengthening else _growing(folder, plan)
        _refuse_other_configuration(folder, plan, facts, free)
    if lengthening:
        _refuse_to_shorten(folder, plan)
        status.open(folder.path, lengthening=True)
        folder.verdict.unlink(missing_ok=True)
        folder.stop_request.unlink(missing_ok=True)
    elif not resumed:
        folder.curve.unlink(missing_ok=True)
        shutil.rmtree(folder.samples, ignore_errors=True)
    write_atomically(folder.config, OmegaConf.to_yaml(OmegaConf.create(_recorded(plan.config))))
    overrides = list(redact_arguments(plan.overrides))
    write_atomically(folder.overrides, OmegaConf.to_yaml(OmegaConf.create(overrides)))
    if panel is not None:
        write_json(folder.panel, {**asdict(panel), "name": panel.name})
    folder.write_facts(facts)
    if branch is not None:
        take_over(branch, folder)
    return resumed or branch is not None


def run_facts(plan: Plan, panel: str | None) -> RunFacts:
    """run.json."""
    config = plan.config
    trial = os.environ.get(TRIAL)
    extra: dict[str, Any] = {"processes": plan.processes}
    if plan.recommended is not None:
        extra["recommended_by"] = config.budget.study
    if plan.scaled_from is not None:
        extra["scaled_from"] = asdict(plan.scaled_from)
    if config.budget.trunk is not None:
        step = cooldown_start(plan.schedule_horizon, config.optimizer.decay_share)
        extra["trunk"] = {"run": Path(config.budget.trunk).name, "step": step}
    return RunFacts(
        cell=plan.cell,
        hyperparameters=hyperparameters(config, plan.processes),
        seed=config.seed,
        horizon=plan.schedule_horizon,
        horizon_lr_sum=plan.lr_sum(plan.schedule_horizon),
        panel=panel,
        images=len(plan.split.training),
        study=config.study,
        trial=int(trial) if trial is not None else None,
        stopping=config.stopping.name,
        fold=config.dataset.fold,
        folds=plan.split.folds,
        extra=extra,
    )


def _growing(folder: RunFolder, plan: Plan) -> tuple[str, ...]:
    """An unfinished run may get more steps where its learning rate does not depend on how many they are."""
    more = plan.horizon > folder.read_facts().horizon and plan.config.optimizer.schedule == "constant"
    return ("budget.max_steps",) if more else ()


def _drop_old_request(folder: RunFolder) -> None:
    """Remove a stop request that an earlier life of the run has answered; one that came since is kept."""
    asked = _changed(folder.stop_request)
    status = folder.read_status()
    answered = max(
        _changed(folder.status) if status is not None and status.state == "ended" else 0.0,
        _changed(folder.verdict),
    )
    if 0 < asked <= answered:
        folder.stop_request.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _recover_checkpoint(folder: RunFolder) -> None:
    """Finish the exchange of an old for a new checkpoint that a kill interrupted.

    A killed run goes on from the latest of its states, which may be one that it keeps for branches.
    """
    last, old = folder.checkpoints / "last", folder.checkpoints / ".last.old"
    if old.is_dir() and not last.exists():
        old.rename(last)
    for left in folder.checkpoints.glob(".*"):
        shutil.rmtree(left, ignore_errors=True)
    kept = folder.kept_steps()
    if kept and folder.outcome() not in FINISHED and kept[-1] > _step_of(last):
        put_in_place(folder.kept_state(kept[-1]), folder.checkpoints)


def _step_of(state: Path) -> int:
    """Of a training state; -1 where there is none that can be read."""
    try:
        return int(read_json(state / "state.json")["step"])
    except (ValueError, KeyError, TypeError):
        return -1


def _refuse_to_shorten(folder: RunFolder, plan: Plan) -> None:
    """A finished run goes on where it is given more steps on a learning-rate schedule that it has followed so far."""
    outcome, done = folder.outcome(), folder.points()[-1].step
    facts, rule = folder.read_facts(), plan.config.stopping.name
    asked_for_more = plan.horizon > max(done, _max_steps(folder)) or (
        plan.horizon > done and rule != facts.stopping
    )
    if outcome not in LENGTHENED_OUTCOMES or not asked_for_more:
        raise RequestError(
            f"run_dir={folder.path}: holds a finished run ({outcome} at step {done}); choose another folder, or go on "
            f"with a larger budget.max_steps, or another stopping where a rule has ended it"
        )
    if plan.config.optimizer.schedule != "constant" and facts.horizon != plan.schedule_horizon:
        raise RequestError(
            f"budget.max_steps={plan.horizon}: the learning rate of this run has followed "
            f"optimizer.schedule={plan.config.optimizer.schedule} over {facts.horizon} steps, more steps need another "
            f"schedule from the start; choose another folder"
        )


def _max_steps(folder: RunFolder) -> int:
    """Of the finished run."""
    status = folder.read_status()
    return status.max_steps or 0 if status is not None else 0


def _refuse_other_configuration(
    folder: RunFolder, plan: Plan, facts: RunFacts, free: tuple[str, ...]
) -> None:
    """Going on with other settings would give a curve that no configuration describes."""
    kind = "a finished" if free else "an unfinished"
    for key, old, new in _differences(folder, plan, facts, free):
        raise RequestError(
            f"run_dir={folder.path}: holds {kind} run with {key}={old}, asked for now is {new}; "
            f"repeat its configuration to go on, or choose another folder"
        )


def _refuse_other_trunk(branch: Branch, plan: Plan, facts: RunFacts) -> None:
    """A branch that had trained its first steps otherwise is none."""
    for key, old, new in _differences(branch.trunk, plan, facts, free_keys(plan.config)):
        raise RequestError(
            f"{key}={new}: the trunk budget.trunk={branch.trunk.path} was trained with {key}={old}: "
            f"take the same, or another trunk"
        )


def _differences(
    folder: RunFolder, plan: Plan, facts: RunFacts, free: tuple[str, ...]
) -> list[tuple[str, Any, Any]]:
    """What a recorded run has otherwise than a plan, beside FREE_KEYS and `free`: (key, recorded, planned)."""
    try:
        before = _flat(OmegaConf.to_container(OmegaConf.load(folder.config)))
        cell = folder.read_facts().cell
        batch = folder.read_facts().hyperparameters.get("batch")
    except (OSError, ValueError) as error:
        raise RequestError(
            f"run_dir={folder.path}: its record cannot be read ({error}); choose another folder"
        ) from error
    now = _flat(_recorded(plan.config))
    pairs = [
        (key, before.get(key), now.get(key))
        for key in sorted({*before, *now})
        if not key.startswith((*FREE_KEYS, *free))
    ]
    pairs += [(key, cell.get(key), facts.cell[key]) for key in ("dataset", "base_id")]
    pairs.append(("batch over all processes", batch, facts.hyperparameters["batch"]))
    return [pair for pair in pairs if pair[1] != pair[2]]


def _recorded(config: Config) -> Any:
    """A configuration as config.yaml keeps it: without secrets."""
    return redact(OmegaConf.to_container(OmegaConf.structured(config)))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix.rstrip("."): node}
    leaves: dict[str, Any] = {}
    for key, value in node.items():
        leaves.update(_flat(value, f"{prefix}{key}."))
    return leaves
