"""The base model as files: a folder in diffusers' layout, or a hub id. No torch."""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from conf.errors import RequestError
from conf.inputs import may_be_hub_id, project_path
from conf.schema import BaseModel
from finetune.families.files import SDXL, TITLES, FamilyFiles, family_of, tokenizer_of
from finetune.paths import hash_file, hash_texts, remembered_hash

PARTS = ("unet", "transformer", "vae", "text_encoder*", "tokenizer*", "scheduler")
PATTERNS = ["model_index.json", *(f"{part}/*" for part in PARTS)]
SINGLE_FILES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
UNWANTED = ["*.bin", "*.ckpt", "*.msgpack", "*fp16*", "*non_ema*", "*.onnx*", "*.pb"]


@dataclass(frozen=True)
class BaseFiles:
    """Where a base model lies and what its configuration says.

    Attributes:
        path: folder in diffusers' layout.
        family: what kind of model it is.
        text_encoders: those of the family's that it has.
        empty_is_zero: whether no caption is zeros instead of the embedding of an empty text (SDXL).
        base_id: hash of the content of weights and configurations, 16 hex digits.
        multiple: of which both sides of an image are, in pixels.
        native_pixels: side of the images that the model was trained at.
    """

    path: Path
    family: FamilyFiles
    text_encoders: tuple[str, ...]
    empty_is_zero: bool
    base_id: str
    multiple: int
    native_pixels: int


def find_base(path: str, cache_dir: Path, options: BaseModel | None = None) -> BaseFiles:
    """Find a base model, download it where it is a hub id, convert it where it is a single file; read its identity.

    Args:
        path: folder in diffusers' layout, hub id, or single file.
        cache_dir: of the configuration.
        options: of how a single file is read.

    Raises:
        RequestError: there is none, it is damaged, or it is of no family that can be trained.
    """
    folder = project_path(path)
    if folder.is_file():
        folder = _from_single_file(folder, options or BaseModel(path=path), cache_dir)
    elif not folder.is_dir():
        folder = _from_hub(path, folder)
    index = _read_index(path, folder)
    family = _family(path, index)
    encoders = _text_encoders(path, folder, family, index)
    denoiser, vae = (_read_json(path, folder / part / "config.json") for part in (family.denoiser, "vae"))
    _read_json(path, folder / "scheduler" / "scheduler_config.json")
    try:
        factor = int(2 ** (len(vae["block_out_channels"]) - 1))
        native = int(denoiser["sample_size"]) * factor
        channels, latent = int(denoiser["in_channels"]), int(vae.get("latent_channels", 4))
        patch = int(denoiser.get("patch_size") or 1)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"the configuration of {family.denoiser} or vae lacks {error}") from error
    if channels != latent:
        raise RequestError(
            f"base_model.path={path}: its {family.denoiser} takes {channels} channels where the latent has {latent} "
            f"(an inpainting, depth or upscaling model); give a text-to-image model"
        )
    return BaseFiles(
        path=folder,
        family=family,
        text_encoders=encoders,
        empty_is_zero=bool(index.get("force_zeros_for_empty_prompt", family is SDXL)),
        base_id=_identity(path, folder, (family.denoiser, "vae", *encoders), cache_dir),
        multiple=factor * patch,
        native_pixels=native,
    )


def check_pixels(base: BaseFiles, pixels: int) -> None:
    """Check that the base model takes images of that side.

    Raises:
        RequestError: the side is not a multiple of what the VAE, and a transformer's patches, need.
    """
    if pixels % base.multiple:
        near = max(1, round(pixels / base.multiple)) * base.multiple
        raise RequestError(
            f"resolution.pixels={pixels}: this base model needs a multiple of {base.multiple}, "
            f"for example {near}"
        )


def _from_single_file(file: Path, options: BaseModel, cache_dir: Path) -> Path:
    """The folder that a single file is converted to, once; imported here, since reading weights needs torch."""
    if file.suffix.lower() not in SINGLE_FILES:
        raise RequestError(
            f"base_model.path={options.path}: is a file of another kind; give a folder in diffusers' layout, a hub id, "
            f"or a model in one {SINGLE_FILES[0]} file"
        )
    from finetune.quiet import be_quiet

    be_quiet()
    from finetune.single_file import to_folder

    return to_folder(file, options.config, cache_dir, options.allow_pickle, options.prediction)


