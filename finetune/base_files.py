"""The base model as files: a Stable Diffusion 1 or 2 folder in diffusers' layout, or a hub id. No torch."""

from dataclasses import dataclass
import json
from pathlib import Path
from typing import Any

from conf.errors import RequestError
from conf.inputs import may_be_hub_id, project_path
from finetune.paths import hash_file, hash_texts, remembered_hash

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
WEIGHTS = ("unet", "vae", "text_encoder")
PATTERNS = ["model_index.json", *(f"{part}/*" for part in PARTS)]
UNWANTED = ["*.bin", "*.ckpt", "*.msgpack", "*fp16*", "*non_ema*", "*.onnx*", "*.pb"]


@dataclass(frozen=True)
class BaseFiles:
    """Where a base model lies and what its configuration says.

    Attributes:
        path: folder in diffusers' layout.
        base_id: hash of the content of weights and configurations, 16 hex digits.
        vae_factor: image pixels per latent pixel, along a side.
        native_pixels: side of the images that the UNet was trained at.
    """

    path: Path
    base_id: str
    vae_factor: int
    native_pixels: int


def find_base(path: str, cache_dir: Path) -> BaseFiles:
    """Find a base model, download it where it is a hub id, and read its identity.

    Raises:
        RequestError: there is none, it is damaged, or it is no Stable Diffusion 1 or 2.
    """
    folder = project_path(path)
    if not folder.is_dir():
        folder = _from_hub(path, folder)
    _check_kind(path, folder)
    unet, vae = (_read_json(path, folder / part / "config.json") for part in ("unet", "vae"))
    _read_json(path, folder / "scheduler" / "scheduler_config.json")
    try:
        factor = int(2 ** (len(vae["block_out_channels"]) - 1))
        native = int(unet["sample_size"]) * factor
        channels, latent = int(unet["in_channels"]), int(vae.get("latent_channels", 4))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"the configuration of unet or vae lacks {error}") from error
    if channels != latent:
        raise RequestError(
            f"base_model.path={path}: its UNet takes {channels} channels where the latent has {latent} (an inpainting, "
            f"depth or upscaling model); give a text-to-image model"
        )
    return BaseFiles(folder, _identity(path, folder, cache_dir), factor, native)


def check_pixels(base: BaseFiles, pixels: int) -> None:
    """Check that the VAE can encode images of that side.

    Raises:
        RequestError: the side is not a multiple of the VAE's factor.
    """
    if pixels % base.vae_factor:
        near = max(1, round(pixels / base.vae_factor)) * base.vae_factor
        raise RequestError(
            f"resolution.pixels={pixels}: this base model needs a multiple of {base.vae_factor}, "
            f"for example {near}"
        )


def _from_hub(name: str, folder: Path) -> Path:
    """The folder of a hub snapshot; with HF_HUB_OFFLINE=1 only what was downloaded before."""
    if not may_be_hub_id(name):
        problem = "is not a folder" if folder.exists() else "no such folder"
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


def _check_kind(name: str, folder: Path) -> None:
    """Refuse folders that are no diffusers pipeline, or one of another family."""
    if not (folder / "model_index.json").is_file():
        raise RequestError(
            f"base_model.path={name}: {folder} holds no model_index.json; give a folder in diffusers' layout"
        )
    kind = str(_read_json(name, folder / "model_index.json").get("_class_name"))
    if not kind.startswith("StableDiffusion") or "XL" in kind or kind.startswith("StableDiffusion3"):
        raise RequestError(
            f"base_model.path={name}: holds a {kind}; Stable Diffusion 1 and 2 can be fine-tuned"
        )
    missing = [part for part in PARTS if not (folder / part).is_dir()]
    if missing:
        raise _damaged(name, f"{', '.join(missing)} is missing")


def _identity(name: str, folder: Path, cache_dir: Path) -> str:
    """Hash of every weight and configuration file; large files are read once and remembered."""
    parts: list[str] = []
    for part in WEIGHTS:
        weights = weight_files(folder / part)
        if not weights:
            raise RequestError(
                f"base_model.path={name}: {part} holds no full-precision .safetensors weights; convert it with "
                f"diffusers' save_pretrained, or give another copy of the model"
            )
        parts += [f"{part} {remembered_hash(file, cache_dir, 'file', hash_file)}" for file in weights]
    for file in sorted(folder.glob("*/*.json")) + sorted(folder.glob("tokenizer/*.txt")):
        if file.parent.name in PARTS:
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
