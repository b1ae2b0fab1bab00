"""Ranges and combinations that types alone cannot express. Each complaint names key, value and remedy."""

from collections.abc import Sequence
import math

from conf.errors import RequestError
from conf.schema import Captions, Config, SpaceParameter

MOST_INFERENCE_STEPS = 1000  # timesteps that Stable Diffusion 1 and 2 are trained on


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


def _finite(key: str, value: float) -> None:
    if not math.isfinite(value):
        _refuse(key, value, "must be a finite number")


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
    _check_captions(config.captions)


def _check_captions(captions: Captions) -> None:
    _one_of("captions.source", captions.source, ("file", "short", "instance", "class"))
    if captions.source in ("instance", "class"):
        _check_caption_text(captions)
    _at_least("captions.words", captions.words, 1)
    if captions.encoding != "auto":
        try:
            "".encode(captions.encoding)
        except (LookupError, ValueError):
            _refuse(
                "captions.encoding",
                captions.encoding,
                "must be auto, utf-8, gbk or another that Python knows",
            )
    if not 0 <= captions.dropout < 1:
        _refuse("captions.dropout", captions.dropout, "must lie in [0, 1)")


def _check_caption_text(captions: Captions) -> None:
    """The one caption of every image says something, and has the class word that it has a place for."""
    text, word = captions.text or "", captions.class_word or ""
    if captions.source == "class" and "{class_word}" not in text:
        remedy = "captions=class needs {class_word} in it: 'a photo of {class_word}'"
        _refuse("captions.text", captions.text, remedy)
    if not text.strip():
        _refuse("captions.text", captions.text, "captions=instance needs the caption: captions.text='...'")
    if "{class_word}" in text and not word.strip():
        remedy = "captions.text has a place for it: captions.class_word=fox"
        _refuse("captions.class_word", captions.class_word, remedy)
    for key, value in (("captions.text", text), ("captions.class_word", word)):
        if any("\ud800" <= item <= "\udfff" for item in value):
            _refuse(key, ascii(value), "is not UTF-8: set the terminal's locale to UTF-8 and type it again")


def _check_optimizer(config: Config) -> None:
    optimizer = config.optimizer
    _one_of("optimizer.name", optimizer.name, ("adamw",))
    _positive("optimizer.lr", optimizer.lr)
    _at_least("optimizer.batch_size", optimizer.batch_size, 1)
    _at_least("optimizer.accumulation", optimizer.accumulation, 1)
    _one_of("optimizer.schedule", optimizer.schedule, ("constant", "cosine", "linear"))
    _at_least("optimizer.warmup_steps", optimizer.warmup_steps, 0)
    _at_least("optimizer.weight_decay", optimizer.weight_decay, 0)
    _finite("optimizer.weight_decay", optimizer.weight_decay)
    for name in ("beta1", "beta2"):
        if not 0 <= getattr(optimizer, name) < 1:
            _refuse(f"optimizer.{name}", getattr(optimizer, name), "must lie in [0, 1)")
    _positive("optimizer.epsilon", optimizer.epsilon)
    _positive("optimizer.max_grad_norm", optimizer.max_grad_norm)
    _one_of("memory.precision", config.memory.precision, ("no", "bf16", "fp16"))


def _check_run(config: Config) -> None:
    _check_budget(config)
    _check_evaluation(config)
    _check_samples(config)
    _one_of("tracker.mode", config.tracker.mode, ("auto", "online", "offline", "disabled"))
    _one_of("device", config.device, ("auto", "cpu", "cuda"))
    _at_least("checkpoints.every", config.checkpoints.every, 1)
    _one_of("checkpoints.final", config.checkpoints.final, ("best", "last"))
    _at_least("seed", config.seed, 0)


def _check_budget(config: Config) -> None:
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


def _check_evaluation(config: Config) -> None:
    evaluation = config.evaluation
    _at_least("evaluation.strata", evaluation.strata, 1)
    _at_least("evaluation.batch_size", evaluation.batch_size, 1)
    _at_least("evaluation.first_step", evaluation.first_step, 1)
    _at_least("evaluation.minimum_images", evaluation.minimum_images, 2)
    _at_least("evaluation.training_images", evaluation.training_images, 0)
    _check_ratio("evaluation.ratio", evaluation.ratio)
    if evaluation.enabled and config.dataset.held_out < evaluation.minimum_images:
        _refuse(
            "dataset.held_out",
            config.dataset.held_out,
            f"the held-out set is too small: {evaluation.minimum_images} or more images are needed for a "
            "loss that means something, or set evaluation.enabled=false",
        )
    if not evaluation.enabled and config.stopping.name not in ("none", "fixed"):
        _refuse(
            "stopping",
            config.stopping.name,
            "needs the held-out loss: set evaluation.enabled=true or stopping=none",
        )


def _check_samples(config: Config) -> None:
    samples = config.samples
    _at_least("samples.count", samples.count, 0)
    _at_least("samples.inference_steps", samples.inference_steps, 1)
    if samples.inference_steps > MOST_INFERENCE_STEPS:
        _refuse(
            "samples.inference_steps",
            samples.inference_steps,
            f"must be at most {MOST_INFERENCE_STEPS}: the base models know no more noise levels",
        )
    _finite("samples.guidance_scale", samples.guidance_scale)
    _at_least("samples.first_step", samples.first_step, 1)
    _check_ratio("samples.ratio", samples.ratio)


def _check_ratio(key: str, ratio: float) -> None:
    if not 1 < ratio < math.inf:
        _refuse(key, ratio, "must be above 1 and finite: it is the ratio of the geometric grid")


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
    if config.launch.command is not None and not config.launch.command:
        _refuse(
            "launch.command", "[]", "needs a program, or launch.command=null for the trainer of this project"
        )
    for parameter in config.space.parameters:
        _check_parameter(parameter)


def _check_parameter(parameter: SpaceParameter) -> None:
    """One searched parameter has choices, or a range that can be drawn from."""
    key = f"space.parameters[{parameter.name}]"
    if parameter.choices is not None:
        if not parameter.choices:
            _refuse(f"{key}.choices", "[]", "give at least one choice")
        return
    low, high = parameter.low, parameter.high
    if low is None or high is None or not -math.inf < low <= high < math.inf:
        _refuse(key, f"[{low}, {high}]", "needs finite bounds with low <= high, or choices")
    if parameter.log and not (low or 0) > 0:
        _refuse(f"{key}.low", low, "a log range starts above 0")
