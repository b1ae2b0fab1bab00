"""Ranges and combinations that types alone cannot express. Each complaint names key, value and remedy."""

from collections.abc import Sequence

from conf.errors import RequestError
from conf.schema import Config


def validate(config: Config) -> None:
    """Check a typed configuration.

    Raises:
        RequestError: for the first value that is out of range or does not fit another.
    """
    _check_axes(config)
    _check_optimizer(config)
    _check_run(config)
    _check_sweep(config)


def _refuse(key: str, value: object, remedy: str) -> None:
    shown = "null" if value is None else value
    raise RequestError(f"{key}={shown}: {remedy}")


def _at_least(key: str, value: float | None, low: float) -> None:
    if value is not None and not value >= low:
        _refuse(key, value, f"must be {low:g} or more")


def _positive(key: str, value: float | None) -> None:
    if value is not None and not 0 < value < float("inf"):
        _refuse(key, value, "must be a positive number")


def _one_of(key: str, value: object, valid: Sequence[object]) -> None:
    if value not in valid:
        _refuse(key, value, f"must be one of {', '.join(map(str, valid))}")


def _check_axes(config: Config) -> None:
    _at_least("dataset_size.images", config.dataset_size.images, 1)
    _at_least("dataset.held_out", config.dataset.held_out, 0)
    pixels = config.resolution.pixels
    if pixels is not None and (pixels < 8 or pixels % 8):
        near = max(8, round(pixels / 8) * 8)
        _refuse("resolution.pixels", pixels, f"must be a multiple of 8, for example {near}")
    _one_of("method.adapter", config.method.adapter, ("none", "lora"))
    if config.method.adapter == "lora":
        _one_of("method.targets", config.method.targets, ("attention", "attention_ff", "attention_ff_resnet"))
        if config.method.rank is None or config.method.rank < 1:
            _refuse("method.rank", config.method.rank, "must be 1 or more")
        if config.method.alpha is None or not config.method.alpha > 0:
            _refuse("method.alpha", config.method.alpha, "must be positive: zero would train nothing")
        if not 0 <= config.method.dropout < 1:
            _refuse("method.dropout", config.method.dropout, "must lie in [0, 1)")
    _one_of("captions.source", config.captions.source, ("file", "instance"))
    if config.captions.source == "instance" and not config.captions.text:
        _refuse(
            "captions.text", config.captions.text, "captions=instance needs the caption: captions.text='...'"
        )
    if not 0 <= config.captions.dropout < 1:
        _refuse("captions.dropout", config.captions.dropout, "must lie in [0, 1)")


def _check_optimizer(config: Config) -> None:
    optimizer = config.optimizer
    _one_of("optimizer.name", optimizer.name, ("adamw",))
    _positive("optimizer.lr", optimizer.lr)
    _at_least("optimizer.batch_size", optimizer.batch_size, 1)
    _at_least("optimizer.accumulation", optimizer.accumulation, 1)
    _one_of("optimizer.schedule", optimizer.schedule, ("constant", "cosine", "linear"))
    _at_least("optimizer.warmup_steps", optimizer.warmup_steps, 0)
    _at_least("optimizer.weight_decay", optimizer.weight_decay, 0)
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(optimizer, name) < 1:
            _refuse(f"optimizer.{name}", getattr(optimizer, name), "must lie in [0, 1)")
    _positive("optimizer.epsilon", optimizer.epsilon)
    _positive("optimizer.max_grad_norm", optimizer.max_grad_norm)
    _one_of("memory.precision", config.memory.precision, ("no", "bf16", "fp16"))


