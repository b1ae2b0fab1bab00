"""What every trial of a cell needs, looked for before any is started: images, base model, steps, rules.

The trainer looks closer, for it opens the images. This look is quick and needs neither Pillow nor torch.
"""

from pathlib import Path

import yaml

from conf.errors import RequestError
from conf.inputs import (
    FEWEST_IN_FOLDS,
    IMAGE_SUFFIXES,
    METADATA,
    REPEAT_FOLDER,
    may_be_hub_id,
    project_path,
)
from conf.schema import Config, Launch
from sweep.space import CellSpace

SPECIAL = ("gp", "cmaes")  # samplers that need a package, or do not take every space
NEIGHBOURS = "neighbours"


def check_inputs(config: Config) -> None:
    """Check what a cell's trials would all fail on.

    Raises:
        RequestError: the steps are not set, the images are too few, the base model is not there, or the
            stop rule or the pruner has no such parameter.
    """
    _check_steps(config)
    _check_images(config)
    _check_base(config.base_model.path)
    _check_rule(config)
    _check_pruner(config)
    _check_accelerate_config(config.launch)


def check_sampling(config: Config, space: CellSpace) -> None:
    """Check that a cell's space can be sampled as asked.

    Raises:
        RequestError: the sampler has no such parameter, misses a package or does not take the space.
    """
    if not config.sweep.sampler.parameters and config.sweep.sampler.name not in SPECIAL:
        return
    from sweep.samplers import check_sampler  # here, since it loads Optuna

    check_sampler(config.sweep.sampler, space, config.sweep.trials)


def check_start(start_from: str | None) -> None:
    """Check that `sweep.start_from` names an earlier study.

    Raises:
        RequestError: it does not.
    """
    if start_from not in (None, NEIGHBOURS) and not (Path(str(start_from)) / "study.yaml").is_file():
        raise RequestError(
            f"sweep.start_from={start_from}: there is no such study: give {NEIGHBOURS}, or the folder of a study, "
            "for example runs/demo"
        )


def _check_steps(config: Config) -> None:
    if config.budget.study is not None or config.budget.max_steps is None:
        raise RequestError(
            f"budget={config.budget.name}: a sweep is what recommendations are made from: "
            "use budget=fixed budget.max_steps=NUMBER"
        )


def leave_one_out(config: Config) -> int:
    """Folds where each image is held out once: the number of images.

    Raises:
        RequestError: there are too few for folds.
    """
    found = _found_images(config)
    if found < FEWEST_IN_FOLDS:
        raise RequestError(
            f"dataset.path={config.dataset.path}: holds {found} images, folds need {FEWEST_IN_FOLDS}: add images"
        )
    return found


def _check_images(config: Config) -> None:
    found = _found_images(config)
    training = config.dataset_size.images
    if config.sweep.folds:
        held_out = -(-found // (config.dataset.folds or found))  # of the largest fold
        hold_out = f"{held_out} for the held-out fold (dataset.folds={config.dataset.folds})"
    else:
        held_out = config.dataset.held_out
        hold_out = f"dataset.held_out={held_out}"
    needed = held_out + (training or 1)
    if found < needed:
        raise RequestError(
            f"dataset_size={config.dataset_size.name}: dataset.path={config.dataset.path} holds {found} images, "
            f"{needed} are needed: {training or 'at least 1'} to train on and {hold_out}; "
            "add images, take a smaller dataset_size, or hold out fewer"
        )
    if config.sweep.folds and found < (config.dataset.folds or 0):
        raise RequestError(
            f"dataset.folds={config.dataset.folds}: dataset.path={config.dataset.path} holds {found} images: give a "
            "number up to that, or leave it out"
        )


def _found_images(config: Config) -> int:
    folder = project_path(config.dataset.path)
    found = _count_images(folder)
    key = f"dataset.path={config.dataset.path}"
    if found is None:
        raise RequestError(f"{key}: {folder} is no folder that can be read; give a folder of images")
    if found == 0:
        raise RequestError(f"{key}: {folder} holds no images; {', '.join(IMAGE_SUFFIXES)} are read")
    return found


def _check_base(path: str) -> None:
    folder = project_path(path)
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise RequestError(
                f"base_model.path={path}: {folder} holds no model_index.json; "
                "give a folder in diffusers' layout"
            )
        return
    if not folder.is_file() and not may_be_hub_id(path):  # a hub id only the trainer can look up
        raise RequestError(
            f"base_model.path={path}: no such folder or file; give a folder in diffusers' layout, a hub id or a "
            "single .safetensors file"
        )


def _check_rule(config: Config) -> None:
    if not config.stopping.parameters:
        return
    from curves.stopping.registry import make_rule  # here, since it loads scipy

    steps = config.budget.max_steps or 1
    images = config.dataset_size.images or 1
    try:
        make_rule(
            config.stopping.name,
            horizon_steps=steps,
            horizon_lr_sum=steps * config.optimizer.lr,
            images=images,
            **config.stopping.parameters,
        )
    except (TypeError, ValueError) as error:
        raise RequestError(f"stopping={config.stopping.name}: {error}") from error


def _check_pruner(config: Config) -> None:
    if config.sweep.pruner.name == "none":
        return
    from sweep.pruners import make_pruner  # here, since it loads Optuna

    make_pruner(config.sweep.pruner, config.evaluation.first_step, config.budget.max_steps or 1)


def _check_accelerate_config(launch: Launch) -> None:
    """A file of `accelerate config` is there, and starts as many processes as the batch is reckoned with."""
    name = launch.accelerate_config
    if name is None:
        return
    try:
        settings = yaml.safe_load(project_path(name).read_text(encoding="utf-8"))
        processes = int(settings.get("num_processes", 1))
    except OSError as error:
        raise RequestError(
            f"launch.accelerate_config={name}: {error.strerror}: give the file's path"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise RequestError(
            f"launch.accelerate_config={name}: is no file of `accelerate config`: write one with it"
        ) from error
    if processes != launch.processes:
        raise RequestError(
            f"launch.processes={launch.processes}: launch.accelerate_config={name} has num_processes: {processes}: "
            f"set launch.processes={processes}"
        )


def _count_images(folder: Path) -> int | None:
    """Image files by their suffix, without hidden ones; None where the folder cannot be listed.

    No fewer than the trainer reads: metadata.jsonl may leave out some of what lies in folders.
    """
    try:
        entries = list(folder.iterdir())
        inner = [path for path in entries if path.is_dir() and REPEAT_FOLDER.fullmatch(path.name)]
        if folder / METADATA in entries:
            entries = list(folder.rglob("*"))
        else:
            entries += [path for place in inner for path in place.iterdir()]
    except OSError:
        return None
    names = [path for path in entries if not path.name.startswith(".")]
    return sum(path.suffix.lower() in IMAGE_SUFFIXES for path in names)
