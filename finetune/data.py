"""What a run reads of images: the training source, class images, panels. Everything is encoded before training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from accelerate import Accelerator

from curves.panel import Panel
from finetune.backbone import Backbone
from finetune.batches import Source
from finetune.cache import ContentCache, Encoded
from finetune.class_images import class_prompt, drawn_class_images, own_class_images
from finetune.images import Example
from finetune.methods import trained_text_encoders
from finetune.plan import Plan
from finetune.randomness import Draws, Images
from finetune.validation import PanelEvaluator, make_panel

DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass(frozen=True)
class Panels:
    """What is measured: held-out images; training images, how far they are memorized; class images, how far the model
    has drifted from what it knew."""

    held_out: PanelEvaluator | None
    training: PanelEvaluator | None
    prior: PanelEvaluator | None


@dataclass(frozen=True)
class Data:
    """See the module. `prior` is keyed by the shape of a training latent and empty without prior preservation."""

    cache: ContentCache
    training: Source
    prior: dict[tuple[int, ...], Source]
    panels: Panels

    @property
    def panel(self) -> Panel | None:
        """Of the held-out images."""
        return self.panels.held_out.panel if self.panels.held_out is not None else None


def make_data(plan: Plan, backbone: Backbone, accelerator: Accelerator, check: Callable[[], None]) -> Data:
    """Encode, or find in the cache, everything that a run needs.

    Args:
        plan: of the run.
        backbone: that encodes.
        accelerator: of the run.
        check: called between images; may raise to end the run.

    Raises:
        RequestError: an image or the base model is damaged.
    """
    config = plan.config
    trained_text = trained_text_encoders(backbone, config.method)
    cache = ContentCache(plan.cache_dir, backbone, plan.pixels, plan.buckets, trained_text, check)
    encoded = cache.encode(plan.split.training, config.augmentation)
    class_panel, class_training = _class_images(plan, backbone, accelerator, check)
    make = PanelMaker(plan, backbone, accelerator)
    memorized = plan.split.training[: config.evaluation.training_images]
    squares = ContentCache(plan.cache_dir, backbone, plan.pixels, (), trained_text, check)
    return Data(
        cache=cache,
        training=Source(encoded, _draws(plan, backbone, encoded, plan.split.training)),
        prior=_prior(plan, backbone, squares, encoded, class_training),
        panels=Panels(
            make(plan.split.held_out, cache),
            make(memorized, cache),
            make(class_panel, squares),
        ),
    )


@dataclass(frozen=True)
class PanelMaker:
    """Makes the panels of a run."""

    plan: Plan
    backbone: Backbone
    accelerator: Accelerator

    def __call__(self, examples: Sequence[Example], cache: ContentCache) -> PanelEvaluator | None:
        """The evaluator of some images; None for none, or where nothing is evaluated."""
        options = self.plan.config.evaluation
        if not options.enabled or not examples:
            return None
        panel = make_panel(
            examples,
            strata=options.strata,
            timesteps=self.backbone.panel_objective.timesteps,
            base=self.plan.base.base_id,
            pixels=self.plan.pixels,
            dtype=DTYPES[self.plan.config.memory.precision],
            buckets=bool(cache.buckets),
        )
        encoded = cache.encode(examples)
        return PanelEvaluator(
            panel, encoded, self.backbone.panel_objective, options.batch_size, self.accelerator
        )


def _draws(
    plan: Plan, backbone: Backbone, encoded: Encoded, examples: Sequence[Example], purpose: str = "example"
) -> Draws:
    options, loss = plan.config.optimizer, plan.config.loss
    images = Images(
        shapes=[encoded.shape(index) for index in range(len(examples))],
        variants=[len(found) for found in encoded.latents],
        repeats=[example.repeats for example in examples],
    )
    return Draws(
        seed=plan.config.seed,
        images=images,
        batch_size=options.batch_size,
        micro_batches=options.accumulation * plan.processes,
        timesteps=backbone.objective.timesteps,
        logit_normal=backbone.objective.logit_normal,
        caption_dropout=plan.config.captions.dropout,
        noise_offset=loss.noise_offset,
        purpose=purpose,
    )


def _class_images(
    plan: Plan, backbone: Backbone, accelerator: Accelerator, check: Callable[[], None]
) -> tuple[list[Example], list[Example]]:
    """Class images that are measured, and others that are trained on."""
    config = plan.config
    trained = config.method.prior_images if config.method.prior_weight is not None else 0
    # Where nothing is evaluated they are kept out of training nevertheless, as held-out images are.
    measured = config.evaluation.class_images if trained or config.evaluation.enabled else 0
    if not measured + trained:
        return [], []
    prompt = class_prompt(config)
    images = own_class_images(config.method, measured + trained, plan.cache_dir, prompt)
    if missing := measured + trained - len(images):
        # As the base model draws them, whichever text encoders are trained later.
        cache = ContentCache(plan.cache_dir, backbone, plan.pixels, check=check)
        images += drawn_class_images(
            missing, prompt, plan.pixels, backbone, cache, plan.cache_dir, accelerator, check
        )
    return images[:measured], images[measured:]


def _prior(
    plan: Plan, backbone: Backbone, cache: ContentCache, training: Encoded, images: Sequence[Example]
) -> dict[tuple[int, ...], Source]:
    """Class images in every shape that training images have, since a batch has one shape."""
    if not images:
        return {}
    sources = {}
    for latents in training.latents:
        shape = tuple(latents[0].mean.shape)
        if shape not in sources:
            encoded = cache.encode(images, size=latents[0].pixels)
            sources[shape] = Source(encoded, _draws(plan, backbone, encoded, images, "prior"))
    return sources
