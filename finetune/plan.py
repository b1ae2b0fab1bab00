"""Everything about a run that can be decided, or refused, before torch is imported."""

from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

from conf.compose import PROJECT_ROOT
from conf.errors import RequestError
from conf.schema import Config
from curves.grid import evaluation_steps
from curves.law import Scaling
from curves.recommendation import CellAnswer
from curves.stopping.base import EvaluationRule
from curves.stopping.registry import CALIBRATED, calibration_for, make_rule
from finetune.base_files import BaseFiles, check_pixels, find_base
from finetune.branching import Branch, find_branch
from finetune.buckets import bucket_sizes
from finetune.budget import apply_recommendation, apply_to_all_images, hyperparameters, refuse_overrides
from finetune.extras import check_encoder, check_library
from finetune.images import Example, Split, dataset_id, leak_note, read_folder, split_examples, split_fold
from finetune.paths import make_cache
from finetune.schedule import lr_sum


@dataclass(frozen=True)
class Plan:
    """A run before it starts.

    Attributes:
        config: with what a recommendation sets put in.
        overrides: of the command line.
        split: held-out and training images.
        base: the base model's files.
        cell: as in run.json.
        pixels: side of the training images, or of the square of their area.
        buckets: sizes that images are trained at by their shape; none where all are squares.
        horizon: steps that are trained at most.
        processes: that share a batch.
        cache_dir: of latents and embeddings.
        notes: for the user: files left out, the recommendation used.
        recommended: the cell of the study whose answer is used.
        scaled_from: where its steps come from when they are scaled to all images.
        branch: where it leaves another run whose training state it goes on from.
    """

    config: Config
    overrides: list[str]
    split: Split
    base: BaseFiles
    cell: dict[str, Any]
    pixels: int
    buckets: list[tuple[int, int]]
    horizon: int
    processes: int
    cache_dir: Path
    notes: list[str]
    recommended: CellAnswer | None = None
    scaled_from: Scaling | None = None
    branch: Branch | None = None

    @property
    def grids(self) -> tuple[set[int], set[int]]:
        """The steps that are evaluated and those that are sampled."""
        evaluation, samples = self.config.evaluation, self.config.samples
        end = new_rule(self).last_step
        return (
            set(evaluation_steps(evaluation.first_step, evaluation.ratio, self.horizon))
            | ({end} if end is not None and end < self.horizon else set()),
            set(evaluation_steps(samples.first_step, samples.ratio, self.horizon)),
        )

    @property
    def schedule_horizon(self) -> int:
        """Steps that the learning-rate schedule spans: stopping early is not training at a shorter horizon."""
        return self.config.budget.horizon or self.horizon

    def lr_sum(self, step: int) -> float:
        """Sum of the learning rate over the first `step` updates."""
        return lr_sum(self.config.optimizer, self.schedule_horizon, step)


def make_plan(config: Config, overrides: Sequence[str]) -> Plan:
    """Read the images and the base model's configuration, and check that the run can be done.

    Raises:
        RequestError: it cannot; the message names the key and the remedy.
    """
    if config.budget.study is not None:
        refuse_overrides(overrides)
    check_library(config.optimizer)
    check_encoder(config.samples.encoder)
    cache_dir = PROJECT_ROOT / Path(config.cache_dir).expanduser()
    make_cache(config.cache_dir, cache_dir)
    # The images first: a base model may have to be downloaded, gigabytes before the next mistake is found.
    examples, notes = read_folder(config.dataset, config.captions, cache_dir)
    split = _split(config, examples)
    notes += leak_note(split)
    base = find_base(config.base_model.path, cache_dir, config.base_model)
    pixels = config.resolution.pixels or base.native_pixels
    check_pixels(base, pixels)
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    cell = {
        "dataset_size": config.dataset_size.name,
        "images": len(split.training),
        "resolution": pixels,
        "method": config.method.name,
        "base_model": config.base_model.name,
        "base_id": base.base_id,
        "dataset": dataset_id(examples),
        "captions": config.captions.name,
    }
    recommended, scaled_from = None, None
    if takes_all_images(config):
        config, recommended, scaled_from = apply_to_all_images(config, cell, processes)
        notes.append(_scaled_note(config, len(examples), scaled_from))
    elif config.budget.study is not None:
        config, recommended = apply_recommendation(config, cell, processes)
        notes.append(f"{recommended.recommended_steps} steps as recommended by {config.budget.study}")
    horizon = config.budget.max_steps
    assert horizon is not None  # conf.validate holds this where no study decides it
    plan = Plan(
        config=config,
        overrides=list(overrides),
        split=split,
        base=base,
        cell=cell,
        pixels=pixels,
        buckets=_buckets(pixels, base.multiple) if config.resolution.buckets else [],
        horizon=horizon,
        processes=processes,
        cache_dir=cache_dir,
        notes=notes,
        recommended=recommended,
        scaled_from=scaled_from,
        branch=find_branch(config),
    )
    _check_rule(plan)
    return plan


def takes_all_images(config: Config) -> bool:
    """Whether this is the final model, for which nothing is held out: its budget is known from a study."""
    return config.budget.study is not None and config.dataset_size.images is None


def _split(config: Config, examples: Sequence[Example]) -> Split:
    dataset, images = config.dataset, config.dataset_size.images
    if takes_all_images(config):
        return split_examples(examples, 0, None, dataset.seed)
    if dataset.fold is not None:
        return split_fold(examples, dataset.fold, dataset.folds, images, dataset.seed)
    return split_examples(examples, dataset.held_out, images, dataset.seed)


def _scaled_note(config: Config, images: int, scaled_from: Scaling) -> str:
    return (
        f"{config.budget.max_steps} steps for all {images} images, none held out: {scaled_from.recommended_steps} "
        f"recommended at {scaled_from.images} images by {config.budget.study}, "
        f"times ({images}/{scaled_from.images})^{scaled_from.exponent:g}"
    )


def _buckets(pixels: int, multiple: int) -> list[tuple[int, int]]:
    """Sizes of about pixels^2 in steps of 64, or of an eighth of the side where that is less, as the base takes them."""
    step = max(1, min(64, pixels // 8) // multiple) * multiple
    return bucket_sizes(pixels, step)


def _check_rule(plan: Plan) -> None:
    """Build the stop rule once, so that a wrong parameter is known now."""
    stopping = plan.config.stopping
    try:
        new_rule(plan)
        if stopping.name == CALIBRATED:
            plan.notes.append(f"stopping=calibrated: {calibration_for(stopping.parameters).words()}")
    except (TypeError, ValueError) as error:
        raise RequestError(f"stopping={stopping.name}: {error}") from error


def new_rule(plan: Plan) -> EvaluationRule:
    """The stop rule of a run, fresh."""
    stopping = plan.config.stopping
    return make_rule(
        stopping.name,
        horizon_steps=plan.horizon,
        horizon_lr_sum=plan.lr_sum(plan.horizon),
        images=len(plan.split.training),
        batch=hyperparameters(plan.config, plan.processes)["batch"],
        **stopping.parameters,
    )
