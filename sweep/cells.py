"""From a request to the cells of its study: every combination of levels, composed and checked."""

from collections.abc import Collection, Sequence
import copy
from dataclasses import dataclass
import itertools
from pathlib import Path
import re

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.compose import (
    WHOLE_SWEEP,
    compose_node,
    did_you_mean,
    groups,
    known_keys,
    load_config,
    options,
    to_config,
)
from conf.errors import RequestError
from conf.quoting import override
from conf.schema import Config, Launch, SpaceParameter
from sweep.branches import budgets, check_branches
from sweep.inputs import check_inputs, check_sampling, check_start, leave_one_out
from sweep.points import read_starts
from sweep.space import CellSpace, Parameter, Values, trial_overrides
from sweep.values import describe, samples

AXES = ("dataset_size", "method", "resolution", "base_model")  # what a cell's label always names
_LONGEST_NAME = 200  # bytes; file systems take 255
_FREE = (
    "launch.environment",
    "launch.flags",
    "sweep.factors",
    "sweep.pruner.parameters",
    "sweep.sampler.parameters",
    "stopping.parameters",
)  # mappings with keys of the user's


@dataclass(frozen=True)
class Cell:
    """One combination of levels.

    Attributes:
        label: names the Optuna study and the run folders, for example n4-lora-native-tiny.
        levels: option of each factor.
        overrides: the user's, then the levels: what every trial of the cell starts from.
        config: the composed configuration, with an example value for what is searched.
        space: what is searched.
        trials: planned number of parameter sets.
    """

    label: str
    levels: dict[str, str]
    overrides: tuple[str, ...]
    config: Config
    space: CellSpace
    trials: int

    @property
    def parameters(self) -> list[SpaceParameter]:
        """What is searched, as it is declared."""
        return [item.declared for item in self.space.parameters]


@dataclass(frozen=True)
class Request:
    """A sweep that was asked for: overrides, the configuration they make, and its cells."""

    overrides: tuple[str, ...]
    config: Config
    cells: list[Cell]

    @property
    def folder(self) -> Path:
        """The study's folder.

        Raises:
            RequestError: the study has no name, or one that is no folder name.
        """
        name = self.config.study
        if name is None:
            raise RequestError(
                "study is not set: name the study with study=NAME; its folder is <runs_dir>/NAME"
            )
        if not name.strip() or name in (".", "..") or re.search(r"[/\\\0\n]", name):
            raise RequestError(f"study={name}: must be the name of a folder, without slashes")
        if len(name.encode()) > _LONGEST_NAME:
            raise RequestError(
                f"study={name[:40]}...: the name of a folder has at most {_LONGEST_NAME} bytes"
            )
        return Path(self.config.runs_dir).absolute() / name

    @property
    def runs_a_trial(self) -> int:
        """Runs of one parameter set: one a fold, or a trunk and its branches."""
        if self.config.sweep.folds:
            return self.config.dataset.folds or 1
        return 1 + len(budgets(self.config))

    def runs_of(self, cell: Cell) -> int:
        """Planned runs of a cell."""
        return cell.trials * self.runs_a_trial

    @property
    def planned(self) -> int:
        """Runs over all cells."""
        return sum(self.runs_of(cell) for cell in self.cells)


def make_request(overrides: Sequence[str]) -> Request:
    """Compose the study and every cell.

    Raises:
        RequestError: for whatever is wrong in overrides, factors, space or values.
    """
    usable = tuple(_open_mappings(overrides))
    config = load_config(usable)
    _check_study(config, usable)
    if config.sweep.folds and config.dataset.folds is None:
        # Stated once, so that a folder that grows under way does not change what the runs so far were.
        usable = (*usable, override("dataset.folds", leave_one_out(config)))
        config = load_config(usable)
    cells = [_compose_cell(levels, usable) for levels in _combinations(config)]
    _check_labels(cells)
    return Request(usable, config, cells)


def _open_mappings(overrides: Sequence[str]) -> list[str]:
    """Let `sweep.factors.method=[lora]` add a key where Hydra asks for a plus sign."""
    return [
        f"++{item}" if item.startswith(tuple(f"{key}{end}" for key in _FREE for end in ".=")) else item
        for item in overrides
    ]


def key_of(item: str) -> str:
    """The key of an override, without the signs before it and the package behind it."""
    return item.lstrip("+~").split("=", 1)[0].split("@", 1)[0].strip()


