"""What another's training script says of itself, and the images it shall train on. Needs no torch.

Its arguments are read by the flags of conf/launch/script.yaml, the ones by which a sweep tells them.
"""

from argparse import Namespace
from collections.abc import Mapping, Sequence
import json
import math
import os
from pathlib import Path
from typing import Any

from conf.compose import compose_node
from conf.errors import RequestError
from conf.quoting import override
from conf.schema import Config, Optimizer
from curves.run_folder import write_atomically
from finetune.images import Example

OVERRIDES = "STEPBUDGET_OVERRIDES"  # of a trial, a JSON list, set by the supervisor
REQUIRED = ("base_model.path", "dataset.path", "budget.max_steps", "run_dir")
SCHEDULE, WARMUP = "optimizer.schedule", "optimizer.warmup_steps"
# What method.adapter makes of a run of which nobody says more.
METHODS = {"lora": "lora", "none": "text_to_image"}


def trial_overrides() -> list[str] | None:
    """What the supervisor wants of this trial; None outside of a sweep."""
    text = os.environ.get(OVERRIDES)
    return None if text is None else [str(item) for item in json.loads(text)]


def argument_overrides(
    arguments: Namespace, settings: Mapping[str, Any], seen: Mapping[str, Any]
) -> list[str]:
    """A script's arguments as overrides.

    Args:
        arguments: of the script; those that it does not have, or are None, are left to the configuration.
        settings: what no argument says, by key or group; they win.
        seen: of `check_seen`; it wins over the arguments.

    Raises:
        RequestError: an argument that a run cannot be without is not given.
    """
    method = METHODS[seen["method.adapter"]]
    chosen: dict[str, Any] = {
        "launch": "script",
        "base_model": "custom",
        "dataset": "folder",
        "method": method,
    }
    for key, flag in compose_node(["launch=script"]).launch.flags.items():
        value = getattr(arguments, flag.lstrip("-").replace("-", "_"), None)
        if value is not None:
            chosen[key] = value
        elif key in REQUIRED and key not in settings:
            raise RequestError(f"{key} is not known: give the script {flag}, or settings={{'{key}': ...}}")
    _name_schedule(chosen)
    chosen |= {key: value for key, value in seen.items() if key != "method.adapter"} | dict(settings)
    return [override(key, value) for key, value in chosen.items()]


def _name_schedule(chosen: dict[str, Any]) -> None:
    """diffusers calls `constant` what takes no notice of a warm-up."""
    if chosen.get(SCHEDULE) == "constant":
        chosen.pop(WARMUP, None)
    elif chosen.get(SCHEDULE) == "constant_with_warmup":
        chosen[SCHEDULE] = "constant"


def check_schedule(options: Optimizer, step: int, planned: float, found: float) -> None:
    """Refuse a record that would tell of another schedule than the script's.

    Args:
        options: of the configuration.
        step: updates so far.
        planned, found: the sum of their learning rates, as configured and as the script had them.

    Raises:
        RequestError: they are further apart than updates that half precision skips, or a warm-up that starts at zero.
    """
    if abs(found - planned) > (5 + 0.01 * step) * options.lr:
        raise RequestError(
            f"{SCHEDULE}={options.schedule} {WARMUP}={options.warmup_steps}: by it the learning rates of the first "
            f"{step} steps add up to {planned:.3g}, the script's to {found:.3g}: give both the same schedule"
        )


def check_seen(config: Config, seen: Mapping[str, Any]) -> None:
    """Refuse a configuration that says otherwise than the script's own objects do.

    Args:
        config: of the run.
        seen: what its optimizer, its accelerator and its adapter are, by key.

    Raises:
        RequestError: naming the key and what the script has.
    """
    for key, found in seen.items():
        group, name = key.split(".")
        wanted = getattr(getattr(config, group), name)
        same = math.isclose(wanted, found, rel_tol=1e-6) if isinstance(found, float) else wanted == found
        if not same:
            raise RequestError(
                f"{key}={wanted}: the script has {found}: let the sweep tell it by a flag (launch.flags), "
                f"or give both the same value"
            )


def write_training_folder(folder: Path, examples: Sequence[Example], captions: bool) -> Path:
    """Links to images, and their captions in metadata.jsonl as Hugging Face's imagefolder reads them (column text).

    Args:
        folder: to fill; what an earlier life of the run has left there is replaced.
        examples: to link.
        captions: whether to write them; without, the folder holds images alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        left.unlink()
    rows = []
    for index, example in enumerate(examples):
        name = f"{index:05d}{example.path.suffix}"
        (folder / name).symlink_to(example.path.resolve())
        rows.append(json.dumps({"file_name": name, "text": example.caption}, ensure_ascii=False) + "\n")
    if captions:
        write_atomically(folder / "metadata.jsonl", "".join(rows))
    return folder
