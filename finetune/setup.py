"""From a plan to the objects of a run: what runs could share (backbone, cache) apart from a run's own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from omegaconf import OmegaConf
import torch
from torch import Tensor

from conf.errors import RequestError
from conf.inputs import project_path
from conf.schema import Config
from conf.secrets import redact
from curves.panel import Panel
from curves.run_folder import RunFolder
from curves.stopping.base import EvaluationRule
from finetune.averaging import AgingAverage, Averaging, NoAverage, make_averaging
from finetune.backbone import Backbone
from finetune.batches import Source
from finetune.checkpoint import load_checkpoint
from finetune.data import Data, Panels, make_data
from finetune.interruption import Interruption
from finetune.likeness import LikenessMeter
from finetune.methods import make_trained_model
from finetune.offload import OffloadedOptimizer
from finetune.optimizers import ParameterGroup, make_optimizer, text_encoder_scale
from finetune.plan import Plan, new_rule
from finetune.progress import Progress
from finetune.results import check_formats
from finetune.run_record import begin, claim, make_default_folder
from finetune.samples import Sampler
from finetune.status import RunStatus
from finetune.tracking import NoTracking, Tracking, start_tracking
from finetune.trained import TrainedModel, load_weights, trainable_parameters


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
        last_loss: the last held-out loss.
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
    last_loss: float | None = None


@dataclass(frozen=True)
class Sampling:
    """What draws samples, and what measures them."""

    sampler: Sampler
    likeness: LikenessMeter


@dataclass
class Run:
    """One run at work. `trained` is the bare module, `model` the same one as accelerate wraps it for training.

    `aging` is measured beside the weights that count, which `averaging` decides.
    `prior` has class images by the shape of the training images' latents; it is empty without prior preservation.
    """

    plan: Plan
    status: RunStatus
    interruption: Interruption
    accelerator: Accelerator
    folder: RunFolder
    backbone: Backbone
    trained: TrainedModel
    model: torch.nn.Module
    parameters: list[torch.nn.Parameter]
    optimizer: Any
    averaging: Averaging
    aging: Averaging
    training: Source
    prior: dict[tuple[int, ...], Source]
    rule: EvaluationRule
    panels: Panels
    sampling: Sampling | None
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
    encoding_device = torch.device("cpu") if config.memory.encode_on_cpu else None
    backbone = Backbone(plan.base, accelerator.device, config.loss, encoding_device)
    data = make_data(plan, backbone, accelerator, interruption.check)
    resumed = _begin(folder, plan, data.panel, accelerator, status)
    trained = make_trained_model(backbone, config)
    check_formats(trained, config)
    named = trainable_parameters(trained)
    optimizer = _optimizer(named, config, accelerator)
    model, prepared = accelerator.prepare(trained, optimizer)
    run = Run(
        plan=plan,
        status=status,
        interruption=interruption,
        accelerator=accelerator,
        folder=folder,
        backbone=backbone,
        trained=trained,
        model=model,
        parameters=list(named.values()),
        optimizer=prepared,
        averaging=make_averaging(named, config.optimizer, optimizer),
        aging=_aging(named, config),
        training=data.training,
        prior=data.prior,
        rule=new_rule(plan),
        panels=data.panels,
        sampling=_sampling(plan, data, backbone, accelerator),
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


def _begin(
    folder: RunFolder, plan: Plan, panel: Panel | None, accelerator: Accelerator, status: RunStatus
) -> bool:
    """Write the run's record in the main process; every process learns whether it goes on."""
    answers = [begin(folder, plan, panel, status) if accelerator.is_main_process else False]
    broadcast_object_list(answers)
    return answers[0]


def _optimizer(
    named: Mapping[str, torch.nn.Parameter], config: Config, accelerator: Accelerator
) -> torch.optim.Optimizer:
    """Text encoders are a group of their own, for their learning rate."""
    denoiser = [value for name, value in named.items() if name.startswith("denoiser.")]
    text = [value for name, value in named.items() if not name.startswith("denoiser.")]
    groups = [ParameterGroup(denoiser)]
    if text:
        groups.append(ParameterGroup(text, text_encoder_scale(config.optimizer)))
    if config.memory.offload_optimizer and accelerator.device.type != "cpu":
        return OffloadedOptimizer(groups, config.optimizer)
    return make_optimizer(groups, config.optimizer, accelerator.device)


