"""The typed configuration: every key with its unit, range and meaning. The yaml groups beside this file fill it.

Units: steps are optimizer updates, sizes are pixels, times are seconds, learning rates are per update.
"""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING


@dataclass
class Dataset:
    """A folder of images, each with a caption file of the same stem (`cat.png`, `cat.txt`)."""

    name: str = MISSING
    path: str = MISSING  # folder; relative paths are relative to the project root
    held_out: int = (
        16  # images kept out of training to measure the held-out loss on; the same for every dataset size
    )
    seed: int = (
        0  # of the split into held-out and training images, and of the nested subsets (n8 lies inside n16)
    )
    skip_unreadable: bool = False  # go on without images that cannot be read or have no caption


@dataclass
class DatasetSize:
    name: str = MISSING
    images: int | None = None  # training images; null: all that are not held out


@dataclass
class Resolution:
    name: str = MISSING
    pixels: int | None = (
        None  # side of the square training image, a multiple of 8; null: the base model's native size
    )


@dataclass
class Method:
    """What trains."""

    name: str = MISSING
    lr: float = MISSING  # default of optimizer.lr; the yaml takes it from the base model
    adapter: str = "none"  # none: the whole UNet; lora: a low-rank adapter on it
    rank: int | None = None  # of the adapter
    alpha: float | None = None  # the adapter's output is scaled by alpha / rank
    dropout: float = 0.0  # of the adapter's input
    targets: str | None = None  # layers the adapter is on: attention, attention_ff, attention_ff_resnet


@dataclass
class LearningRates:
    """Peak learning rates that suit a base model: the default, and the range that a sweep searches."""

    default: float = MISSING
    low: float = MISSING
    high: float = MISSING


@dataclass
class BaseModel:
    name: str = MISSING
    path: str = MISSING  # folder in diffusers' layout, or a model hub id
    seconds_per_image: float = (
        0.02  # one training image at native resolution; only `sweep plan` uses it, before any run
    )
    lora: LearningRates = field(default_factory=LearningRates)  # of an adapter
    full: LearningRates = field(default_factory=LearningRates)  # of the whole UNet
    megabytes: float = 10.0  # of the trained weights in full; only `sweep plan` uses it


@dataclass
class Captions:
    """What each image is said to show."""

    name: str = MISSING
    source: str = "file"  # file: the image's own caption; short: its first phrase; instance, class: `text`
    text: str | None = None  # for every image; {class_word} in it is replaced
    class_word: str | None = None  # what the images show, for example fox
    words: int = 8  # source=short: at most so many
    encoding: str = "auto"  # of caption files: auto (UTF-8, or GBK where plain), utf-8, gbk, big5, ...
    dropout: float = 0.0  # share of training examples whose caption is replaced by the empty one


@dataclass
class Optimizer:
    name: str = "adamw"
    lr: float = MISSING  # peak learning rate
    batch_size: int = 4  # images a process takes in one forward and backward pass (a micro-step)
    accumulation: int = 1  # micro-steps an optimizer update
    schedule: str = "constant"  # constant, cosine, linear; the decaying ones reach zero at the horizon
    warmup_steps: int = 0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0


@dataclass
class Memory:
    name: str = MISSING
    precision: str = "no"  # mixed precision: no, bf16, fp16
    gradient_checkpointing: bool = False


@dataclass
class Budget:
    """How many steps the run may take."""

    name: str = MISSING
    max_steps: int | None = None  # the run never trains longer; null only where a study decides it
    horizon: int | None = None  # steps that the learning-rate schedule spans; null: max_steps
    study: str | None = None  # budget=recommended: the folder of the study whose recommendation is used


@dataclass
class Stopping:
    """The rule that ends a run before its horizon; `parameters` are those of the rule of this name in curves/stopping."""

    name: str = MISSING
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Tracker:
    name: str = MISSING
    mode: str = "disabled"  # wandb: auto (online with a login, offline without), online, offline, disabled
    project: str = "stepbudget"


