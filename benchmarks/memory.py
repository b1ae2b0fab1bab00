"""How much memory training takes, for the real shapes of the base models, by method, preset and image size.

    python -m benchmarks.memory [--base sd15 sdxl sd35] [--pixels 512 1024] [--markdown]

No weights are needed: the real modules are built, changed and run by the trainer's own code on tensors that have a
shape and a life but no content. Where there is an NVIDIA GPU, every cell is also run there with random weights.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

from benchmarks.architectures import ARCHITECTURES, Architecture, RandomBackbone
from benchmarks.live_bytes import ACTIVATIONS, LiveBytes, Workspace, no_workspace, workspace_on_cpu
from conf.compose import load_config
from conf.compose import options as choices
from conf.schema import Config
from finetune.methods import make_trained_model
from finetune.objective import example_losses
from finetune.offload import OffloadedOptimizer
from finetune.optimizers import ParameterGroup, make_optimizer
from finetune.trained import HALF, TrainedModel, trainable_parameters

CPU = torch.device("cpu")
GIB = 2**30
METHODS = {
    "LoRA, rank 8": ("method=lora",),
    "LoRA, text encoders too": ("method=lora", "method.text_encoder=lora"),
    "full": ("method=text_to_image",),
    "DreamBooth, with prior": ("method=dreambooth", "captions=file", "method.prior_prompt=dog"),
}
PRESETS = ("minimal", "low", "normal", "fast")
PARAMETERS, GRADIENTS = "parameters", "gradients"


@dataclass(frozen=True)
class Footprint:
    """Bytes on the training device.

    Attributes:
        parameters: frozen and trained, buffers too.
        trained: parameters that train.
        gradients, optimizer: at their most.
        activations: at their most, saved or in work, half-precision copies of weights among them.
        step, panel, samples: everything together at the peak of a training step, of a batch of the held-out panel,
            and of drawing samples.
    """

    parameters: int
    trained: int
    gradients: int
    optimizer: int
    activations: int
    step: int
    panel: int
    samples: int


# A GPU's autocast computes these in single precision, the CPU's, which accounts here, leaves them in half. They are put on
# the CPU's because a build of torch without CUDA has no gradients of fake tensors on a GPU.
IN_SINGLE = ("layer_norm", "group_norm", "rms_norm", "softmax.int", "upsample_nearest2d.vec")


@contextmanager
def autocast_as_on_gpu() -> Iterator[None]:
    """Autocast on the CPU with the precisions of a GPU."""
    with torch.library._scoped_library("aten", "IMPL") as library:
        for name in IN_SINGLE:
            library.impl(name, in_single(name), "AutocastCPU")
        yield


def in_single(name: str) -> Callable[..., Any]:
    """An operator of aten on single-precision copies of its arguments."""
    packet, _, overload = name.partition(".")
    operator = getattr(getattr(torch.ops.aten, packet), overload or "default")

    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return operator(*tree_map_only(Tensor, Tensor.float, args), **kwargs)

    return run


def configuration(base: str, method: str, preset: str, batch: int, *more: str) -> Config:
    """As train.py composes it; not compiled, since a compiler's plan is not known before it has run."""
    fixed = ("memory.compile=false", f"optimizer.batch_size={batch}")
    return load_config([f"base_model={base}", *METHODS[method], f"memory={preset}", *fixed, *more])


@dataclass(frozen=True)
class Work:
    """What the trainer does with a model, on inputs of random content: finetune.step and finetune.validation."""

    architecture: Architecture
    config: Config
    pixels: int
    model: TrainedModel
    device: torch.device

    def step(self) -> None:
        """Forward and backward; with prior preservation, of as many class images too."""
        size = self.config.optimizer.batch_size * (2 if self.config.method.prior_weight else 1)
        latents = self.latents(size)
        self.model.train()
        with self.autocast():
            predicted = self.model(latents, self.times(size), self.given(size))
        example_losses(predicted, torch.randn_like(latents)).mean().backward()

    @torch.no_grad()
    def panel(self) -> None:
        """A batch of the held-out panel."""
        size = self.config.evaluation.batch_size
        latents = self.latents(size)
        self.model.eval()
        with self.autocast():
            predicted = self.model(latents, self.times(size), self.given(size))
        example_losses(predicted, torch.randn_like(latents))

    def latents(self, size: int) -> Tensor:
        return torch.randn(size, *self.architecture.latent_shape(self.pixels), device=self.device)

    def times(self, size: int) -> Tensor:
        return torch.full((size,), 500, device=self.device)

    def given(self, size: int) -> dict[str, Tensor]:
        """Conditioning; of trained text encoders their input."""
        given: dict[str, Tensor] = {}
        for name, shape in self.architecture.conditioning.items():
            part = name.split(".")[0]
            if part not in self.model.text_encoders:
                given[name] = torch.randn(size, *shape, device=self.device)
            elif part == name:
                given[f"{part}.ids"] = torch.ones(size, shape[0], dtype=torch.long, device=self.device)
                given[f"{part}.given"] = torch.ones(size, device=self.device)
        return given

    def autocast(self) -> Any:
        half = HALF.get(self.config.memory.precision)
        return torch.autocast(self.device.type, half) if half else nullcontext()


