"""Ranges and combinations that types alone cannot express. Each complaint names key, value and remedy."""

from collections.abc import Sequence
import json
import math
import re

from conf.errors import RequestError
from conf.schema import Captions, Config, Launch, Limits, Method, Optimizer
from conf.validate_sweep import validate_space, validate_sweep

MOST_INFERENCE_STEPS = 1000  # timesteps that Stable Diffusion 1 and 2 are trained on
ADAM_OPTIONS = ("weight_decay", "beta1", "beta2", "epsilon")
OPTIMIZER_OPTIONS = {  # what each optimizer takes; it takes all that are its own, and no other
    "adamw": ADAM_OPTIONS,
    "adamw8bit": ADAM_OPTIONS,
    "adafactor": ("weight_decay",),
    "prodigy": (*ADAM_OPTIONS, "d_coef"),
    "schedulefree": ADAM_OPTIONS,
}
SCHEDULES = ("constant", "cosine", "linear", "warmup_stable_decay")
LEAST_MULTIPLIER = 0.01  # of prodigy's estimate; lower ones are learning rates of another optimizer


def validate(config: Config) -> None:
    """Check a typed configuration.

    Raises:
        RequestError: for the first value that is out of range or does not fit another.
    """
    _check_axes(config)
    _check_optimizer(config)
    _check_text_encoder_lr(config)
    _check_loss(config)
    _check_memory(config)
    _check_run(config)
    _check_launch(config.launch)
    _check_limits(config.sweep.limits)
    validate_sweep(config.sweep)
    validate_space(config.space)


def _refuse(key: str, value: object, remedy: str) -> None:
    shown = json.dumps(value) if value is None or isinstance(value, bool) else value
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
    _check_folds(config)
    pixels = config.resolution.pixels
    if pixels is not None and (pixels < 8 or pixels % 8):
        near = max(8, round(pixels / 8) * 8)
        _refuse("resolution.pixels", pixels, f"must be a multiple of 8, for example {near}")
    _at_least("augmentation.crops", config.augmentation.crops, 1)
    _check_method(config.method)
    _check_prior(config)
    _check_captions(config.captions)


def _check_folds(config: Config) -> None:
    dataset, sweep = config.dataset, config.sweep
    _at_least("dataset.fold", dataset.fold, 0)
    _at_least("dataset.folds", dataset.folds, 2)
    if dataset.fold is None and not sweep.folds:
        if dataset.folds is not None:
            _refuse(
                "dataset.folds", dataset.folds, "needs dataset.fold=0 or another; a sweep: sweep.folds=true"
            )
        return
    if config.stopping.name != "none":
        _refuse(
            "stopping",
            config.stopping.name,
            "a fold's loss is that of a single image, too noisy to stop by: use stopping=none with folds",
        )
    if sweep.folds and sweep.sampler.name == "tpe":
        _refuse(
            "sweep.sampler.name",
            "tpe",
            "would take easy images for good parameters where every run has a fold of its own: use qmc or random",
        )
    if sweep.folds and sweep.pruner.name != "none":
        _refuse(
            "sweep.pruner.name",
            sweep.pruner.name,
            "would prune the folds of difficult images: use none with sweep.folds=true",
        )


def _check_method(method: Method) -> None:
    _one_of("method.adapter", method.adapter, ("none", "lora"))
    _one_of("method.text_encoder", method.text_encoder, ("frozen", "full", "lora"))
    if method.adapter == "lora":
        _check_adapter(method)
        return
    if method.text_encoder == "lora":
        _refuse(
            "method.text_encoder",
            "lora",
            "goes with an adapter on the UNet: use method=lora, or text_encoder=full",
        )
    for name in ("rank", "alpha", "targets", "dropout", "rslora", "dora"):
        if value := getattr(method, name):
            _refuse(f"method.{name}", value, f"method={method.name} has no adapter: drop it")


def _check_adapter(method: Method) -> None:
    if method.text_encoder == "full":
        _refuse(
            "method.text_encoder",
            "full",
            "an adapter's file holds no whole text encoder: use method.text_encoder=lora",
        )
    _one_of("method.targets", method.targets, ("attention", "attention_ff", "attention_ff_resnet"))
    if method.rank is None or method.rank < 1:
        _refuse("method.rank", method.rank, "must be 1 or more")
    if method.alpha is None or not 0 < method.alpha < math.inf:
        _refuse("method.alpha", method.alpha, "must be a positive number: zero would train nothing")
    if not 0 <= method.dropout < 1:
        _refuse("method.dropout", method.dropout, "must lie in [0, 1)")


def _check_prior(config: Config) -> None:
    """Prior preservation needs images of the class, or a prompt to draw them from."""
    method, measured = config.method, config.evaluation.class_images
    _at_least("evaluation.class_images", measured, 0)
    if method.prior_weight is not None:
        if not 0 < method.prior_weight < math.inf:
            _refuse(
                "method.prior_weight",
                method.prior_weight,
                "must be a positive number: set it to null to train without class images",
            )
        _at_least("method.prior_images", method.prior_images, 1)
    if method.prior_weight is None and not measured:
        return
    if method.prior_prompt is None and config.captions.class_word is None:
        _refuse(
            "captions.class_word",
            None,
            "class images need it: captions.class_word=dog, or their caption method.prior_prompt='...'",
        )