@dataclass
class Evaluation:
    """The validation panel: held-out images x strata of timesteps with fixed noise."""

    enabled: bool = True
    strata: int = 8  # timestep strata per image
    batch_size: int = 32  # (image, timestep) pairs a forward pass; does not change the result
    first_step: int = 4  # of the geometric grid of evaluations; step 0 is always evaluated
    ratio: float = 1.189207115002721  # of the geometric grid: 2^(1/4)
    minimum_images: int = 8  # fewer held-out images are refused: their loss says too little
    training_images: int = 8  # training images whose panel is logged beside (the memorization gap); 0: none


@dataclass
class Samples:
    """Images drawn with fixed prompts and seeds while training, so that checkpoints can be compared by eye."""

    count: int = 4  # images a time, of the captions of the first held-out images; 0: no samples
    prompts: list[str] = field(default_factory=list)  # drawn instead of captions, all of them
    seed: int = 0
    inference_steps: int = 20
    guidance_scale: float = 4.0
    first_step: int = 16  # of the geometric grid of sampled steps; step 0 and the last step are sampled too
    ratio: float = 2.0


@dataclass
class Checkpoints:
    every: int | None = None  # steps between full training states; null: only when the run is asked to stop
    final: str = "best"  # the weights a finished run leaves: best (lowest held-out loss) or last


@dataclass
class SpaceParameter:
    """One searched parameter: a float or int range, or choices."""

    name: str = MISSING  # key of the configuration, for example optimizer.lr
    low: float | None = None
    high: float | None = None
    log: bool = False
    integer: bool = False
    choices: list[Any] | None = None
    first: Any = None  # value of a cell's first trial
    when: dict[str, Any] = field(
        default_factory=dict
    )  # group: option or list of options in whose cells it is searched


@dataclass
class Space:
    name: str = MISSING
    parameters: list[SpaceParameter] = field(default_factory=list)


@dataclass
class Sampler:
    name: str = "tpe"  # tpe, random, qmc
    seed: int = 0


@dataclass
class Pruner:
    name: str = "none"  # none, median, asha, hyperband
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Sweep:
    """What is swept: every combination of the factors' levels is a cell with an Optuna study of its own."""

    factors: dict[str, list[str]] = field(
        default_factory=dict
    )  # group: options, for example dataset_size: [n4, n16]
    trials: int = 6  # per cell, a total that `resume` keeps to
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    exclude: list[dict[str, str]] = field(default_factory=list)  # combinations that are left out


@dataclass
class Launch:
    name: str = MISSING
    slots: int | None = None  # trials at once; null: one a GPU, or one for every `threads` CPU cores
    threads: int = 1  # CPU threads a trial
    processes: int = 1  # accelerate processes a trial
    grace_s: float = 20.0  # seconds a trial has to end by itself once asked, before it is terminated
    poll_s: float = 0.5  # seconds between two looks at the run folders
    command: list[str] | None = (
        None  # argv that replaces `accelerate launch ... train.py`: any trainer that keeps a run folder
    )


@dataclass
class Config:
    dataset: Dataset = MISSING
    dataset_size: DatasetSize = MISSING
    resolution: Resolution = MISSING
    method: Method = MISSING
    base_model: BaseModel = MISSING
    captions: Captions = MISSING
    optimizer: Optimizer = MISSING
    memory: Memory = MISSING
    budget: Budget = MISSING
    stopping: Stopping = MISSING
    tracker: Tracker = MISSING
    space: Space = MISSING
    launch: Launch = MISSING
    evaluation: Evaluation = field(default_factory=Evaluation)
    samples: Samples = field(default_factory=Samples)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    sweep: Sweep = field(default_factory=Sweep)
    seed: int = 0  # of a run: order, crops, timesteps, noise and the adapter's start
    study: str | None = None  # name of the study; its folder is <runs_dir>/<study>
    runs_dir: str = "runs"
    cache_dir: str = ".cache/stepbudget"  # latents and text embeddings, by content
    run_dir: str | None = None  # the run folder; null: <runs_dir>/<method>-<dataset_size>-<resolution>-<time>
    device: str = "auto"  # auto, cpu, cuda