def _check_run(config: Config) -> None:
    if config.budget.max_steps is not None and config.budget.max_steps < 1:
        _refuse("budget.max_steps", config.budget.max_steps, "must be 1 or more")
    if config.budget.max_steps is None and config.budget.study is None:
        if config.budget.name == "recommended":
            _refuse(
                "budget.study", None, "budget=recommended needs the study's folder: budget.study=runs/NAME"
            )
        _refuse(
            "budget.max_steps", None, "set the number of steps, or budget=recommended budget.study=runs/NAME"
        )
    _check_horizon(config)
    horizon = config.budget.horizon or config.budget.max_steps
    # A recommendation may end a run within its warm-up: the study has seen that this is where its minimum lies.
    stated = config.budget.study is None
    if stated and horizon is not None and config.optimizer.warmup_steps >= max(horizon, 1):
        _refuse(
            "optimizer.warmup_steps",
            config.optimizer.warmup_steps,
            f"must be below budget.max_steps={horizon}",
        )
    _one_of("tracker.mode", config.tracker.mode, ("auto", "online", "offline", "disabled"))
    _one_of("device", config.device, ("auto", "cpu", "cuda"))
    _at_least("evaluation.strata", config.evaluation.strata, 1)
    _at_least("evaluation.batch_size", config.evaluation.batch_size, 1)
    _at_least("evaluation.first_step", config.evaluation.first_step, 1)
    _at_least("evaluation.minimum_images", config.evaluation.minimum_images, 2)
    _at_least("evaluation.training_images", config.evaluation.training_images, 0)
    if not config.evaluation.ratio > 1:
        _refuse(
            "evaluation.ratio",
            config.evaluation.ratio,
            "must be above 1: it is the ratio of the geometric grid",
        )
    if config.evaluation.enabled and config.dataset.held_out < config.evaluation.minimum_images:
        _refuse(
            "dataset.held_out",
            config.dataset.held_out,
            f"the held-out set is too small: {config.evaluation.minimum_images} or more images are needed for a "
            "loss that means something, or set evaluation.enabled=false",
        )
    if not config.evaluation.enabled and config.stopping.name not in ("none", "fixed"):
        _refuse(
            "stopping",
            config.stopping.name,
            "needs the held-out loss: set evaluation.enabled=true or stopping=none",
        )
    _at_least("samples.count", config.samples.count, 0)
    _at_least("samples.inference_steps", config.samples.inference_steps, 1)
    _at_least("samples.first_step", config.samples.first_step, 1)
    if not config.samples.ratio > 1:
        _refuse("samples.ratio", config.samples.ratio, "must be above 1")
    _at_least("checkpoints.every", config.checkpoints.every, 1)
    _one_of("checkpoints.final", config.checkpoints.final, ("best", "last"))
    _at_least("seed", config.seed, 0)


def _check_horizon(config: Config) -> None:
    """The schedule spans at least the steps that are trained."""
    horizon, steps = config.budget.horizon, config.budget.max_steps
    if horizon is not None and steps is not None and horizon < steps:
        _refuse("budget.horizon", horizon, f"the schedule must span budget.max_steps={steps} or more")


def _check_sweep(config: Config) -> None:
    _at_least("sweep.trials", config.sweep.trials, 1)
    _one_of("sweep.sampler.name", config.sweep.sampler.name, ("tpe", "random", "qmc"))
    _one_of("sweep.pruner.name", config.sweep.pruner.name, ("none", "median", "asha", "hyperband"))
    _at_least("launch.slots", config.launch.slots, 1)
    _at_least("launch.threads", config.launch.threads, 1)
    _at_least("launch.processes", config.launch.processes, 1)
    _at_least("launch.grace_s", config.launch.grace_s, 0)
    _positive("launch.poll_s", config.launch.poll_s)
    for parameter in config.space.parameters:
        key = f"space.parameters[{parameter.name}]"
        if parameter.choices is not None:
            if not parameter.choices:
                _refuse(f"{key}.choices", "[]", "give at least one choice")
            continue
        if parameter.low is None or parameter.high is None or not parameter.low <= parameter.high:
            _refuse(key, f"[{parameter.low}, {parameter.high}]", "needs low <= high, or choices")
        if parameter.log and not (parameter.low or 0) > 0:
            _refuse(f"{key}.low", parameter.low, "a log range starts above 0")
