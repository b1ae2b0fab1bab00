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
    fold: int | None = None  # the part of the images that is held out, from 0; null: held_out images are
    folds: int | None = None  # parts that take turns to be held out; null: one an image (leave one out)
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
    buckets: bool = False  # keep the images' shapes: sizes of about pixels^2, of the nearest aspect ratio


@dataclass
class Augmentation:
    """Variants of the training images; each is encoded once and cached, and every step draws one."""

    flip: bool = False  # also the mirror image
    crops: int = 1  # places that a crop is taken from; 1: the centre


@dataclass
class Method:
    """What trains."""

    name: str = MISSING
    lr: float = MISSING  # default of optimizer.lr; the yaml takes it from the base model
    adapter: str = "none"  # none: the whole UNet or transformer; lora: a low-rank adapter on it
    text_encoder: str = "frozen"  # frozen, full (whole text encoders train too), lora (adapters on them)
    rank: int | None = None  # of the adapter
    alpha: float | None = None  # the adapter's output is scaled by alpha / rank
    dropout: float = 0.0  # of the adapter's input
    targets: str | None = None  # layers the adapter is on: attention, attention_ff, attention_ff_resnet
    rslora: bool = False  # the adapter's output is scaled by alpha / sqrt(rank) instead
    dora: bool = False  # the adapter also learns the magnitudes of the weights
    prior_weight: float | None = None  # of the loss on class images (prior preservation); null: none
    prior_images: int = 100  # class images; those that prior_folder lacks are drawn by the base model
    prior_prompt: str | None = None  # of class images; null: a photo of captions.class_word
    prior_folder: str | None = None  # own class images; null: all are drawn by the base model


@dataclass
class Loss:
    """The training loss. The held-out loss is always the base model's own, so that all runs compare."""

    snr_gamma: float | None = None  # of min-SNR weights (Hang et al. 2023), 5 is usual; null: equal weights
    noise_offset: float = 0.0  # standard deviation of an offset to each channel of the noise
    zero_terminal_snr: bool = False  # train on pure noise at the last timestep (Lin et al. 2023)
    timesteps: str = "auto"  # uniform, logit_normal; auto: as the base model's family is trained


@dataclass
class LearningRates:
    """Peak learning rates that suit a base model: the default, and the range that a sweep searches."""

    default: float = MISSING
    low: float = MISSING
    high: float = MISSING


@dataclass
class BaseModel:
    name: str = MISSING
    path: str = MISSING  # folder in diffusers' layout, model hub id, or a single .safetensors file
    config: str | None = None  # of a single file: folder or hub id with its configuration; null: by its keys
    prediction: str | None = None  # of a single file: epsilon, v_prediction; null: as its keys tell
    allow_pickle: bool = False  # read .ckpt files, which can run code of whoever made them
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
    text: str | None = None  # for every image; {token} and {class_word} in it are replaced
    token: str = "sks"  # a rare word that comes to name the subject, for DreamBooth
    class_word: str | None = None  # what the images show, for example fox; also of class images
    words: int = 8  # source=short: at most so many
    encoding: str = "auto"  # of caption files: auto (UTF-8, or GBK where plain), utf-8, gbk, big5, ...
    dropout: float = 0.0  # share of training examples whose caption is replaced by the empty one


@dataclass
class Optimizer:
    """Options that are null here belong to some of the optimizers only: its yaml sets those that it takes."""

    name: str = "adamw"
    lr: float = MISSING  # peak learning rate; of prodigy a multiplier of the one that it estimates
    text_encoder_lr: float | None = None  # peak of the text encoders' parameters; null: lr
    batch_size: int = 4  # images a process takes in one forward and backward pass (a micro-step)
    accumulation: int = 1  # micro-steps an optimizer update
    schedule: str = "constant"  # constant, cosine, linear, warmup_stable_decay; the decaying ones reach zero at the horizon
    warmup_steps: int = 0
    decay_share: float = 0.2  # of the horizon, over which warmup_stable_decay decays
    weight_decay: float | None = None
    beta1: float | None = None
    beta2: float | None = None
    epsilon: float | None = None
    d_coef: float | None = None  # factor of prodigy's estimate of the learning rate
    max_grad_norm: float = 1.0
    ema_decay: float | None = None  # of the exponential moving average that is evaluated and kept; null: none