def make_work(architecture: Architecture, config: Config, pixels: int, device: torch.device) -> Work:
    """Build, on the device "meta" without content, what a run has in memory."""
    backbone = RandomBackbone(architecture, device)
    model = make_trained_model(backbone, config)  # type: ignore[arg-type]
    return Work(architecture, config, pixels, model, device)


class Accounting:
    """The bytes that runs of one base model take on their device, found without that memory.

    Presets that hold or do the same share the work: minimal trains as low does, but for where the optimizer is.
    """

    def __init__(self, architecture: Architecture, as_on_gpu: bool = True) -> None:
        """Account with the precisions of a GPU's autocast, or of the CPU's."""
        self._architecture = architecture
        self._precisions = autocast_as_on_gpu if as_on_gpu else nullcontext
        self._workspace = no_workspace if as_on_gpu else workspace_on_cpu
        self._fake = FakeTensorMode()
        self._models: dict[str, TrainedModel] = {}
        self._passes: dict[tuple[str, str, int, int], LiveBytes] = {}

    def footprint(self, config: Config, pixels: int) -> Footprint:
        """Account for a run on images of that side."""
        step = self._live(Work.step, config, pixels, config.optimizer.batch_size)
        panel = self._live(Work.panel, config, pixels, config.evaluation.batch_size)
        trained = trainable_parameters(self._model(config)).values()
        remembered = sum(optimizer_bytes(config.optimizer.name, one.shape) for one in trained)
        optimizer = 0 if config.memory.offload_optimizer else remembered
        return Footprint(
            parameters=step.most[PARAMETERS],
            trained=sum(one.nbytes for one in trained),
            gradients=step.most[GRADIENTS],
            optimizer=optimizer,
            activations=step.most[ACTIVATIONS],
            step=step.peak + optimizer,
            panel=panel.peak + optimizer,
            samples=step.most[PARAMETERS] + optimizer + decoding_bytes(self._architecture, pixels),
        )

    def _live(self, do: Callable[[Work], None], config: Config, pixels: int, batch: int) -> LiveBytes:
        key = (_model_key(config), do.__name__, pixels, batch)
        if key not in self._passes:
            work = Work(self._architecture, config, pixels, self._model(config), CPU)
            with self._fake, self._precisions():
                self._passes[key] = live_bytes(work.model, lambda: do(work), self._workspace)
        return self._passes[key]

    def _model(self, config: Config) -> TrainedModel:
        """With storage, but without content."""
        key = _model_key(config)
        if key not in self._models:
            model = make_work(self._architecture, config, 0, torch.device("meta")).model
            with self._fake:
                give_storage(model)
            self._models[key] = model
        return self._models[key]


def _model_key(config: Config) -> str:
    """All of a configuration that a model in training depends on."""
    elsewhere = {"name": "", "encode_on_cpu": False, "offload_optimizer": False}
    return repr((config.method, replace(config.memory, **elsewhere)))


@functools.cache
def decoding_bytes(architecture: Architecture, pixels: int) -> int:
    """The autoencoder while it makes the pixels of one sample: more than the denoiser takes to draw it."""
    backbone = RandomBackbone(architecture, torch.device("meta"))
    vae = backbone.load_vae()
    with FakeTensorMode(), torch.no_grad():
        give_storage(vae)
        latent = torch.randn(1, *architecture.latent_shape(pixels))
        return live_bytes(vae, lambda: vae.decode(latent, return_dict=False)).peak


