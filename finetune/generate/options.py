"""What `python -m finetune.generate` was asked to do."""

from dataclasses import dataclass
import math
from pathlib import Path

from conf.compose import PROJECT_ROOT
from conf.errors import RequestError
from conf.inputs import project_path
from conf.schema import Config
from finetune.names import is_text, shown

BASE = "base"  # names the untouched base model among the columns
DEFAULT_CACHE = PROJECT_ROOT / Path(Config.cache_dir)
MOST_PIXELS = 4096


@dataclass(frozen=True)
class Weighted:
    """An argument FILE, or FILE:WEIGHT,WEIGHT: each weight makes a column of its own."""

    name: str
    weights: tuple[float, ...] = (1.0,)
    stated: bool = False  # whether weights were given


@dataclass(frozen=True)
class Options:
    """The request.

    Attributes:
        columns: run folders, weights, or the word base.
        prompts, seeds: of the rows.
        to: the grid, a PNG file.
        images: folder of the single images.
        loras: adapters that are stacked on every column.
        base: name, folder, hub id or file of the base model; None takes that of the runs.
        config: folder or hub id with the configuration of single files.
        negative: what images should not show.
        steps: of denoising.
        guidance: scale of classifier-free guidance.
        size: side in pixels; None takes that of the training images.
        device: auto, cpu, cuda.
        cache: folder of conversions and hashes.
    """

    columns: tuple[Weighted, ...]
    prompts: tuple[str, ...]
    to: Path
    images: Path
    seeds: tuple[int, ...] = (0,)
    loras: tuple[Weighted, ...] = ()
    base: str | None = None
    config: str | None = None
    negative: str = ""
    steps: int = 30
    guidance: float = 7.5
    size: int | None = None
    device: str = "auto"
    cache: Path = DEFAULT_CACHE

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read or written.

        Raises:
            RequestError: names the option, its value and the remedy.
        """
        if self.to.suffix != ".png":
            raise RequestError(f"--to={shown(self.to)}: is no PNG file; name one such as grid.png")
        if self.to.is_dir():
            raise RequestError(f"--to={shown(self.to)}: is a folder; name a file in it")
        if self.images.exists() and not self.images.is_dir():
            raise RequestError(f"--images={shown(self.images)}: is a file; name a folder")
        for name, texts in (("--prompts", self.prompts), ("--negative", (self.negative,))):
            for text in texts:
                if not is_text(text):
                    raise RequestError(f"{name}={text!a}: is not UTF-8")
        for seed in self.seeds:
            if not 0 <= seed < 2**63:
                raise RequestError(f"--seeds={seed}: must lie in [0, 2^63)")
        if not 1 <= self.steps <= 1000:
            raise RequestError(f"--steps={self.steps}: must be 1 to 1000, such as 30")
        if not 0 <= self.guidance < math.inf:
            raise RequestError(f"--guidance={self.guidance}: must be 0 or more, such as 7.5; 1 is without")
        if self.size is not None and not 8 <= self.size <= MOST_PIXELS:
            raise RequestError(f"--size={self.size}: must be 8 to {MOST_PIXELS} pixels, such as 512")


def parse_weighted(key: str, text: str) -> Weighted:
    """FILE, FILE:0.8 or FILE:0.4,0.8; a colon that belongs to a file's name stays in it.

    Args:
        key: of the command line, for messages.
        text: as given.

    Raises:
        RequestError: a weight is no number.
    """
    name, colon, tail = text.rpartition(":")
    if not colon or not name or _exists(text):
        return Weighted(text)
    try:
        weights = tuple(float(part) for part in tail.split(","))
    except ValueError:
        weights = (math.nan,)
    if not all(map(math.isfinite, weights)):
        raise RequestError(
            f"{key}={shown(text)}: {shown(tail)} is no weight; give a number such as 0.8, or several: 0.4,0.8"
        )
    return Weighted(name, weights, stated=True)


def _exists(path: str) -> bool:
    try:
        return project_path(path).exists()
    except OSError:  # the name is too long for a file's
        return False