def _check_text_encoder_lr(config: Config) -> None:
    lr = config.optimizer.text_encoder_lr
    if lr is not None and config.method.text_encoder == "frozen":
        _refuse(
            "optimizer.text_encoder_lr",
            lr,
            "no text encoder trains: drop it, or set method.text_encoder=full (lora with an adapter)",
        )


def _check_loss(config: Config) -> None:
    loss = config.loss
    if loss.snr_gamma is not None and not 0 < loss.snr_gamma < math.inf:
        _refuse(
            "loss.snr_gamma",
            loss.snr_gamma,
            "must be a positive number (5 is usual): zero would train nothing, null gives equal weights",
        )
    _at_least("loss.noise_offset", loss.noise_offset, 0)
    _finite("loss.noise_offset", loss.noise_offset)
    _one_of("loss.timesteps", loss.timesteps, ("auto", "uniform", "logit_normal"))


def _check_memory(config: Config) -> None:
    memory = config.memory
    _one_of("memory.precision", memory.precision, ("no", "bf16", "fp16"))
    if memory.offload_optimizer and config.optimizer.name == "schedulefree":
        _refuse(
            "memory.offload_optimizer",
            True,
            "the average of optimizer=schedulefree has to lie beside the weights: "
            "set it to false, or take another optimizer",
        )


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
    _one_of("optimizer.name", optimizer.name, tuple(OPTIMIZER_OPTIONS))
    _check_optimizer_options(optimizer)
    _positive("optimizer.lr", optimizer.lr)
    _positive("optimizer.text_encoder_lr", optimizer.text_encoder_lr)
    _at_least("optimizer.batch_size", optimizer.batch_size, 1)
    _at_least("optimizer.accumulation", optimizer.accumulation, 1)
    _positive("optimizer.max_grad_norm", optimizer.max_grad_norm)
    _check_schedule(optimizer)
    _check_averaging(optimizer)
    if optimizer.name == "prodigy":
        _check_prodigy(optimizer)


def _check_optimizer_options(optimizer: Optimizer) -> None:
    """An optimizer has all of its options and none of another one's."""
    taken = OPTIMIZER_OPTIONS[optimizer.name]
    for name in (*ADAM_OPTIONS, "d_coef"):
        key, value = f"optimizer.{name}", getattr(optimizer, name)
        if value is None and name in taken:
            _refuse(
                key, None, f"{optimizer.name} needs it: give a number, or choose optimizer={optimizer.name}"
            )
        if value is not None and name not in taken:
            _refuse(
                key,
                value,
                f"{optimizer.name} has no such option, it takes {', '.join(taken)}: drop it; an optimizer "
                f"is chosen by optimizer={optimizer.name}, which sets its options too",
            )
    _at_least("optimizer.weight_decay", optimizer.weight_decay, 0)
    _finite("optimizer.weight_decay", optimizer.weight_decay or 0.0)
    for name in ("beta1", "beta2"):
        value = getattr(optimizer, name)
        if value is not None and not 0 <= value < 1:
            _refuse(f"optimizer.{name}", value, "must lie in [0, 1)")
    if optimizer.name == "schedulefree" and optimizer.beta1 == 0:
        _refuse("optimizer.beta1", 0, "schedulefree divides by it: give a number in (0, 1), for example 0.9")
    _positive("optimizer.epsilon", optimizer.epsilon)
    _positive("optimizer.d_coef", optimizer.d_coef)


def _check_schedule(optimizer: Optimizer) -> None:
    _one_of("optimizer.schedule", optimizer.schedule, SCHEDULES)
    _at_least("optimizer.warmup_steps", optimizer.warmup_steps, 0)
    if optimizer.name == "schedulefree" and optimizer.schedule != "constant":
        _refuse(
            "optimizer.schedule",
            optimizer.schedule,
            "schedulefree averages instead of decaying and needs optimizer.schedule=constant "
            "(optimizer.warmup_steps is welcome)",
        )
    if not 0 < optimizer.decay_share <= 1:
        _refuse("optimizer.decay_share", optimizer.decay_share, "must lie in (0, 1]")
    if optimizer.decay_share != Optimizer.decay_share and optimizer.schedule != "warmup_stable_decay":
        _refuse(
            "optimizer.decay_share",
            optimizer.decay_share,
            f"optimizer.schedule={optimizer.schedule} has none: set optimizer.schedule=warmup_stable_decay, "
            "or drop it",
        )


def _check_averaging(optimizer: Optimizer) -> None:
    decay = optimizer.ema_decay
    if decay is None:
        return
    if not 0 < decay < 1:
        _refuse("optimizer.ema_decay", decay, "must lie in (0, 1), for example 0.999; null: no average")
    if optimizer.name == "schedulefree":
        _refuse("optimizer.ema_decay", decay, "schedulefree keeps an average of its own: drop one of the two")