def live_bytes(module: nn.Module, do: Callable[[], None], workspace: Workspace = no_workspace) -> LiveBytes:
    """Account for some work with a module: its parameters, gradients as they become final, and the rest."""
    live = LiveBytes(workspace)
    live.count_all([*module.parameters(), *module.buffers()], PARAMETERS)
    handles = [
        parameter.register_post_accumulate_grad_hook(lambda value: live.count(value.grad, GRADIENTS))
        for parameter in trainable_parameters(module).values()
    ]
    with live:
        do()
    for handle in handles:
        handle.remove()
    module.zero_grad(set_to_none=True)
    return live


def give_storage(module: nn.Module) -> None:
    """Turn tensors without storage into fake ones on the CPU, which have one without memory; in a fake mode."""
    for owner in module.modules():
        for name, old in owner.named_parameters(recurse=False):
            new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype)
            setattr(owner, name, nn.Parameter(new, old.requires_grad))
        for name, old in owner.named_buffers(recurse=False):
            setattr(owner, name, torch.empty_strided(old.shape, old.stride(), dtype=old.dtype))


def optimizer_bytes(name: str, shape: Sequence[int]) -> int:
    """What an optimizer of finetune.optimizers remembers of one parameter in single precision.

    prodigy: at most; it leaves out the start of a parameter that starts at zero, as half of an adapter's do.
    """
    count = math.prod(shape)
    match name:
        case "adamw8bit" if count >= 4096:  # two moments of a byte, with a scale for each 256
            return 2 * (count + 4 * math.ceil(count / 256))
        case "adafactor":  # the mean squares of rows and of columns
            return 4 * (count // shape[-1] + count // shape[-2] if len(shape) > 1 else count)
        case "prodigy":
            return 16 * count
        case _:
            return 8 * count


def allocated_on_gpu(architecture: Architecture, config: Config, pixels: int) -> int:
    """The most bytes that a second training step really has allocated on the GPU at once."""
    device = torch.device("cuda")
    work = make_work(architecture, config, pixels, device)
    groups = [ParameterGroup(list(trainable_parameters(work.model).values()))]
    offloaded = config.memory.offload_optimizer
    optimizer = (
        OffloadedOptimizer(groups, config.optimizer)
        if offloaded
        else make_optimizer(groups, config.optimizer, device)
    )
    for _ in range(2):  # the first makes the optimizer's state
        torch.cuda.reset_peak_memory_stats()
        work.step()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated()


SIZES = ("parameters", "gradients", "optimizer", "activations", "step", "panel", "samples")
HEADER = ("base", "method", "preset", "pixels", *SIZES)


def row(base: str, pixels: int, method: str, preset: str, found: Footprint) -> list[str]:
    """A line of the table, in GiB."""
    sizes = [getattr(found, name) for name in SIZES]
    return [base, method, preset, str(pixels), *(f"{size / GIB:.2f}" for size in sizes)]


def main() -> None:
    """Print the table, a line as soon as it is known."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", nargs="+", choices=list(ARCHITECTURES), default=["sd15", "sdxl"])
    parser.add_argument("--pixels", nargs="+", type=int, default=[512, 1024])
    parser.add_argument("--method", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--batch", type=int, default=1, help="images in a micro-step")
    parser.add_argument("--optimizer", choices=choices("optimizer"), default="adamw")
    parser.add_argument("--markdown", action="store_true", help="as a table in Markdown")
    chosen = parser.parse_args()
    gpu = torch.cuda.is_available()
    header = [*HEADER, "measured step"] if gpu else list(HEADER)
    print_row(header, chosen.markdown)
    if chosen.markdown:
        print_row(["---"] * len(header), True)
    for base in chosen.base:
        accounting = Accounting(ARCHITECTURES[base])
        for method, preset, pixels in itertools.product(chosen.method, chosen.preset, chosen.pixels):
            config = configuration(base, method, preset, chosen.batch, f"optimizer={chosen.optimizer}")
            found = accounting.footprint(config, pixels)
            cells = row(base, pixels, method, preset, found)
            if gpu:
                measured = allocated_on_gpu(ARCHITECTURES[base], config, pixels)
                cells.append(f"{measured / GIB:.2f} ({found.step / measured:.2f})")
            print_row(cells, chosen.markdown)


def print_row(cells: Sequence[str], markdown: bool) -> None:
    widths = (6, 24, 8, 7)
    aligned = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
    aligned += [cell.rjust(11) for cell in cells[len(widths) :]]
    print("| " + " | ".join(cells) + " |" if markdown else " ".join(aligned), flush=True)


if __name__ == "__main__":
    main()
