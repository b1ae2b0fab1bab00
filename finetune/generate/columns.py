"""The columns of a grid: which model, with which adapters of which weights, at which size."""

from collections.abc import Sequence
from dataclasses import dataclass
import itertools
from pathlib import Path

from conf.errors import RequestError
from finetune.base_files import BaseFiles
from finetune.generate.options import BASE, Options, Weighted
from finetune.names import shown
from finetune.weights import LORA, NETWORKS, Weights, check_family, find_base_of, find_weights, named_base

Adapter = tuple[Weights, float]


@dataclass(frozen=True)
class Column:
    """What one column of images is drawn with.

    Attributes:
        heading: for people.
        base: the model, whole.
        networks: folder of trained networks that replace parts of it.
        zero_terminal_snr: whether images begin as pure noise.
        adapters: with their weights.
        pixels: side of the images.
    """

    heading: str
    base: BaseFiles
    networks: Path | None
    zero_terminal_snr: bool
    adapters: tuple[Adapter, ...]
    pixels: int

    @property
    def model(self) -> tuple[Path, Path | None, bool]:
        """What tells models in memory apart; adapters come and go on one of them."""
        return self.base.path, self.networks, self.zero_terminal_snr


def make_columns(options: Options) -> list[Column]:
    """The columns in the order of the command line; every weight of an adapter makes one.

    Raises:
        RequestError: weights or a base model are missing or damaged, or a size does not go with a model.
    """
    found = [_find("RUN_OR_FILE", item) for item in options.columns]
    loras = [_find("--lora", item) for item in options.loras]
    for item, weights in zip(options.loras, loras, strict=True):
        if weights is None or weights.form != LORA:
            raise RequestError(f"--lora={shown(item.name)}: is no adapter; name it as a column instead")
    base = _base(options, [weights for weights in found if weights is not None])
    columns = []
    for item, weights in zip(options.columns, found, strict=True):
        own = base if weights is None else _base_of(weights, options)
        assert own is not None  # _base raises where a column needs one and nothing names it
        stack = [(weights, item)] if weights is not None and weights.form == LORA else []
        stack += [
            (lora, option) for lora, option in zip(loras, options.loras, strict=True) if lora is not None
        ]
        for chosen in itertools.product(*(option.weights for _, option in stack)):
            adapters = tuple((lora, weight) for (lora, _), weight in zip(stack, chosen, strict=True))
            columns.append(_column(item, weights, own, adapters, options))
    return columns


def _find(key: str, item: Weighted) -> Weights | None:
    """Weights; None for the base model itself."""
    weights = None if item.name == BASE else find_weights(key, item.name)
    if item.stated and (weights is None or weights.form != LORA):
        raise RequestError(
            f"{key}={shown(item.name)}: is no adapter, so it takes no weight; drop what follows the colon"
        )
    return weights


def _base(options: Options, found: Sequence[Weights]) -> BaseFiles | None:
    """The model that the word base means: --base, else that of the first column that has one."""
    if not any(item.name == BASE for item in options.columns):
        return None
    if options.base is not None:
        return named_base(options.base, options.config, options.cache)
    first = next((weights for weights in found if not weights.whole), None)
    if first is None:
        raise RequestError(f"RUN_OR_FILE={BASE}: no column is a run or an adapter of it; name it with --base")
    return _base_of(first, options)


def _base_of(weights: Weights, options: Options) -> BaseFiles:
    return find_base_of(weights, "RUN_OR_FILE", options.base, options.config, options.cache)


def _column(
    item: Weighted, weights: Weights | None, base: BaseFiles, adapters: tuple[Adapter, ...], options: Options
) -> Column:
    for lora, _ in adapters:
        check_family(lora, base)
    trained = [lora for lora, _ in adapters] + ([weights] if weights is not None else [])
    pixels = options.size or (weights.pixels if weights is not None else None) or base.native_pixels
    if pixels % base.multiple:
        near = max(1, round(pixels / base.multiple)) * base.multiple
        raise RequestError(
            f"--size={pixels}: this model needs a multiple of {base.multiple}, for example {near}"
        )
    return Column(
        heading=_heading(item, weights, adapters, options),
        base=base,
        networks=weights.path if weights is not None and weights.form == NETWORKS else None,
        zero_terminal_snr=any(one.zero_terminal_snr for one in trained),
        adapters=adapters,
        pixels=pixels,
    )


def _heading(item: Weighted, weights: Weights | None, adapters: tuple[Adapter, ...], options: Options) -> str:
    """The name, which weights of a run, and the weights of adapters: all that tells columns apart."""
    text = shown(item.name.rstrip("/"))
    if weights is not None and weights.which:
        step = f", step {weights.facts['steps']}" if "steps" in weights.facts else ""
        text += f" ({weights.which}{step})"
    stacked = list(zip(adapters, [item, *options.loras][-len(adapters) :], strict=True)) if adapters else []
    if weights is not None and weights.form == LORA:
        (_, weight), _ = stacked.pop(0)
        text += f" × {weight:g}" if item.stated else ""
    return text + "".join(f"\n+ {shown(Path(lora.name).name)} × {weight:g}" for (lora, weight), _ in stacked)
