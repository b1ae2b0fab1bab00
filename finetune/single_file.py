"""A base model as one file in the original layout, as civitai serves it, becomes a folder in diffusers' layout once."""

from collections.abc import Iterator
import contextlib
import json
from pathlib import Path
import pickle
import shutil
from typing import Any
import uuid

import diffusers
from diffusers.loaders.single_file_utils import (
    DIFFUSERS_DEFAULT_PIPELINE_PATHS,
    infer_diffusers_model_type,
)
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
import torch
from torch import Tensor

from conf.errors import RequestError
from conf.inputs import may_be_hub_id, project_path
from finetune.checkpoint_kind import Kind, Shapes, recognize
from finetune.paths import hash_file, hash_texts, remembered_hash

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
SUFFIXES = (".safetensors", *PICKLES)
PREDICTIONS = ("epsilon", "v_prediction")
CONFIG_FILES = ["*.json", "*.txt", "**/*.json", "**/*.txt", "**/*.model"]
PRECISIONS = {  # of weights; whatever else a file holds is no weight
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def to_folder(
    file: Path, config: str | None, cache_dir: Path, allow_pickle: bool, prediction: str | None = None
) -> Path:
    """The folder in diffusers' layout that a single file becomes, below `cache_dir`; made once for each content.

    Args:
        file: of Stable Diffusion 1, 2, XL or 3 with its text encoders and autoencoder.
        config: folder or hub id of a pipeline of the same structure, of which only configurations and tokenizers are
            read; None takes the original model's from the hub (with HF_HUB_OFFLINE=1, from the hub's cache).
        cache_dir: of the configuration.
        allow_pickle: whether files other than .safetensors are read, of which only weights ever are.
        prediction: epsilon or v_prediction; None: what the file says, else the configuration.

    Raises:
        RequestError: the file is damaged, is something else, lacks a part, or there is no configuration for it.
    """
    _check_request(file, allow_pickle, prediction)
    content = remembered_hash(file, cache_dir, "file", hash_file)
    target = cache_dir / "converted" / hash_texts("1", content, _config_id(config), str(prediction))[:16]
    if target.is_dir():
        return target
    with _work_folder(target) as work:
        readable = (
            file if file.suffix == ".safetensors" else _without_pickle(file, work / "weights.safetensors")
        )
        _convert(file, readable, config, prediction, work / "pipeline")
        try:
            (work / "pipeline").rename(target)
        except OSError:
            if not target.is_dir():  # where it is, another process has made the same meanwhile
                raise
    return target


def _convert(file: Path, readable: Path, config: str | None, prediction: str | None, folder: Path) -> None:
    """Write the folder of a file whose weights are in `readable`."""
    shapes, metadata = _read_header(file, readable)
    kind = recognize(file, shapes)
    prediction = prediction or _stated_prediction(shapes, metadata)
    if kind.name == "sd3" and prediction is not None:
        raise RequestError(
            f"base_model.prediction={prediction}: {kind.title} predicts a flow; set it to null"
        )
    source = _config_folder(file, kind, config, prediction, shapes)
    pipeline = _load(file, readable, kind, source, shapes)
    pipeline.save_pretrained(folder)
    if prediction is not None:
        _set_prediction(folder / "scheduler" / "scheduler_config.json", prediction, "ztsnr" in shapes)


def _check_request(file: Path, allow_pickle: bool, prediction: str | None) -> None:
    if prediction not in (None, *PREDICTIONS):
        choices = ", ".join((*PREDICTIONS, "null"))
        raise RequestError(f"base_model.prediction={prediction}: no such prediction; choose one of {choices}")
    if file.suffix not in SUFFIXES:
        raise RequestError(f"base_model.path={file}: give a .safetensors file, a folder or a hub id")
    if file.suffix in PICKLES and not allow_pickle:
        raise RequestError(
            f"base_model.path={file}: a {file.suffix} file is a pickle, which can run any program when it is "
            f"read; give a .safetensors file, or set base_model.allow_pickle=true to have only its weights read"
        )


def _without_pickle(file: Path, target: Path) -> Path:
    """Copy the weights of a pickled checkpoint into a .safetensors file; nothing else in it is ever unpickled."""
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise RequestError(
            f"base_model.path={file}: cannot be read as weights only ({_one_line(error)}), and nothing else is "
            f"read of a pickle; have the program it came from save it as .safetensors"
        ) from error
    except Exception as error:  # torch, zipfile and pickle have errors of their own
        raise _damaged(file, _one_line(error)) from error
    while isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise _damaged(file, f"it holds a {type(content).__name__} where weights by name are expected")
    weights = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    save_file({name: value.clone().contiguous() for name, value in weights.items()}, target)
    return target


def _read_header(file: Path, readable: Path) -> tuple[Shapes, dict[str, str]]:
    """Tensors without memory, and the metadata, of a file."""
    try:
        with safe_open(readable, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise _damaged(file, _one_line(error)) from error
    return {name: _without_memory(part) for name, part in slices.items()}, metadata


def _without_memory(part: Any) -> Tensor:
    """A tensor of the shape and precision of a slice of a file."""
    return torch.empty(part.get_shape(), dtype=PRECISIONS.get(part.get_dtype(), torch.int64), device="meta")


def _stated_prediction(shapes: Shapes, metadata: dict[str, str]) -> str | None:
    """The prediction type that a file states, by the mark that web UIs know or in its model specification."""
    if "v_pred" in shapes:
        return "v_prediction"
    stated = metadata.get("modelspec.prediction_type")
    return {"v": "v_prediction", "epsilon": "epsilon"}.get(stated or "")


def _config_id(config: str | None) -> str:
    """What identifies the configuration that is asked for: the content of a folder, else its name."""
    folder = None if config is None else project_path(config)
    if folder is None or not folder.is_dir():
        return str(config)
    files = sorted(file for pattern in CONFIG_FILES for file in folder.glob(pattern))
    return hash_texts(*(f"{file.relative_to(folder)} {hash_file(file)}" for file in files))


def _config_folder(
    file: Path, kind: Kind, config: str | None, prediction: str | None, shapes: Shapes
) -> Path:
    """A folder with the configurations for a file, fetched from the hub where it is none."""
    folder = None if config is None else project_path(config)
    if folder is None or not folder.is_dir():
        if config is not None and not may_be_hub_id(config):
            raise RequestError(
                f"base_model.config={config}: no such folder; give a folder in diffusers' layout or a hub id"
            )
        folder = _fetch(config or _original(file, kind, prediction, shapes), file, config)
    try:
        pipeline = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RequestError(
            f"base_model.config={config}: {folder} holds no readable model_index.json; give a folder in diffusers' layout"
        ) from error
    if pipeline != kind.pipeline:
        raise RequestError(
            f"base_model.config={config}: is of a {pipeline}, where {file} is a {kind.title}; "
            f"give the folder or hub id of a {kind.pipeline}"
        )
    return folder


def _original(file: Path, kind: Kind, prediction: str | None, shapes: Shapes) -> str:
    """The hub id of the model that a kind of file descends from."""
    repositories = {
        name: str(entry["pretrained_model_name_or_path"])
        for name, entry in DIFFUSERS_DEFAULT_PIPELINE_PATHS.items()
    }
    if kind.name == "sd2":
        if prediction is None:
            raise RequestError(
                f"base_model.path={file}: a {kind.title} does not say what it predicts; set "
                f"base_model.prediction=v_prediction (as those of 768 px) or epsilon (as those of 512 px)"
            )
        return repositories["v2"] + ("" if prediction == "v_prediction" else "-base")
    if kind.name == "sd3":
        inferred = infer_diffusers_model_type(shapes)
        return repositories[inferred if inferred.startswith("sd3") else "sd3"]
    return repositories["xl_base" if kind.name == "sdxl" else "v1"]


def _fetch(name: str, file: Path, config: str | None) -> Path:
    """The configurations of a hub snapshot; with HF_HUB_OFFLINE=1 only what was downloaded before."""
    try:
        return Path(snapshot_download(name, allow_patterns=CONFIG_FILES))
    except Exception as error:  # every transport has errors of its own
        given = "null" if config is None else config
        raise RequestError(
            f"base_model.config={given}: the configuration of {name}, which {file.name} needs, is not available "
            f"from the model hub ({_one_line(error)}); run once while online, or set base_model.config to a local "
            f"folder in diffusers' layout of the same structure"
        ) from error


def _load(file: Path, readable: Path, kind: Kind, source: Path, shapes: Shapes) -> Any:
    """The pipeline in memory, in the precision it is stored in."""
    absent: dict[str, None] = {"feature_extractor": None, "image_encoder": None}
    if kind.pipeline == "StableDiffusionPipeline":
        absent |= {"safety_checker": None}
    try:
        pipeline = getattr(diffusers, kind.pipeline).from_single_file(
            readable, config=str(source), local_files_only=True, torch_dtype=_precision(shapes), **absent
        )
    except NotImplementedError as error:  # of torch, about weights that were left without memory
        raise _unfit(file, source, "some weights are missing") from error
    except Exception as error:  # safetensors, json, torch and both libraries raise errors of their own
        raise _unfit(file, source, _one_line(error)) from error
    if kind.name == "sd3":
        t5 = pipeline.text_encoder_3
        t5.set_input_embeddings(t5.get_input_embeddings())  # its encoder's are the same; files hold them once
    for part, model in pipeline.components.items():
        if isinstance(model, torch.nn.Module):
            lacking = [name for name, value in model.named_parameters() if value.is_meta]
            if lacking:
                raise _unfit(file, source, f"{part} lacks {len(lacking)} weights, for example {lacking[0]}")
    return pipeline


def _precision(shapes: Shapes) -> torch.dtype:
    """The precision that all weights are stored in; of a mixture single precision, which loses nothing."""
    stored = {value.dtype for value in shapes.values() if value.is_floating_point() and value.numel()}
    return stored.pop() if len(stored) == 1 and stored <= {torch.float16, torch.bfloat16} else torch.float32


def _set_prediction(file: Path, prediction: str, zero_terminal_snr: bool) -> None:
    """Change what a schedule's configuration says is predicted."""
    record = json.loads(file.read_text(encoding="utf-8"))
    record["prediction_type"] = prediction
    if zero_terminal_snr:
        record |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _work_folder(target: Path) -> Iterator[Path]:
    """A folder beside `target`, on the same file system, that is gone afterwards."""
    work = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _damaged(file: Path, problem: str) -> RequestError:
    return RequestError(
        f"base_model.path={file}: the base model is damaged: {problem}; download or copy it again"
    )


def _unfit(file: Path, source: Path, problem: str) -> RequestError:
    return RequestError(
        f"base_model.path={file}: does not fit the configuration in {source} ({problem}); download or copy the file "
        f"again, or set base_model.config to a model of its structure"
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
