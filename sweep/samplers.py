"""Optuna's samplers by name, each made anew for one trial and seeded by (seed, cell, trial number)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
import hashlib
import importlib.util
import math
import random
from typing import Any
import warnings

import optuna
from optuna.samplers import BaseSampler

from conf.errors import RequestError
from conf.schema import Sampler
from sweep.divergence import Divergence
from sweep.draw import PointSampler, SpaceSampler
from sweep.space import CellSpace
from sweep.values import from_unit, single_value

MODEL_TRIES = 4  # proposals of a model that may violate the constraints
_EXTRAS = {"gp": ("torch", "scipy"), "cmaes": ("cmaes",)}  # modules that Optuna imports for a sampler
_MOST_DIMENSIONS = 21201  # of scipy's Sobol sequence


@dataclass(frozen=True)
class Question:
    """Which trial is asked for.

    Attributes:
        label: the cell.
        number: of the parameter set within the cell.
        trials: planned parameter sets of the cell.
    """

    label: str
    number: int
    trials: int


def make_sampler(
    sampler: Sampler,
    space: CellSpace,
    question: Question,
    fixed: Mapping[str, Any],
    divergence: Divergence | None = None,
) -> SpaceSampler:
    """The sampler of one trial, some of whose values may be fixed.

    The same question gets the same sampler, whenever it is asked; random, qmc and grid give it the same answer,
    unless a learning rate has diverged meanwhile.

    Args:
        divergence: learning rates to stay below, except on a grid, which has every point.

    Raises:
        RequestError: a parameter of the sampler is wrong, or a package is missing.
    """
    seed = _seed(sampler.seed, question.label, question.number)
    kind = KINDS[sampler.name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        inner = kind.make(sampler, space, question, seed)
    if divergence is None or sampler.name == "grid":
        divergence = Divergence(space)
    source = random.Random(f"{seed}/even")
    return SpaceSampler(space, inner, kind.conditional, kind.tries, kind.bounded, fixed, divergence, source)


def check_sampler(sampler: Sampler, space: CellSpace, trials: int) -> None:
    """Check a sampler's parameters, packages, and that it can sample the space.

    Raises:
        RequestError: naming the key, and what is valid.
    """
    _check_parameters(sampler)
    for module in _EXTRAS.get(sampler.name, ()):
        if importlib.util.find_spec(module) is None:
            raise RequestError(
                f"sweep.sampler.name={sampler.name}: needs the package {module}: "
                f"pip install 'stepbudget[{sampler.name}]', or take another sampler"
            )
    if sampler.name == "cmaes":
        ranges = [item for item in space.parameters if not item.conditions and item.declared.choices is None]
        if space.parameters and all(single_value(item.declared) for item in ranges):
            raise RequestError(
                "sweep.sampler.name=cmaes: samples ranges that every trial has, and this space has none: "
                "take sweep.sampler.name=tpe"
            )
    try:
        make_sampler(sampler, space, Question("", len(space.starts), trials), {})
    except (TypeError, ValueError) as error:
        raise RequestError(
            f"sweep.sampler.parameters={sampler.parameters}: {sampler.name}: {error}"
        ) from error


def _check_parameters(sampler: Sampler) -> None:
    valid = KINDS[sampler.name].parameters
    for name, value in sampler.parameters.items():
        key = f"sweep.sampler.parameters.{name}"
        if name not in valid:
            names = f"valid are {', '.join(valid)}" if valid else "it has none"
            raise RequestError(f"{key}={value}: {sampler.name} has no such parameter; {names}")
        fits, remedy = valid[name]
        if not fits(value):
            raise RequestError(f"{key}={value}: must be {remedy}")


def _make_tpe(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    """Of a cell's trials a third, between 3 and 10, is drawn at random before TPE models what came of them."""
    given = {"n_startup_trials": _startup(question), "multivariate": True, "constant_liar": True}
    return optuna.samplers.TPESampler(seed=seed, **{**given, **sampler.parameters})


