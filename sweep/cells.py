"""From a request to the cells of its study: every combination of levels, composed and checked."""

from collections.abc import Sequence
from dataclasses import dataclass
import itertools
from pathlib import Path
import re

from omegaconf import DictConfig, OmegaConf
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
from sweep.inputs import check_inputs, leave_one_out
from sweep.space import describe, search_space, trial_overrides, trial_values

AXES = ("dataset_size", "method", "resolution", "base_model")  # what a cell's label always names
_LONGEST_NAME = 200  # bytes; file systems take 255
_FREE = (
    "sweep.factors",
    "sweep.pruner.parameters",
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
        parameters: what is searched.
    """

    label: str
    levels: dict[str, str]
    overrides: tuple[str, ...]
    config: Config
    parameters: list[SpaceParameter]


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
    def folds(self) -> int:
        """Runs of one trial: one a fold."""
        return (self.config.dataset.folds or 1) if self.config.sweep.folds else 1

    @property
    def runs_a_cell(self) -> int:
        return self.config.sweep.trials * self.folds

    @property
    def planned(self) -> int:
        """Runs over all cells."""
        return len(self.cells) * self.runs_a_cell


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
        if not flag.startswith("-"):
            raise RequestError(f"launch.flags.{key}={flag}: must be a flag such as --{key.split('.')[-1]}")


def _check_reaches_script(parameters: Sequence[SpaceParameter], launch: Launch) -> None:
    """What is searched has a flag, where flags are all that the trainer is told by."""
    for parameter in parameters:
        if launch.flags and parameter.name not in launch.flags:
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
        parameters = search_space(config, levels)
        _check_not_fixed(parameters, overrides)
        _check_reaches_script(parameters, config.launch)
        configs = _with_values(node, base, parameters) if parameters else [config]
        for item in configs:
            check_inputs(item)
    except RequestError as error:
        place = ", ".join(f"{group}={level}" for group, level in levels.items())
        raise RequestError(f"{error} (cell {place})" if place else str(error)) from error
    return Cell(_label(config, levels), levels, base, configs[0], parameters)


def _with_values(node: DictConfig, base: Sequence[str], parameters: Sequence[SpaceParameter]) -> list[Config]:
    """The cell with valid values of its space, then with each parameter's extremes: all that a trial may meet.

    Composing anew (0.1 s) is needed only where a group is searched.
    """
    anew = any(item.name in groups() for item in parameters)
    configs: list[Config] = []
    for name, values in trial_values(parameters):
        try:
            if anew:
                configs.append(load_config([*base, *trial_overrides(values)]))
            else:
                for key, value in values.items():
                    OmegaConf.update(node, key, value, force_add=True)
                configs.append(to_config(node))
        except (RequestError, OmegaConfBaseException, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RequestError(
                f"space.parameters[{name}]: {reason} (a trial may draw {name}={values[name]})"
            ) from error
    return configs


def _check_not_fixed(parameters: Sequence[SpaceParameter], overrides: Sequence[str]) -> None:
    given = {key_of(item): item for item in overrides}
    for parameter in parameters:
        if parameter.name in given:
            raise RequestError(
                f"{given[parameter.name].lstrip('+')}: the space searches it ({describe(parameter)}): "
                "drop it here, or search nothing with space.parameters=[]"
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
