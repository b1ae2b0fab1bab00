"""What is known of an imported run: from the hyperparameters in its log, and from `--set KEY=VALUE`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import difflib
import math
import re
from typing import Any

from analysis.importing.log import MOST_STEPS
from conf.errors import RequestError


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _steps(text: str) -> int:
    if int(text) > MOST_STEPS:
        raise ValueError
    return _count(text)


def _images(text: str) -> int:
    return _count(text.removeprefix("n"))


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError
    return value


def _seed(text: str) -> int:
    return int(text)


def _name(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text.strip()


# Key: how its text is read, and what it takes.
KEYS: dict[str, tuple[Callable[[str], Any], str]] = {
    "dataset": (_name, "a name for the images and captions"),
    "dataset_size": (_images, "number of training images, 20 or n20"),
    "resolution": (_count, "pixels"),
    "method": (_name, "lora, dreambooth, text_to_image, ..."),
    "base_model": (_name, "a name for the base model's weights"),
    "captions": (_name, "a name for the captions, where one folder has several"),
    "panel": (_name, "a name for what the held-out loss is measured on: images, timesteps and noise"),
    "base_loss": (_positive, "held-out loss of the untouched base model, for logs without step 0"),
    "lr": (_positive, "peak learning rate"),
    "batch": (_count, "images an optimizer update, over all processes"),
    "rank": (_count, "of the adapter"),
    "seed": (_seed, "of the run"),
    "schedule": (_name, "constant, cosine, linear, ..."),
    "optimizer": (_name, "its name"),
    "horizon": (_steps, "steps that the learning-rate schedule spans"),
}
# Names that trainers give to a value in their configuration, the preferred one first.
_LOGGED = {
    "lr": ("lr", "unet_lr", "learning_rate"),
    "base_model": ("base_model", "pretrained_model_name_or_path", "base_model_name"),
    "resolution": ("resolution",),
    "rank": ("rank", "lora_rank", "network_dim"),
    "seed": ("seed",),
    "schedule": ("schedule", "lr_scheduler"),
    "optimizer": ("optimizer", "optimizer_type"),
    "horizon": ("horizon", "max_train_steps"),
    "method": ("method",),
    "dataset": ("dataset",),
    "dataset_size": ("dataset_size", "images"),
    "captions": ("captions",),
    "panel": ("panel",),
    "base_loss": ("base_loss",),
    "batch": ("batch",),
}
ACCUMULATION = ("gradient_accumulation_steps", "steps_per_update")


def parse_settings(texts: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` texts as values.

    Raises:
        RequestError: an unknown key, or a value that it does not take.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key not in KEYS:
            near = difflib.get_close_matches(key, list(KEYS), n=1)
            meant = f"; meant: {near[0]}" if equals and near else ""
            raise RequestError(
                f"--set {text}: give a key and its value, as dataset=cats{meant}. Keys: {', '.join(KEYS)}"
            )
        read, takes = KEYS[key]
        try:
            settings[key] = read(value)
        except ValueError as error:
            raise RequestError(f"--set {text}: {key} takes {takes}") from error
    return settings


def logged_settings(logged: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration in a log says, in our words; a value that cannot be read is as if it were not there."""
    found: dict[str, Any] = {}
    for key, names in _LOGGED.items():
        for name in names:
            value = _read(key, logged.get(name))
            if value is not None:
                found[key] = value
                break
    if "method" not in found and (method := _method(logged)):
        found["method"] = method
    return found


def logged_accumulation(logged: Mapping[str, Any]) -> int | None:
    """Micro-steps an update as the log's configuration has it; None where it has none."""
    for name in ACCUMULATION:
        try:
            return _count(_plain(logged[name]))
        except (KeyError, ValueError, TypeError):
            continue
    return None


def _method(logged: Mapping[str, Any]) -> str | None:
    """What sd-scripts and SimpleTuner call it."""
    if "lora" in str(logged.get("network_module") or "").lower():
        return "lora"
    kinds = {"lora": "lora", "full": "text_to_image"}
    return kinds.get(str(logged.get("model_type") or "").lower())


def _read(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | list | dict):
        return None
    try:
        text = _plain(value)
        if key == "resolution":
            text = _side(text)
        return KEYS[key][0](text)
    except ValueError:
        return None


def _plain(value: Any) -> str:
    """A whole number that was stored as a float without its point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return "" if str(value).lower() in ("none", "nan", "null") else str(value)


def _side(text: str) -> str:
    """512, and 512,512 or 512x512 for the same; other shapes, and megapixels, are no one number of pixels."""
    sides = set(re.split(r"\s*[,x]\s*", text.strip("()[] ")))
    side = sides.pop() if len(sides) == 1 else ""
    if not side.isdigit() or int(side) < 16:
        raise ValueError(text)
    return side