def _check_prodigy(optimizer: Optimizer) -> None:
    if optimizer.text_encoder_lr is not None:
        _refuse(
            "optimizer.text_encoder_lr",
            optimizer.text_encoder_lr,
            "prodigy estimates one learning rate for all parameters: drop it, or choose another optimizer",
        )
    if optimizer.lr < LEAST_MULTIPLIER:
        _refuse(
            "optimizer.lr",
            optimizer.lr,
            f"prodigy multiplies the learning rate that it estimates by it: {LEAST_MULTIPLIER:g} or more, "
            "usually 1; a sweep searches optimizer.d_coef instead: space=prodigy",
        )


def _check_run(config: Config) -> None:
    _check_budget(config)
    _check_evaluation(config)
    _check_samples(config)
    _one_of("tracker.mode", config.tracker.mode, ("auto", "online", "offline", "disabled"))
    _one_of("device", config.device, ("auto", "cpu", "cuda"))
    _at_least("checkpoints.every", config.checkpoints.every, 1)
    _positive("checkpoints.every_s", config.checkpoints.every_s)
    for step in config.checkpoints.keep:
        _at_least("checkpoints.keep", step, 1)
    _one_of("checkpoints.final", config.checkpoints.final, ("best", "last"))
    if not config.checkpoints.formats:
        _refuse("checkpoints.formats", "[]", "name at least one of diffusers, kohya")
    for form in config.checkpoints.formats:
        _one_of("checkpoints.formats", form, ("diffusers", "kohya"))
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
    if stated and horizon is not None and config.optimizer.schedule == "warmup_stable_decay":
        _check_decay(config.optimizer, horizon)


def _check_decay(optimizer: Optimizer, horizon: int) -> None:
    """The warm-up ends before the decay begins."""
    latest = math.floor(horizon * (1 - optimizer.decay_share) + 1e-9)
    if optimizer.warmup_steps > latest:
        _refuse(
            "optimizer.warmup_steps",
            optimizer.warmup_steps,
            f"must be at most {latest}: of {horizon} steps the decay takes "
            f"optimizer.decay_share={optimizer.decay_share:g}",
        )


def _check_evaluation(config: Config) -> None:
    evaluation = config.evaluation
    _at_least("evaluation.strata", evaluation.strata, 1)
    _at_least("evaluation.batch_size", evaluation.batch_size, 1)
    _at_least("evaluation.first_step", evaluation.first_step, 1)
    _at_least("evaluation.minimum_images", evaluation.minimum_images, 2)
    _at_least("evaluation.training_images", evaluation.training_images, 0)
    _check_ratio("evaluation.ratio", evaluation.ratio)
    share = evaluation.average_share
    if share is not None and not 0 < share <= 1:
        _refuse("evaluation.average_share", share, "must lie in (0, 1], for example 0.15; null: no average")
    if share is not None and not evaluation.enabled:
        _refuse("evaluation.average_share", share, "needs the held-out loss: set evaluation.enabled=true")
    in_folds = config.dataset.fold is not None or config.sweep.folds
    if evaluation.enabled and not in_folds and config.dataset.held_out < evaluation.minimum_images:
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


def _check_launch(launch: Launch) -> None:
    _at_least("launch.slots", launch.slots, 1)
    _at_least("launch.threads", launch.threads, 1)
    _at_least("launch.processes", launch.processes, 1)
    _at_least("launch.grace_s", launch.grace_s, 0)
    _at_least("launch.retries", launch.retries, 0)
    _positive("launch.poll_s", launch.poll_s)
    _positive("launch.hang_s", launch.hang_s)
    _positive("launch.timeout_s", launch.timeout_s)
    if launch.gpus is not None and not launch.gpus:
        _refuse("launch.gpus", "[]", "name at least one, or device=cpu for trials without")
    if launch.command is not None and not launch.command:
        _refuse(
            "launch.command", "[]", "needs a program, or launch.command=null for the trainer of this project"
        )
    if launch.command is not None and launch.accelerate_config is not None:
        _refuse("launch.accelerate_config", launch.accelerate_config, "give it within launch.command")


def _check_limits(limits: Limits) -> None:
    for name in ("trials", "steps"):
        _at_least(f"sweep.limits.{name}", getattr(limits, name), 1)
    for name in ("hours", "gpu_hours", "disk_gb", "cost", "price_per_gpu_hour"):
        value = getattr(limits, name)
        if value is not None and not 0 < value < math.inf:
            _refuse(f"sweep.limits.{name}", value, "must be a positive number, or null for no limit")
    if limits.cost is not None and limits.price_per_gpu_hour is None:
        _refuse(
            "sweep.limits.cost",
            limits.cost,
            "a cost needs the price of a GPU for an hour: sweep.limits.price_per_gpu_hour=2.5",
        )
    if not re.fullmatch(r"\S{1,8}", limits.currency):
        _refuse("sweep.limits.currency", limits.currency, "must be a short word, for example USD")
