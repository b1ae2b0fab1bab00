"""What `python -m finetune.export` was asked to do."""

from dataclasses import dataclass
import math
from pathlib import Path

from conf.compose import PROJECT_ROOT
from conf.errors import RequestError
from conf.schema import Config
from finetune.names import shown
from finetune.weights import LORA, WHICH, Weights

DIFFUSERS, KOHYA, FOLDER, SINGLE_FILE = "diffusers", "kohya", "folder", "single_file"
ADAPTERS, MODELS = (DIFFUSERS, KOHYA), (FOLDER, SINGLE_FILE)
FORMATS = (*ADAPTERS, *MODELS)
DEFAULT_CACHE = PROJECT_ROOT / Path(Config.cache_dir)


@dataclass(frozen=True)
class Options:
    """The request.

    Attributes:
        source: run folder, weight file or folder.
        to: file or folder to write.
        form: diffusers, kohya (an adapter's keys), folder, single_file (a whole model); None goes by `to`.
        which: recommended, best or last of a run; None takes the first of them that there is.
        fuse: weight at which an adapter becomes part of its base model; None keeps it apart.
        base: name, folder, hub id or file of the base model; None takes that of the weights.
        config: folder or hub id with the configuration of single files.
        cache: folder of conversions and hashes.
    """

    source: str
    to: Path
    form: str | None = None
    which: str | None = None
    fuse: float | None = None
    base: str | None = None
    config: str | None = None
    cache: Path = DEFAULT_CACHE

    def check(self) -> None:
        """Refuse what cannot be done, before anything is read or written.

        Raises:
            RequestError: names the option, its value and the remedy.
        """
        if self.which not in (None, *WHICH):
            raise RequestError(f"--which={self.which}: must be one of {', '.join(WHICH)}")
        if self.to.exists():
            raise RequestError(f"--to={shown(self.to)}: is there already; name another, or remove it")
        if self.fuse is not None and (not math.isfinite(self.fuse) or self.fuse == 0):
            raise RequestError(f"--fuse={self.fuse:g}: must be a number other than 0, such as 1")

    def form_for(self, weights: Weights) -> str:
        """The format to write.

        Raises:
            RequestError: it does not go with the weights or with the name of the target.
        """
        adapter = weights.form == LORA and self.fuse is None
        file = self.to.suffix == ".safetensors"
        form = self.form or ((DIFFUSERS if adapter else SINGLE_FILE) if file else FOLDER)
        source = shown(weights.name)
        if self.fuse is not None and weights.form != LORA:
            raise RequestError(f"--fuse={self.fuse:g}: has no use here, {source} is no adapter; drop it")
        if form in ADAPTERS and not adapter:
            why = "--fuse makes a whole model" if weights.form == LORA else f"{source} is no adapter"
            raise RequestError(f"--format={form}: {why}; choose one of {', '.join(MODELS)}")
        if form in MODELS and adapter:
            raise RequestError(
                f"--format={form}: {source} is an adapter; add --fuse 1 to make it part of its base model, or choose "
                f"one of {', '.join(ADAPTERS)} with a .safetensors file in --to"
            )
        if file == (form == FOLDER):
            expected = "a folder, not a file" if form == FOLDER else "a file that ends in .safetensors"
            raise RequestError(f"--to={shown(self.to)}: --format={form} makes {expected}")
        return form