def _check_study(config: Config, overrides: Sequence[str]) -> None:
    keys = {key_of(item) for item in overrides}
    if "run_dir" in keys:
        raise RequestError("run_dir: a sweep names the run folders itself: set study and runs_dir")
    if not config.evaluation.enabled:
        raise RequestError(
            "evaluation.enabled=false: a sweep compares trials by their held-out loss: set it to true"
        )
    if config.dataset.fold is not None:
        raise RequestError(
            f"dataset.fold={config.dataset.fold}: a sweep runs every fold: use sweep.folds=true"
        )
    check_start(config.sweep.start_from)
    _check_flags(config.launch)
    if config.sweep.folds and "dataset" in config.sweep.factors:
        raise RequestError(
            "sweep.factors.dataset: sweep.folds=true takes one folder a study: set dataset=..."
        )
    for group, levels in config.sweep.factors.items():
        if group not in groups():
            raise RequestError(
                f"sweep.factors.{group}: there is no such group; valid are {', '.join(groups())}"
            )
        if group in WHOLE_SWEEP:
            raise RequestError(f"sweep.factors.{group}: belongs to the whole sweep and cannot be a factor")
        if not levels:
            raise RequestError(
                f"sweep.factors.{group}=[]: give at least one option of {', '.join(options(group))}"
            )
        for level in levels:
            if level not in options(group):
                raise RequestError(
                    f"sweep.factors.{group}={level}: there is no such option; "
                    f"valid are {', '.join(options(group))}"
                )
        if len(set(levels)) < len(levels):
            raise RequestError(f"sweep.factors.{group}=[{', '.join(levels)}]: an option stands there twice")
        if group in keys:
            raise RequestError(
                f"{group}: the sweep varies it over {', '.join(levels)}: "
                f"narrow it with sweep.factors.{group}=[OPTION,...] instead"
            )


def _check_flags(launch: Launch) -> None:
    """Flags belong to a command, and to keys that there are."""
    if launch.flags and launch.command is None:
        raise RequestError(
            "launch.command=null: launch.flags are those of another's script: set launch.command=[accelerate,launch,"
            "script.py], or launch=local for the trainer of this project"
        )
    known = [key for key in known_keys() if key not in groups()]
    for key, flag in launch.flags.items():
        if key not in known:
            raise RequestError(f"launch.flags.{key}: there is no key '{key}'{did_you_mean(key, known)}")
        if flag and not flag.startswith("-"):
            raise RequestError(
                f"launch.flags.{key}={flag}: must be a flag such as --{key.split('.')[-1]}, or '' to leave it untold"
            )


def _check_reaches_script(parameters: Sequence[Parameter], launch: Launch) -> None:
    """What is searched has a flag, where flags are all that the trainer is told by."""
    for parameter in parameters:
        if launch.flags and not launch.flags.get(parameter.name):
            raise RequestError(
                f"space.parameters[{parameter.name}]: launch.flags has no flag for it, so the script would not know: "
                f"add 'launch.flags={{{parameter.name}: --FLAG}}', or search one of {', '.join(launch.flags)}"
            )


def _combinations(config: Config) -> list[dict[str, str]]:
    factors = config.sweep.factors
    for rule in config.sweep.exclude:
        for group, level in rule.items():
            if level not in factors.get(group, []):
                shown = (
                    ", ".join(f"{key}: {', '.join(levels)}" for key, levels in factors.items()) or "no factor"
                )
                raise RequestError(f"sweep.exclude {group}={level}: is no level of the sweep ({shown})")
    combinations = [
        dict(zip(factors, levels, strict=True)) for levels in itertools.product(*factors.values())
    ]
    kept = [item for item in combinations if not any(_matches(item, rule) for rule in config.sweep.exclude)]
    if not kept:
        raise RequestError("sweep.exclude: leaves no cell")
    return kept


def _matches(levels: dict[str, str], rule: dict[str, str]) -> bool:
    return all(levels[group] == level for group, level in rule.items())