@dataclass
class Memory:
    """What is traded for memory or speed; presets that every method takes."""

    name: str = MISSING
    precision: str = "no"  # mixed precision: no, bf16, fp16
    gradient_checkpointing: bool = False  # compute activations again in the backward pass
    frozen_half: bool = (
        False  # keep frozen matrices in the half precision that they are used in; no effect without one
    )
    encode_on_cpu: bool = False  # autoencoder and text encoders never come to the GPU before training
    offload_optimizer: bool = False  # optimizer states live on the CPU, which also computes the updates
    channels_last: bool = False
    compile: bool = False  # torch.compile the denoiser
    compile_backend: str = "inductor"  # of torch.compile


@dataclass
class Budget:
    """How many steps the run may take."""

    name: str = MISSING
    max_steps: int | None = None  # the run never trains longer; null only where a study decides it
    horizon: int | None = None  # steps that the learning-rate schedule spans; null: max_steps
    study: str | None = None  # budget=recommended: the folder of the study whose recommendation is used
    # The folder of a run at constant learning rate: this one, with optimizer.schedule=warmup_stable_decay, goes on from
    # the training state that it kept where the decay begins, and comes out as if trained from step 0
    trunk: str | None = None


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
    class_images: int = 0  # class images whose panel is logged beside (the drift from the prior); 0: none
    # Also measure an average of the weights, as old as a decay over this share of the steps would be; null: none
    average_share: float | None = None


@dataclass
class Samples:
    """Images drawn with fixed prompts and seeds while training, so that checkpoints can be compared by eye."""

    count: int = 4  # images a time, of the captions of the first held-out images; 0: no samples
    prompts: list[str] = field(default_factory=list)  # drawn instead of captions, all of them
    seed: int = 0
    inference_steps: int = 20
    guidance_scale: float = 4.0
    encoder: str | None = (
        None  # folder of a CLIP or DINO model: its likeness of samples to training images is recorded
    )
    first_step: int = 16  # of the geometric grid of sampled steps; step 0 and the last step are sampled too
    ratio: float = 2.0


@dataclass
class Checkpoints:
    every: int | None = (
        None  # steps between full training states; null: only by every_s and when asked to stop
    )
    every_s: float | None = (
        600.0  # seconds between full training states: what a power failure costs at most; null: none
    )
    keep: list[int] = field(
        default_factory=list
    )  # steps whose training states stay, for budget.trunk of other runs
    final: str = "best"  # the weights a finished run leaves: best (lowest held-out loss) or last
    formats: list[str] = field(default_factory=lambda: ["diffusers"])  # of adapters: diffusers, kohya
    resumable: bool | None = (
        None  # a finished run keeps its training state, so that it can be lengthened with a larger
    )
    # budget.max_steps; null: runs of adapters do, whole networks take too much space


@dataclass
class SpaceParameter:
    """One searched parameter: a float or int range, or choices."""

    name: str = (
        MISSING  # a key of the configuration, for example optimizer.lr, or a group, for example method
    )
    low: float | None = None
    high: float | None = None
    log: bool = False  # drawn evenly over the logarithm
    step: float | None = None  # of a range: only low, low + step, ... are drawn; high is one of them
    integer: bool = False
    choices: list[Any] | None = None
    first: Any = None  # value of a cell's first trial
    # It is searched only where all of these hold. Key: a group, or a searched parameter that has choices and
    # stands above; value: what it has to be, or a list of such.
    when: dict[str, Any] = field(default_factory=dict)


@dataclass
class Space:
    name: str = MISSING
    parameters: list[SpaceParameter] = field(default_factory=list)
    # Comparisons that every trial keeps, for example "optimizer.batch_size * optimizer.accumulation <= 16"
    constraints: list[str] = field(default_factory=list)
    # Values of a cell's first trials, one mapping a trial, in this order; what a mapping leaves out is drawn
    points: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Sampler:
    name: str = "tpe"  # tpe, gp, cmaes, qmc, random, grid (all points: sweep.trials has no effect), nsga2
    seed: int = 0
    parameters: dict[str, Any] = field(default_factory=dict)  # of Optuna's class


