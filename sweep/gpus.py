"""The GPUs that trials share out, found without torch."""

from collections.abc import Mapping
import os
import re
import shutil
import subprocess

from conf.errors import RequestError
from conf.schema import Config

_LISTED = re.compile(r"GPU (\d+): .*\(UUID: (\S+)\)")


def find_gpus(
    config: Config, environment: Mapping[str, str] = os.environ, installed: Mapping[str, str] | None = None
) -> list[str]:
    """Indices or UUIDs of GPUs: launch.gpus, else those that CUDA_VISIBLE_DEVICES names, else all that are installed.

    Args:
        installed: UUID by index; None: as nvidia-smi lists them.

    Raises:
        RequestError: one that is named is not there, or a GPU is asked for and there is none.
    """
    if config.device == "cpu":
        return []
    if installed is None:
        installed = list_gpus()
    visible = _named(environment)
    chosen = config.launch.gpus
    if chosen is not None:
        _refuse_unknown("launch.gpus", chosen, list(installed) if visible is None else visible, installed)
        return list(chosen)
    if visible is not None and installed:
        _refuse_unknown("CUDA_VISIBLE_DEVICES", visible, list(installed), installed)
    found = list(installed) if visible is None else visible
    if config.device == "cuda" and not found:
        raise RequestError(
            "device=cuda: no GPU is visible: look at what `nvidia-smi -L` lists and CUDA_VISIBLE_DEVICES names, "
            "or train on the CPU with device=cpu"
        )
    return found


def list_gpus() -> dict[str, str]:
    """UUID by index, as nvidia-smi lists them; nothing where it is not installed or fails."""
    if shutil.which("nvidia-smi") is None:
        return {}
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    lines = listing.stdout.splitlines() if listing.returncode == 0 else []
    return {match[1]: match[2] for line in lines if (match := _LISTED.match(line))}


def _named(environment: Mapping[str, str]) -> list[str] | None:
    """What CUDA_VISIBLE_DEVICES names; None where it is not set. From -1 on CUDA sees nothing."""
    text = environment.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names = [item.strip() for item in text.split(",")]
    ends = [index for index, name in enumerate(names) if name in ("", "-1", "NoDevFiles")]
    return names[: min(ends, default=len(names))]


def _refuse_unknown(key: str, names: list[str], visible: list[str], installed: Mapping[str, str]) -> None:
    """A part of a UUID is a name too."""
    for name in names:
        uuids = [installed[index] for index in visible if index in installed]
        if name not in visible and not any(uuid.startswith(name) for uuid in uuids):
            there = f"there are {', '.join(visible)}" if visible else "none is visible"
            raise RequestError(
                f"{key}={name}: there is no such GPU ({there}): look at what `nvidia-smi -L` lists and "
                "CUDA_VISIBLE_DEVICES names"
            )
