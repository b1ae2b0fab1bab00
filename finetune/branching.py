"""A run that branches off another one: `budget.trunk` has trained its first steps already. Needs no torch.

The branch's folder stands for itself. It gets the trunk's training state, and its points and samples up to there, as if
the run had trained them itself: which would have given the same, bit for bit.
"""

from dataclasses import dataclass
import os
from pathlib import Path
import re
import shutil

from conf.errors import RequestError
from conf.inputs import project_path
from conf.schema import Config
from curves.cooldown import SCHEDULE, TRUNK_SCHEDULE, cooldown_start
from curves.likeness import FILE_NAME as LIKENESS
from curves.likeness import copy_likeness
from curves.run_folder import RunFacts, RunFolder

# Keys that a branch may have otherwise than its trunk: they change nothing before its decay begins.
BRANCH_KEYS = ("budget", "stopping", "checkpoints", "optimizer.schedule", "optimizer.decay_share")
AVERAGE = "evaluation.average_share"


@dataclass(frozen=True)
class Branch:
    """Where a run leaves its trunk, and the trunk's training state after that step."""

    trunk: RunFolder
    step: int

    @property
    def state(self) -> Path:
        return self.trunk.kept_state(self.step)


def find_branch(config: Config) -> Branch | None:
    """What `budget.trunk` asks for; None where it is not set, or the run has gone on from there already.

    Raises:
        RequestError: the schedule does not decay at the end, or there is no trunk at constant learning rate that kept
            the state which is needed.
    """
    asked = config.budget.trunk
    if asked is None:
        return None
    if config.optimizer.schedule != SCHEDULE:
        raise RequestError(
            f"optimizer.schedule={config.optimizer.schedule}: budget.trunk is for runs that are at constant learning "
            f"rate until they decay: set optimizer.schedule={SCHEDULE}, or drop budget.trunk"
        )
    if config.run_dir is not None and (RunFolder(config.run_dir).checkpoints / "last").is_dir():
        return None
    trunk = RunFolder(project_path(asked))
    facts = _read_trunk(asked, trunk)
    horizon = config.budget.horizon or config.budget.max_steps or 0
    branch = Branch(trunk, cooldown_start(horizon, config.optimizer.decay_share))
    if not branch.state.is_dir():
        raise RequestError(_no_state(config, branch, horizon, facts))
    return branch


def _read_trunk(asked: str, trunk: RunFolder) -> RunFacts:
    try:
        facts = trunk.read_facts()
    except ValueError as error:
        raise RequestError(
            f"budget.trunk={asked}: is no run folder ({error}); give the folder of a run with "
            f"optimizer.schedule={TRUNK_SCHEDULE} and checkpoints.keep=[STEP,...]"
        ) from error
    schedule = facts.hyperparameters.get("schedule")
    if schedule != TRUNK_SCHEDULE:
        raise RequestError(
            f"budget.trunk={asked}: its learning rate has followed optimizer.schedule={schedule}: a trunk is a run with "
            f"optimizer.schedule={TRUNK_SCHEDULE}"
        )
    return facts


def _no_state(config: Config, branch: Branch, horizon: int, facts: RunFacts) -> str:
    """Why there is no state to go on from, and what would do."""
    place = f"a budget of {horizon} steps decays from step {branch.step} on"
    if branch.step > facts.horizon:
        return (
            f"budget.max_steps={horizon}: {place}, beyond the trunk budget.trunk={config.budget.trunk} of "
            f"{facts.horizon} steps: take a smaller budget, or train a longer trunk"
        )
    kept = ", ".join(map(str, branch.trunk.kept_steps()))
    return (
        f"budget.trunk={config.budget.trunk}: {place}, and the trunk kept "
        f"{f'the states of steps {kept}' if kept else 'no state'}: train it with checkpoints.keep=[{branch.step}], or "
        f"take a budget whose decay begins at a step that was kept"
    )


def refuse_in_scripts(config: Config) -> None:
    """Another's script keeps its own training states and averages.

    Raises:
        RequestError: naming the key that it cannot follow.
    """
    asked = {
        "budget.trunk": config.budget.trunk,
        "checkpoints.keep": config.checkpoints.keep,
        AVERAGE: config.evaluation.average_share,
    }
    for key, value in asked.items():
        if value:
            raise RequestError(f"{key}={value}: only train.py can do that: drop it for another's script")


def free_keys(config: Config) -> tuple[str, ...]:
    """Keys in which the trunk may differ. A branch need not measure an average that the trunk has; not the reverse."""
    return (*BRANCH_KEYS, AVERAGE) if config.evaluation.average_share is None else BRANCH_KEYS


def take_over(branch: Branch, folder: RunFolder) -> None:
    """Bring the trunk's points and samples up to the branching step into a folder, and then, at once, its state.

    A run that is killed before that has no state and starts anew.
    """
    shutil.copyfile(branch.trunk.curve, folder.curve)
    folder.cut_curve(branch.step)
    if branch.trunk.samples.is_dir():
        folder.samples.mkdir(exist_ok=True)
        for path in sorted(branch.trunk.samples.iterdir()):
            drawn = re.match(r"step-(\d+)-", path.name)
            if path.name != LIKENESS and (drawn is None or int(drawn[1]) <= branch.step):
                shutil.copyfile(path, folder.samples / path.name)
        copy_likeness(branch.trunk.samples, folder.samples, branch.step)
    put_in_place(branch.state, folder.checkpoints)


def put_in_place(state: Path, checkpoints: Path) -> None:
    """Make a kept state the one that training goes on from, at once; by links where the file system has them."""
    temporary, last = checkpoints / f".last.{os.getpid()}.tmp", checkpoints / "last"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(state, temporary, copy_function=_link_or_copy)
    shutil.rmtree(last, ignore_errors=True)
    temporary.rename(last)


def _link_or_copy(source: str, target: str) -> None:
    """States are never written into, only replaced: two folders may share their files."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