def _compose_cell(levels: dict[str, str], overrides: tuple[str, ...]) -> Cell:
    base = (*overrides, *(override(group, level) for group, level in levels.items()))
    try:
        node = compose_node(base)
        config = to_config(node)
        space = CellSpace(config, levels)
        _check_not_fixed(space, overrides, levels)
        _check_reaches_script(space.parameters, config.launch)
        configs = compose_branches(node, base, space) if space.parameters else [config]
        for item in configs:
            check_inputs(item)
        check_branches(config, {item.name for item in space.parameters})
        check_sampling(config, space)
        grid = config.sweep.sampler.name == "grid"
        trials = len(space.grid()) if grid else config.sweep.trials
    except RequestError as error:
        place = ", ".join(f"{group}={level}" for group, level in levels.items())
        raise RequestError(f"{error} (cell {place})" if place else str(error)) from error
    return Cell(_label(config, levels), levels, base, configs[0], space, trials)


def compose_branches(node: DictConfig, base: Sequence[str], space: CellSpace) -> list[Config]:
    """Every branch of a space composed and checked: an example of it, and each parameter's extremes there.

    Composing anew (0.1 s) is needed only where a group is searched.

    Raises:
        RequestError: no point keeps the constraints, or a trial could draw a value that is out of range.
    """
    searched = {item.name for item in space.parameters} & set(groups())
    composed: dict[tuple[str, ...], DictConfig] = {(): node}  # by the options of searched groups
    nodes = []
    for branch in space.branches:
        chosen = tuple(trial_overrides({name: branch[name] for name in branch if name in searched}))
        if chosen not in composed:
            composed[chosen] = compose_node([*base, *chosen])
        nodes.append(copy.deepcopy(composed[chosen]))
        space.set_plain(branch, {key: _plain(nodes[-1], key) for key in space.constraints.plain_keys})
    space.refuse_empty()
    space.starts = read_starts(space)
    configs: list[Config] = []
    for branch, own in zip(space.branches, nodes, strict=True):
        example = space.example(branch)
        if example is not None:  # else no trial comes here
            configs.extend(_with_values(own, searched, space, branch, example))
    return configs


def _with_values(
    node: DictConfig, searched: Collection[str], space: CellSpace, branch: Values, example: Values
) -> list[Config]:
    """A branch with values that its trials may meet: the example, then every extreme of each parameter."""
    configs: list[Config] = []
    deciding = [item for item in space.parameters if item.name in branch and item.label in example]
    if deciding:
        configs.append(_compose_trial(node, searched, space.named(example), deciding[-1]))
    for item in space.parameters:
        if item.label not in example or item.name in branch:
            continue
        for value in samples(item.declared):
            drawn = space.near(example, item.label, value)
            if drawn is not None:  # else the constraints keep every trial from it
                configs.append(_compose_trial(node, searched, space.named(drawn), item))
    return configs


def _compose_trial(node: DictConfig, searched: Collection[str], values: Values, tried: Parameter) -> Config:
    try:
        for name, value in values.items():
            if name not in searched:
                OmegaConf.update(node, name, value, force_add=True)
        return to_config(node)
    except (RequestError, OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        value = values.get(tried.name)
        raise RequestError(f"{tried.key}: {reason} (a trial may draw {tried.name}={value})") from error


def _plain(node: DictConfig, key: str) -> object:
    """A key's value as constraints see it: of a group, the name of its option."""
    value = OmegaConf.select(node, f"{key}.name" if key in groups() else key)
    return OmegaConf.to_container(value) if isinstance(value, DictConfig | ListConfig) else value


def _check_not_fixed(space: CellSpace, overrides: Sequence[str], levels: Collection[str]) -> None:
    given = {key_of(item): item for item in overrides}
    for parameter in space.parameters:
        if parameter.name in given:
            raise RequestError(
                f"{given[parameter.name].lstrip('+')}: the space searches it ({describe(parameter.declared)}): "
                "drop it here, or search nothing with space.parameters=[]"
            )
        if parameter.name in levels:
            raise RequestError(
                f"sweep.factors.{parameter.name}: the space searches it too ({parameter.key}): drop one of the two"
            )


def _label(config: Config, levels: dict[str, str]) -> str:
    names = [levels.get(axis) or str(getattr(config, axis).name) for axis in AXES]
    names += [level for group, level in levels.items() if group not in AXES]
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", name) for name in names)


def _check_labels(cells: Sequence[Cell]) -> None:
    labels = [cell.label for cell in cells]
    for label in labels:
        if labels.count(label) > 1:
            raise RequestError(f"sweep.factors: two cells have the label {label}")
