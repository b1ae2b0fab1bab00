"""From a plan to the objects of a run: what runs could share (backbone, cache) apart from a run's own."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from diffusers import UNet2DConditionModel
from omegaconf import OmegaConf
import torch
from torch import Tensor

from conf.errors import RequestError
from conf.schema import Config
from curves.panel import Panel
from curves.run_folder import RunFolder
from curves.stopping.base import EvaluationRule
from finetune.backbone import Backbone
from finetune.cache import ContentCache, Encoded
from finetune.checkpoint import load_checkpoint
from finetune.images import Example
from finetune.interruption import Interruption
from finetune.methods import load_weights, make_trainable, trainable_parameters
from finetune.optimizers import ParameterGroup, make_optimizer
from finetune.plan import Plan, new_rule
from finetune.progress import Progress
from finetune.randomness import Draws
from finetune.run_record import begin, claim, make_default_folder
from finetune.samples import Sampler
from finetune.status import RunStatus
from finetune.tracking import NoTracking, Tracking, start_tracking
from finetune.validation import PanelEvaluator, make_panel

DTYPES = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}


@dataclass
class Counters:
    """What a run has done so far; with the weights and the optimizer it is the whole training state.

    Attributes:
        step: optimizer updates.
        wall_s: seconds of earlier lives of the run.
        loss_sum, loss_count: of the training loss since the last point.
        recorded_step, sampled_step: of the last point and of the last samples.
        start: panel losses (images, strata) at step 0.
        best_step, best_loss: of the lowest held-out loss.
    """

    step: int = 0
    wall_s: float = 0.0
    loss_sum: float = 0.0
    loss_count: int = 0
    recorded_step: int = -1
    sampled_step: int = -1
    start: list[list[float]] | None = None
    best_step: int = 0
    best_loss: float | None = None


@dataclass
class Run:
    """One run at work. `unet` is the bare model, `model` the same one as accelerate wraps it for training."""

    plan: Plan
    status: RunStatus
    interruption: Interruption
    accelerator: Accelerator
    folder: RunFolder
    backbone: Backbone
    unet: UNet2DConditionModel
    model: torch.nn.Module
    parameters: list[torch.nn.Parameter]
    optimizer: Any
    encoded: Encoded
    draws: Draws
    rule: EvaluationRule
    held_out: PanelEvaluator | None
    memorized: PanelEvaluator | None
    sampler: Sampler | None
    tracking: Tracking
    progress: Progress
    counters: Counters = field(default_factory=Counters)
    best: dict[str, Tensor] | None = None

    @property
    def config(self) -> Config:
        return self.plan.config


def make_accelerator(config: Config) -> Accelerator:
    """The accelerator, with torch set to repeat its results exactly where that costs little.

    Raises:
        RequestError: device or precision are not available here.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise RequestError("device=cuda: there is no CUDA GPU here; use device=cpu or device=auto")
    AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run in this process (--multirun)
    accelerator = Accelerator(
        cpu=config.device == "cpu",
        mixed_precision=config.memory.precision,
        step_scheduler_with_optimizer=False,
    )
    if accelerator.device.type == "cpu":
        if config.memory.precision == "fp16":
            raise RequestError("memory.precision=fp16: needs a GPU; on a CPU use no or bf16")
        torch.use_deterministic_algorithms(True)
    # A float32 panel is float32 on every device, and one seed gives one curve as far as the GPU's kernels allow.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
    return accelerator


def set_up(plan: Plan, status: RunStatus, interruption: Interruption) -> Run:
    """Load, encode and build everything, and go on from a training state where the folder holds one.

    Raises:
        RequestError: the base model is damaged, or the run folder cannot be used.
        WorkError: the training state is damaged.
    """
    config = plan.config
    accelerator = make_accelerator(config)
    folder = _choose_folder(plan, status, accelerator)
    backbone = Backbone(plan.base, accelerator.device)
    cache = ContentCache(plan.cache_dir, backbone, plan.pixels, interruption.check)
    encoded = cache.encode(plan.split.training)
    panel = _panel(plan, backbone, plan.split.held_out) if config.evaluation.enabled else None
    resumed = _begin(folder, plan, panel, accelerator)
    unet = _trainable_unet(backbone, config)
    parameters = list(trainable_parameters(unet).values())
    optimizer = _optimizer(parameters, config)
    model, prepared = accelerator.prepare(unet, optimizer)
    run = Run(
        plan=plan,
        status=status,
        interruption=interruption,
        accelerator=accelerator,
        folder=folder,
        backbone=backbone,
        unet=unet,
        model=model,
        parameters=parameters,
        optimizer=prepared,
        encoded=encoded,
        draws=_draws(plan, backbone, encoded),
        rule=new_rule(plan),
        held_out=_evaluator(plan, panel, cache, plan.split.held_out, backbone, accelerator),
        memorized=_memorized(plan, cache, backbone, accelerator),
        sampler=_sampler(plan, cache, backbone, encoded, accelerator),
        tracking=_tracking(plan, folder, accelerator, resumed),
        progress=Progress(plan.horizon, plan.grids, accelerator.is_main_process),
    )
    backbone.release_encoders()
    if resumed:
        _resume(run)
    return run