def _from_hub(name: str, folder: Path) -> Path:
    """The folder of a hub snapshot; with HF_HUB_OFFLINE=1 only what was downloaded before."""
    if not may_be_hub_id(name):
        problem = "is neither a folder nor a file" if folder.exists() else "no such folder or file"
        raise RequestError(
            f"base_model.path={name}: {problem}; give a folder in diffusers' layout or a hub id"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=PATTERNS, ignore_patterns=UNWANTED))
    except (
        Exception
    ) as error:  # every transport has errors of its own; all mean that the model is not to be had
        raise RequestError(
            f"base_model.path={name}: not available from the model hub ({_one_line(error)}); "
            f"download it while online, "
            f"or give a local folder in diffusers' layout"
        ) from error


def _read_index(name: str, folder: Path) -> dict[str, Any]:
    """model_index.json of a folder in diffusers' layout."""
    if not (folder / "model_index.json").is_file():
        raise RequestError(
            f"base_model.path={name}: {folder} holds no model_index.json; give a folder in diffusers' layout"
        )
    return _read_json(name, folder / "model_index.json")


def _family(name: str, index: dict[str, Any]) -> FamilyFiles:
    kind = str(index.get("_class_name"))
    family = family_of(kind)
    if family is None:
        raise RequestError(f"base_model.path={name}: holds a {kind}; {TITLES} can be fine-tuned")
    return family


def _text_encoders(name: str, folder: Path, family: FamilyFiles, index: dict[str, Any]) -> tuple[str, ...]:
    """The text encoders that a pipeline has; every other folder of its family is there."""
    absent = [part for part in family.text_encoders if index.get(part, [None])[0] is None]
    if needed := [part for part in absent if part not in family.optional and part in index]:
        raise RequestError(
            f"base_model.path={name}: has no {needed[0]} (a refiner?); give a text-to-image model of {family.title}"
        )
    encoders = tuple(
        part for part in family.text_encoders if part not in absent or part not in family.optional
    )
    parts = [family.denoiser, "vae", *encoders, *(tokenizer_of(part) for part in encoders), "scheduler"]
    missing = [part for part in parts if not (folder / part).is_dir()]
    if missing:
        raise _damaged(name, f"{', '.join(missing)} is missing")
    return encoders


def _identity(name: str, folder: Path, weighty: tuple[str, ...], cache_dir: Path) -> str:
    """Hash of every weight and configuration file; large files are read once and remembered."""
    parts: list[str] = []
    for part in weighty:
        weights = weight_files(folder / part)
        if not weights:
            raise RequestError(
                f"base_model.path={name}: {part} holds no full-precision .safetensors weights; convert it with "
                f"diffusers' save_pretrained, or give another copy of the model"
            )
        parts += [f"{part} {remembered_hash(file, cache_dir, 'file', hash_file)}" for file in weights]
    read = {*weighty, *(tokenizer_of(part) for part in weighty), "scheduler"}
    for file in sorted(folder.glob("*/*.json")) + sorted(folder.glob("tokenizer*/*.[tm]*")):
        if file.parent.name in read:
            parts.append(f"{file.parent.name}/{file.name} {hash_file(file)}")
    return hash_texts(*parts)[:16]


def weight_files(folder: Path) -> list[Path]:
    """The full-precision safetensors files of one part of a pipeline, without variants such as fp16."""
    files = sorted(folder.glob("*.safetensors"))
    return [file for file in files if not any(word in file.name for word in ("fp16", "non_ema"))]


def _read_json(name: str, file: Path) -> dict[str, Any]:
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _damaged(name, f"{file.parent.name}/{file.name} cannot be read: {_one_line(error)}") from error
    if not isinstance(record, dict):
        raise _damaged(name, f"{file.parent.name}/{file.name} is no JSON object")
    return record


def _damaged(name: str, problem: str) -> RequestError:
    return RequestError(
        f"base_model.path={name}: the base model is damaged: {problem}; download or copy it again"
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__
