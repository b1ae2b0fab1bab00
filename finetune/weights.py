"""What a command line names: a run's weights, an adapter, trained networks, or a whole model. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
import yaml

from conf.compose import CONF_DIR, options
from conf.errors import RequestError
from conf.inputs import project_path
from conf.schema import BaseModel
from curves.run_folder import RunFolder, read_json
from finetune.base_files import BaseFiles, find_base
from finetune.families.files import FAMILIES
from finetune.names import shown

WHICH = ("recommended", "best", "last")
LORA, NETWORKS, FOLDER, SINGLE_FILE = "lora", "networks", "folder", "single_file"
DENOISERS = ("unet", "transformer")
MARKS = {  # in the names of an adapter's tensors, and the family that alone has them
    "transformer.": "sd3",
    "lora_transformer_": "sd3",
    "text_encoder_2.": "sdxl",
    "lora_te2_": "sdxl",
    "lora_unet_input_blocks_": "sdxl",
    "lora_te_": "sd",
}
ARCHITECTURES = {  # how modelspec.architecture starts
    "stable-diffusion-v1": "sd",
    "stable-diffusion-v2": "sd",
    "stable-diffusion-xl": "sdxl",
    "stable-diffusion-3": "sd3",
}


@dataclass(frozen=True)
class Weights:
    """Weights on disk.

    Attributes:
        name: as it was given.
        path: of the file or folder.
        form: lora (an adapter's file), networks (a folder of trained networks), folder (a whole pipeline) or
            single_file (a whole model).
        which: recommended, best or last of a run; empty where the weights themselves were named.
        base: the model that they belong to; None where nothing says, or where they are a whole model.
        pixels: side of the training images; None where nothing says.
        zero_terminal_snr: whether they were trained on pure noise at the last timestep.
        facts: what the file says of itself.
        tensors: names of an adapter's tensors.
    """

    name: str
    path: Path
    form: str
    which: str = ""
    base: BaseModel | None = None
    pixels: int | None = None
    zero_terminal_snr: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether they are a whole model."""
        return self.form in (FOLDER, SINGLE_FILE)

    def family(self) -> str | None:
        """The family that an adapter says it is for, or that only has such names; None where it cannot be told."""
        stated = self.facts.get("modelspec.architecture", "")
        for start, family in ARCHITECTURES.items():
            if stated.startswith(start):
                return family
        return next(
            (family for mark, family in MARKS.items() if any(name.startswith(mark) for name in self.tensors)),
            None,
        )


def find_weights(key: str, name: str, which: str | None = None) -> Weights:
    """Find weights, and read what is known of them.

    Args:
        key: of the command line, for messages.
        name: a run folder, a .safetensors file, or a folder of networks or of a whole pipeline.
        which: recommended, best or last of a run; None takes the first of them that there is.

    Raises:
        RequestError: there are none, or they cannot be read.
    """
    given = f"{key}={shown(name)}"
    try:
        path = project_path(name)
        path.stat()
    except (OSError, ValueError) as error:
        raise RequestError(
            f"{given}: no such file or folder; give a run folder or a .safetensors file"
        ) from error
    run = RunFolder(path) if (path / "config.yaml").is_file() else None
    chosen = ""
    if run is not None:
        chosen, path = _weights_of(run, given, which)
    elif which is not None:
        raise RequestError(f"--which={which}: has no use here, {shown(name)} is no run folder")
    elif (path.parent / "config.yaml").is_file():
        run = RunFolder(path.parent)
    form, facts, tensors = _look(path, given)
    known = _of_run(run, given) if run is not None and form in (LORA, NETWORKS) else _of_facts(facts)
    return Weights(name, path, form, chosen, facts=facts, tensors=tensors, **known)


def find_base_of(weights: Weights, key: str, base: str | None, config: str | None, cache: Path) -> BaseFiles:
    """The whole model that weights are, or belong to.

    Args:
        weights: of `find_weights`.
        key: that they were given by, for messages.
        base: what --base names, which wins over what the weights say; None where it is not given.
        config: what --config names.
        cache: folder of single files' conversions.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    if weights.whole:
        model = BaseModel(path=str(weights.path), config=config)
        return _find(f"{key}={shown(weights.name)}", model, cache, "")
    if base is not None:
        return named_base(base, config, cache)
    if weights.base is None:
        raise RequestError(
            f"{key}={shown(weights.name)}: does not say which model it was trained on; name it with --base"
        )
    return _find(
        f"{key}={shown(weights.name)}: its base model {weights.base.path}",
        weights.base,
        cache,
        ", or name another with --base",
    )


def check_family(weights: Weights, base: BaseFiles) -> None:
    """Refuse an adapter that says it is for another family of models.

    Raises:
        RequestError: it does.
    """
    family = weights.family()
    if family not in (None, base.family.name):
        titles = {files.name: files.title for files in FAMILIES}
        raise RequestError(
            f"{shown(weights.name)}: is an adapter of {titles[str(family)]}, while the base model is a "
            f"{base.family.title}; name the model it was trained on with --base"
        )


def named_base(name: str, config: str | None, cache: Path) -> BaseFiles:
    """The model that --base names: an option of base_model, a folder, a hub id or a single file.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    known = [option for option in options("base_model") if option != "custom"]
    path = name
    if name in known:
        path = yaml.safe_load((CONF_DIR / "base_model" / f"{name}.yaml").read_text(encoding="utf-8"))["path"]
    elif not project_path(name).exists() and "/" not in name:
        raise RequestError(
            f"--base={shown(name)}: no such model; choose one of {', '.join(known)}, or give a folder in diffusers' "
            f"layout, a hub id or a .safetensors file"
        )
    return _find(f"--base={shown(name)}", BaseModel(path=path, config=config), cache, "")


def _find(given: str, model: BaseModel, cache: Path, remedy: str) -> BaseFiles:
    """find_base, whose complaints then name what the user has given."""
    try:
        return find_base(model.path, cache, model)
    except RequestError as error:
        text = (
            str(error)
            .removeprefix(f"base_model.path={model.path}: ")
            .replace("base_model.config", "--config")
        )
        raise RequestError(f"{given}: {text}{remedy}") from error


def _weights_of(run: RunFolder, given: str, which: str | None) -> tuple[str, Path]:
    """Which weights of a run, and where they are."""
    for kind in WHICH if which is None else (which,):
        for path in (run.adapter(kind), run.adapter(kind, "kohya"), run.model(kind)):
            if path.exists():
                return kind, path
    outcome = run.outcome()
    state = "it has not ended" if outcome is None else f"it ended as {outcome}"
    there = [kind for kind in WHICH if run.adapter(kind).exists() or run.model(kind).exists()]
    remedy = f"it has {', '.join(there)}" if there else "give a run that has ended well, or a weight file"
    raise RequestError(f"{given}: this run has no {which or 'weights'} ({state}); {remedy}")


def _look(path: Path, given: str) -> tuple[str, dict[str, str], tuple[str, ...]]:
    """Form, facts and, of an adapter, tensor names."""
    if path.is_dir():
        if (path / "model_index.json").is_file():
            return FOLDER, {}, ()
        if any((path / part).is_dir() for part in DENOISERS):
            return NETWORKS, _read_facts(path / "stepbudget.json", given), ()
        raise RequestError(
            f"{given}: holds no run (config.yaml), no trained networks (unet/ or transformer/) and no model "
            f"(model_index.json)"
        )
    if path.suffix != ".safetensors":
        raise RequestError(f"{given}: is no .safetensors file; give one, or a run folder")
    try:
        with safe_open(path, framework="np") as opened:
            names, metadata = tuple(opened.keys()), dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise RequestError(f"{given}: cannot be read ({reason}); copy or download it again") from error
    adapter = any("lora" in name for name in names)
    return (LORA, metadata, names) if adapter else (SINGLE_FILE, metadata, ())


def _read_facts(file: Path, given: str) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        return {key: str(value) for key, value in json.loads(file.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        raise RequestError(f"{given}: {file.name} cannot be read ({error})") from error


def _of_run(run: RunFolder, given: str) -> dict[str, Any]:
    """What the run's own record says of its weights."""
    try:
        config = yaml.safe_load(run.config.read_text(encoding="utf-8"))
        base = config["base_model"]
        keys = ("path", "config", "prediction", "allow_pickle")
        return {
            "base": BaseModel(**{key: base[key] for key in keys if key in base}),
            "pixels": int(read_json(run.run)["cell"]["resolution"]),
            "zero_terminal_snr": bool(config.get("loss", {}).get("zero_terminal_snr", False)),
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RequestError(
            f"{given}: the run's config.yaml or run.json is damaged ({reason}); give the weights' file from another "
            f"folder, with --base"
        ) from error


def _of_facts(facts: Mapping[str, str]) -> dict[str, Any]:
    base, pixels = facts.get("base_model"), facts.get("resolution", "")
    return {
        "base": None if base is None else BaseModel(path=base),
        "pixels": int(pixels) if pixels.isdecimal() else None,
    }