def _choose_folder(plan: Plan, status: RunStatus, accelerator: Accelerator) -> RunFolder:
    """The pinned folder, or a new one, named by the main process for all."""
    config = plan.config
    names = [config.run_dir or ""]
    if config.run_dir is None and accelerator.is_main_process:
        names = [str(make_default_folder(config, plan.pixels))]
    broadcast_object_list(names)
    path = Path(names[0])
    if not status.is_open:
        claim(path, status)
    return RunFolder(path)


def _begin(folder: RunFolder, plan: Plan, panel: Panel | None, accelerator: Accelerator) -> bool:
    """Write the run's record in the main process; every process learns whether it goes on."""
    answers = [begin(folder, plan, panel) if accelerator.is_main_process else False]
    broadcast_object_list(answers)
    return answers[0]


def _trainable_unet(backbone: Backbone, config: Config) -> UNet2DConditionModel:
    unet = backbone.load_unet()
    make_trainable(unet, config.method, config.seed)
    if config.memory.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    return unet.to(backbone.device).train()


def _optimizer(parameters: Sequence[torch.nn.Parameter], config: Config) -> torch.optim.Optimizer:
    return make_optimizer([ParameterGroup(list(parameters))], config.optimizer, parameters[0].device)


def _draws(plan: Plan, backbone: Backbone, encoded: Encoded) -> Draws:
    options = plan.config.optimizer
    return Draws(
        seed=plan.config.seed,
        images=len(plan.split.training),
        global_batch=options.batch_size * options.accumulation * plan.processes,
        timesteps=backbone.objective.timesteps,
        shape=tuple(encoded.mean.shape[1:]),
        caption_dropout=plan.config.captions.dropout,
    )


def _panel(plan: Plan, backbone: Backbone, examples: Sequence[Example]) -> Panel:
    return make_panel(
        examples,
        strata=plan.config.evaluation.strata,
        timesteps=backbone.objective.timesteps,
        base=plan.base.base_id,
        pixels=plan.pixels,
        dtype=DTYPES[plan.config.memory.precision],
    )


def _evaluator(
    plan: Plan,
    panel: Panel | None,
    cache: ContentCache,
    examples: Sequence[Example],
    backbone: Backbone,
    accelerator: Accelerator,
) -> PanelEvaluator | None:
    if panel is None:
        return None
    batch_size = plan.config.evaluation.batch_size
    return PanelEvaluator(panel, cache.encode(examples), backbone.objective, batch_size, accelerator)


def _memorized(
    plan: Plan, cache: ContentCache, backbone: Backbone, accelerator: Accelerator
) -> PanelEvaluator | None:
    """The same measure on the first training images: how far they are memorized."""
    examples = plan.split.training[: plan.config.evaluation.training_images]
    if not plan.config.evaluation.enabled or not examples:
        return None
    return _evaluator(plan, _panel(plan, backbone, examples), cache, examples, backbone, accelerator)


def _sampler(
    plan: Plan, cache: ContentCache, backbone: Backbone, encoded: Encoded, accelerator: Accelerator
) -> Sampler | None:
    """Samples of the configured prompts, or of the captions of the first held-out (else training) images."""
    options = plan.config.samples
    captions = [example.caption for example in plan.split.held_out or plan.split.training]
    prompts = (options.prompts or captions[: options.count]) if options.count else []
    if not prompts or not accelerator.is_main_process:
        return None
    embeddings = torch.stack([cache.text(prompt) for prompt in prompts])
    shape = tuple(encoded.mean.shape[1:])
    return Sampler(options, prompts, embeddings, encoded.empty_text, shape, backbone, accelerator)


def _tracking(plan: Plan, folder: RunFolder, accelerator: Accelerator, resumed: bool) -> Tracking:
    if not accelerator.is_main_process:
        return NoTracking()
    config = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(plan.config)))
    config["cell"] = plan.cell
    return start_tracking(plan.config.tracker, folder.path, config, plan.config.study, resumed)


def _resume(run: Run) -> None:
    """Go on from checkpoints/last, bit for bit; the curve is cut at its step."""
    checkpoint = load_checkpoint(run.folder.checkpoints)
    load_weights(run.unet, checkpoint.weights)
    run.optimizer.load_state_dict(checkpoint.optimizer)
    if checkpoint.scaler is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(checkpoint.scaler)
    state = dict(checkpoint.counters)
    run.rule.load_state_dict(state.pop("rule"))
    run.counters = Counters(**state)
    run.best = checkpoint.best
    if run.accelerator.is_main_process:
        run.folder.cut_curve(run.counters.step)
    run.progress.say(f"going on at step {run.counters.step}")


def training_state(run: Run, wall_s: float) -> dict[str, Any]:
    """The counters and the stop rule's state, as a checkpoint keeps them."""
    return {**asdict(run.counters), "wall_s": wall_s, "rule": run.rule.state_dict()}
