"""Optuna's samplers by name, each seeded by (seed, cell, trial number)."""

import hashlib
import warnings

import optuna
from optuna.samplers import BaseSampler

from conf.schema import Sampler


def make_sampler(sampler: Sampler, label: str, number: int, trials: int) -> BaseSampler:
    """The sampler of one trial.

    Of a cell's trials a third, between 3 and 10, is drawn at random before TPE models what came of them.
    """
    seed = _seed(sampler.seed, label, number)
    if sampler.name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if sampler.name == "qmc":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.QMCSampler(
                seed=_seed(sampler.seed, label, 0),  # one sequence a cell, whose place the journal keeps
                scramble=True,
                independent_sampler=optuna.samplers.RandomSampler(seed=seed),
                warn_asynchronous_seeding=False,
                warn_independent_sampling=False,
            )
    startup = max(3, min(10, trials // 3))
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def _seed(seed: int, label: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{label}/{number}".encode()).digest()[:4], "big")