def _make_gp(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    given = {"n_startup_trials": _startup(question)}
    return optuna.samplers.GPSampler(
        seed=seed, warn_independent_sampling=False, **{**given, **sampler.parameters}
    )


def _make_cmaes(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    return _CmaEs(seed=seed, warn_independent_sampling=False, **sampler.parameters)


class _CmaEs(optuna.samplers.CmaEsSampler):
    """CMA-ES samples ranges only: choices are left to be drawn one by one."""

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        ranges = {
            name: item
            for name, item in search_space.items()
            if not isinstance(item, optuna.distributions.CategoricalDistribution)
        }
        return super().sample_relative(study, trial, ranges)


def _make_random(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    source = random.Random(seed)
    return PointSampler({item.label: from_unit(item.declared, source.random()) for item in space.parameters})


def _make_qmc(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    """The point of this number in one sequence a cell, with a coordinate for every parameter.

    Optuna's own sampler counts the points in its storage and so gives a trial that was asked for twice two points.
    """
    from scipy.stats import qmc  # here: it takes a second to load

    dimensions = len(space.parameters)
    if dimensions == 0:
        return PointSampler({})
    if dimensions > _MOST_DIMENSIONS:
        raise RequestError(
            f"sweep.sampler.name=qmc: takes {_MOST_DIMENSIONS} parameters at most: take sweep.sampler.name=random"
        )
    given = {"qmc_type": "sobol", "scramble": True, **sampler.parameters}
    engine = {"sobol": qmc.Sobol, "halton": qmc.Halton}[given["qmc_type"]]
    sequence = engine(dimensions, scramble=given["scramble"], rng=_seed(sampler.seed, question.label, 0))
    place = question.number - len(space.starts)
    if place > 0:
        sequence.fast_forward(place)
    units = sequence.random(1)[0]
    return PointSampler(
        {
            item.label: from_unit(item.declared, min(float(unit), math.nextafter(1, 0)))
            for item, unit in zip(space.parameters, units, strict=True)
        }
    )


def _make_grid(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    """The point of this number, from the first again once a study is extended beyond them all."""
    points = space.grid()
    return PointSampler(points[question.number % len(points)] if points else {})


def _make_nsga2(sampler: Sampler, space: CellSpace, question: Question, seed: int) -> BaseSampler:
    """Of a cell's trials a quarter, between 2 and 50, is one generation."""
    given = {"population_size": max(2, min(50, question.trials // 4))}
    return optuna.samplers.NSGAIISampler(seed=seed, **{**given, **sampler.parameters})


def _startup(question: Question) -> int:
    return max(3, min(10, question.trials // 3))


def _seed(seed: int, label: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()[:4], "big")


Check = tuple[Callable[[Any], bool], str]


def _whole(low: int) -> Check:
    return (
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low,
        f"a whole number of {low} or more",
    )


_FLAG: Check = (lambda value: isinstance(value, bool), "true or false")
_SHARE: Check = (
    lambda value: isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1,
    "a number in [0, 1]",
)


@dataclass(frozen=True)
class Kind:
    """A sampler: how it is made, what parameters it takes, and how its proposals are taken.

    Attributes:
        conditional: whether it also takes together what only some trials have.
        tries: proposals that may violate the constraints before points are drawn evenly.
        bounded: whether it is shown the best and the latest trials only: its models get slow with all.
    """

    make: Callable[[Sampler, CellSpace, Question, int], BaseSampler]
    parameters: Mapping[str, Check]
    conditional: bool
    tries: int
    bounded: bool = False


_TPE = {
    "n_startup_trials": _whole(0),
    "n_ei_candidates": _whole(1),
    "constant_liar": _FLAG,
}
_GP = {"n_startup_trials": _whole(1), "deterministic_objective": _FLAG}
_CMAES = {
    "n_startup_trials": _whole(0),
    "popsize": _whole(2),
    "use_separable_cma": _FLAG,
    "with_margin": _FLAG,
    "lr_adapt": _FLAG,
    "consider_pruned_trials": _FLAG,
}
_QMC: dict[str, Check] = {
    "qmc_type": (lambda value: value in ("sobol", "halton"), "sobol or halton"),
    "scramble": _FLAG,
}
_NSGA2 = {
    "population_size": _whole(2),
    "mutation_prob": _SHARE,
    "crossover_prob": _SHARE,
    "swapping_prob": _SHARE,
}
# What GP, CMA-ES and NSGA-II take together, every trial must have.
KINDS = {
    "tpe": Kind(_make_tpe, _TPE, True, MODEL_TRIES, bounded=True),
    "gp": Kind(_make_gp, _GP, False, 1, bounded=True),
    "cmaes": Kind(_make_cmaes, _CMAES, False, MODEL_TRIES),
    "qmc": Kind(_make_qmc, _QMC, True, 1),
    "random": Kind(_make_random, {}, True, 1),
    "grid": Kind(_make_grid, {}, True, 1),
    "nsga2": Kind(_make_nsga2, _NSGA2, False, MODEL_TRIES),
}
