"""Spaces of cells, made from yaml files as a sweep makes them, but without composing the rest anew."""

import copy
import functools
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
import yaml

from conf.compose import compose_node, to_config
from conf.schema import Config, Space, SpaceParameter
from sweep.cells import compose_branches
from sweep.inputs import check_sampling
from sweep.points import read_starts
from sweep.space import CellSpace


@functools.cache
def base_node() -> DictConfig:
    return compose_node(["budget.max_steps=64"])


@functools.cache
def base_config() -> Config:
    return to_config(base_node())


def space_of(*parameters: SpaceParameter, **declared: Any) -> CellSpace:
    """A cell's space, as a yaml file with these parameters, constraints and points makes it."""
    config = copy.copy(base_config())
    config.space = Space("test", list(parameters), **declared)
    space = CellSpace(config, {})
    for branch in space.branches:
        space.set_plain(branch, {})
    space.starts = read_starts(space)
    return space


def read_space_file(path: Path, sampler: str) -> CellSpace:
    """A space file composed with everything else, and all its branches checked, as `plan` does it.

    Raises:
        RequestError: as a user sees it.
    """
    node = copy.deepcopy(base_node())
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    node.space = OmegaConf.merge(OmegaConf.structured(Space), content)
    node.sweep.sampler.name = sampler
    if sampler == "nsga2":
        node.sweep.objectives = ["held_out_loss", "steps"]
    config = to_config(node)
    space = CellSpace(config, {})
    compose_branches(node, ["budget.max_steps=64"], space)
    check_sampling(config, space)
    if sampler == "grid":
        space.grid()
    return space