@dataclass
class Pruner:
    name: str = "none"  # none, median, percentile, asha, hyperband, patient, threshold, wilcoxon
    parameters: dict[str, Any] = field(default_factory=dict)  # of Optuna's class


@dataclass
class Limits:
    """Caps on a whole study, over all of its cells and sessions; null: none. They may change on resume."""

    trials: int | None = None  # started, over all cells; sweep.trials is the number a cell
    hours: float | None = None  # of wall clock while a sweep runs, all sessions added up
    gpu_hours: float | None = (
        None  # devices of a trial x hours that it ran; without GPUs a process is a device
    )
    steps: int | None = (
        None  # optimizer updates of all trials; what is trained again after a crash counts again
    )
    disk_gb: float | None = None  # size of the study's folder, in 10^9 bytes
    cost: float | None = None  # price_per_gpu_hour x GPU-hours, in `currency`
    price_per_gpu_hour: float | None = None
    currency: str = "USD"  # only a label


@dataclass
class Cooldown:
    """Every parameter set trains a trunk at constant learning rate, and a branch off it for each of several budgets."""

    branches: int = 0  # budgets, the largest budget.max_steps; 0: none
    ratio: float = 1.4142135623730951  # of a budget to the one before
    budgets: list[int] = field(
        default_factory=list
    )  # steps, rising; where they are stated, `branches` has no effect
    decay_share: float = 0.15  # of a budget, over which its branch decays


@dataclass
class Sweep:
    """What is swept: every combination of the factors' levels is a cell with an Optuna study of its own."""

    factors: dict[str, list[str]] = field(
        default_factory=dict
    )  # group: options, for example dataset_size: [n4, n16]
    trials: int = 6  # per cell, a total that `resume` keeps to
    # even: every cell gets all of its trials. adaptive: the next trial goes where it narrows an answer most a step, and
    # the sweep ends once the minimum's 90 % interval of every cell is narrow enough
    design: str = "even"
    narrow_enough: float = 2.0  # design=adaptive: high/low of the interval
    least_trials: int = 2  # design=adaptive: of every cell, before the design chooses
    folds: bool = False  # every trial is one run a fold: for folders too small for a held-out set
    cooldown: Cooldown = field(default_factory=Cooldown)
    # All are minimized: held_out_loss (the lowest of a run), and what its point cost: steps, seconds or images
    objectives: list[str] = field(default_factory=lambda: ["held_out_loss"])
    start_from: str | None = (
        None  # neighbours, or a study's folder: a cell's first trial takes its best values
    )
    sampler: Sampler = field(default_factory=Sampler)
    pruner: Pruner = field(default_factory=Pruner)
    exclude: list[dict[str, str]] = field(default_factory=list)  # combinations that are left out
    limits: Limits = field(default_factory=Limits)
    # Null: a journal in the study's folder. A PostgreSQL database: postgresql://USER@HOST/DATABASE; a password is best
    # kept in the environment: ${oc.env:STEPBUDGET_STORAGE}
    storage: str | None = None


@dataclass
class Launch:
    name: str = MISSING
    slots: int | None = None  # trials at once; null: one for every `processes` GPUs, or by CPU cores
    gpus: list[str] | None = None  # indices or UUIDs that trials share out; null: all that are visible
    threads: int = 1  # CPU threads a trial
    processes: int = 1  # accelerate processes a trial
    accelerate_config: str | None = None  # a file of `accelerate config`, taken as it is for every trial
    environment: dict[str, str] = field(default_factory=dict)  # variables that trainers get besides ours
    retries: int = 2  # further attempts of a crashed trial that got no further than before
    timeout_s: float | None = None  # seconds a trial may take, its attempts together; null: no limit
    hang_s: float = 1800.0  # seconds without a step, a line or a point, after which a trainer has hung
    grace_s: float = 20.0  # seconds a trial has to end by itself once asked, before it is terminated
    poll_s: float = 0.5  # seconds between two looks at the run folders
    command: list[str] | None = (
        None  # argv that replaces `accelerate launch ... train.py`: any trainer that keeps a run folder
    )
    flags: dict[str, str] = field(
        default_factory=dict
    )  # key: flag of that command, for example optimizer.lr: --learning_rate; empty: it takes overrides


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
    augmentation: Augmentation = field(default_factory=Augmentation)
    loss: Loss = field(default_factory=Loss)
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