def _aging(named: Mapping[str, torch.nn.Parameter], config: Config) -> Averaging:
    share = config.evaluation.average_share
    return NoAverage() if share is None else AgingAverage(named, share)


def _sampling(plan: Plan, data: Data, backbone: Backbone, accelerator: Accelerator) -> Sampling | None:
    """Samples of the configured prompts, or of the captions of the first held-out (else training) images."""
    options = plan.config.samples
    prompts = sample_prompts(plan)
    if not prompts or not accelerator.is_main_process:
        return None
    side = plan.pixels
    sizes = backbone.family.sizes((side, side), (0, 0), (side, side))
    sampler = Sampler(
        backbone,
        [data.cache.text(prompt) | sizes for prompt in prompts],
        data.cache.empty_text() | sizes,
        backbone.latent_shape(side),
        [("sample", options.seed, index) for index in range(len(prompts))],
        options.inference_steps,
        options.guidance_scale,
        accelerator.autocast,
    )
    encoder = None if options.encoder is None else project_path(options.encoder)
    held_out = data.cache.encode(plan.split.held_out if plan.config.evaluation.enabled else [])
    return Sampling(sampler, LikenessMeter(data.training.encoded, held_out, plan.split.training, encoder))


def sample_prompts(plan: Plan) -> list[str]:
    """What samples are drawn of; none where none are wanted."""
    options = plan.config.samples
    captions = [example.caption for example in plan.split.held_out or plan.split.training]
    return (options.prompts or captions[: options.count]) if options.count else []


def _tracking(plan: Plan, folder: RunFolder, accelerator: Accelerator, resumed: bool) -> Tracking:
    if not accelerator.is_main_process:
        return NoTracking()
    config = cast(dict[str, Any], redact(OmegaConf.to_container(OmegaConf.structured(plan.config))))
    config["cell"] = plan.cell
    return start_tracking(plan.config.tracker, folder.path, config, plan.config.study, resumed)


def _resume(run: Run) -> None:
    """Go on from checkpoints/last, bit for bit; the curve is cut at its step."""
    checkpoint = load_checkpoint(run.folder.checkpoints)
    load_weights(run.trained, checkpoint.weights)
    run.optimizer.load_state_dict(checkpoint.optimizer)
    run.averaging.load_state_dict(checkpoint.average)
    run.aging.load_state_dict(checkpoint.aging)
    if checkpoint.scaler is not None and run.accelerator.scaler is not None:
        run.accelerator.scaler.load_state_dict(checkpoint.scaler)
    state = dict(checkpoint.counters)
    rule = state.pop("rule")
    if (rule["horizon"], rule["name"]) == _rule_identity(run.plan):
        run.rule.load_state_dict(rule["state"])
    else:  # a longer run, whose rule has to see the points so far on its own horizon
        for point in run.folder.points():
            if point.step <= state["step"] and point.val_loss is not None:
                run.rule.update(point)
    run.counters = Counters(**state)
    run.best = checkpoint.best
    if run.accelerator.is_main_process:
        run.folder.cut_curve(run.counters.step)
    run.progress.say(f"going on at step {run.counters.step}")


def training_state(run: Run, wall_s: float) -> dict[str, Any]:
    """The counters and the stop rule's state, as a checkpoint keeps them."""
    horizon, name = _rule_identity(run.plan)
    rule = {"horizon": horizon, "name": name, "state": run.rule.state_dict()}
    return {**asdict(run.counters), "wall_s": wall_s, "rule": rule}


def _rule_identity(plan: Plan) -> tuple[int, str]:
    """What a state of a stop rule belongs to."""
    return plan.horizon, plan.config.stopping.name
