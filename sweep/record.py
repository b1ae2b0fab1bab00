"""study.yaml: what a study is, what it ran with, session by session; and the rule that it does not change under way."""

from collections.abc import Mapping, Sequence
import datetime
import importlib.metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any
import uuid

from omegaconf import OmegaConf
import yaml

from conf.errors import RequestError
from conf.schema import Config
from conf.secrets import redact, redact_arguments
from curves.run_folder import RunFolder, write_atomically
from sweep.cells import Request
from sweep.code_state import CodeState, code_name, read_code_state

SCHEMA = 1
_MAY_CHANGE = (
    "launch",
    "tracker",
    "study",
    "runs_dir",
    "cache_dir",
    "device",
)  # where and how fast, not what
DESIGN = (
    "sweep.design",
    "sweep.narrow_enough",
    "sweep.least_trials",
)  # which trial comes next, not what one is
_MAY_GROW = ("sweep.limits", "sweep.storage", *DESIGN)
_KEPT = ("launch.processes",)  # though below those: it multiplies the batch
_KEYS = {"overrides": list, "config": dict, "cells": list, "trials": int, "created": str}


class StudyFolder:
    """Paths of one study."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path / "study.yaml"
        self.journal = path / "journal.log"
        self.lock = path / "supervisor.lock"
        self.stop_request = path / "stop.json"  # written by `sweep stop`, removed by the supervisor
        self.trials = path / "trials"

    def patch(self, number: int) -> Path:
        """What was not committed of the code that sessions ran with: code.patch, code-2.patch, ..."""
        return self.path / ("code.patch" if number == 1 else f"code-{number}.patch")

    def trial(self, number: int) -> RunFolder:
        """The run folder of a trial.

        Raises:
            RequestError: there is none of this number.
        """
        found = sorted(self.trials.glob(f"{number:04d}-*"))
        if not found:
            raise RequestError(f"--trial {number}: {self.name} has no such trial")
        return RunFolder(found[0])

    @property
    def name(self) -> str:
        return self.path.name

    def exists(self) -> bool:
        try:
            return self.record.is_file()
        except OSError:  # a place that cannot be read: creating the study there says why
            return False

    def read(self) -> dict[str, Any]:
        """study.yaml.

        Raises:
            RequestError: absent or damaged.
        """
        try:
            record = yaml.safe_load(self.record.read_text(encoding="utf-8"))
            if not isinstance(record, dict):
                raise ValueError("not a study record")
            wrong = [key for key, kind in _KEYS.items() if not isinstance(record.get(key), kind)]
            if wrong:
                raise ValueError(f"the key `{wrong[0]}` is missing or damaged")
        except OSError as error:
            raise RequestError(f"{self.record}: {error.strerror}") from error
        except (ValueError, yaml.YAMLError) as error:
            raise RequestError(
                f"{self.record}: {str(error).splitlines()[0]}: restore the file, or start another study "
                "with study=NAME"
            ) from error
        return record


def write_record(
    folder: StudyFolder,
    request: Request,
    hardware: Mapping[str, Any],
    command: Sequence[str] = (),
    code: CodeState | None = None,
) -> None:
    """Write study.yaml, or renew it as a session starts; the first writing's date and all sessions stay.

    Args:
        command: that started this session.
        code: that it runs with; None reads it.
    """
    earlier = folder.read() if folder.exists() else {}
    code = code or read_code_state()
    states = _with_state(folder, list(earlier.get("code") or []), code)
    session = {
        "started": _now(),
        "command": list(redact_arguments(command)),
        "code": code.content,
        "host": platform.node(),
    }
    record = {
        "schema": SCHEMA,
        "study": folder.name,
        "id": earlier.get("id") or uuid.uuid4().hex,
        "created": earlier.get("created", _now()),
        "overrides": list(redact_arguments(request.overrides)),
        "cells": [
            {"label": cell.label, "levels": cell.levels, "trials": cell.trials} for cell in request.cells
        ],
        "trials": request.config.sweep.trials,
        "seeds": {"runs": request.config.seed, "sampler": request.config.sweep.sampler.seed},
        "git": {"commit": code.commit, "dirty": code.dirty},
        "code": states,
        "sessions": [*(earlier.get("sessions") or []), session],
        "python": platform.python_version(),
        "versions": installed_versions(),
        "hardware": dict(hardware),
        "config": resolved(request),
    }
    write_atomically(folder.record, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def _with_state(folder: StudyFolder, states: list[dict[str, Any]], code: CodeState) -> list[dict[str, Any]]:
    """The states of the code so far and this one, whose patch is written beside the record."""
    if any(state.get("content") == code.content for state in states):
        return states
    patch = folder.patch(len(states) + 1)
    if code.patch:
        write_atomically(patch, code.patch)
    state = {
        "content": code.content,
        "commit": code.commit,
        "patch": patch.name if code.patch else None,
        "patch_is_whole": code.whole,
        "since": _now(),
    }
    return [*states, state]


def check_code(folder: StudyFolder, code: CodeState, allowed: bool) -> str | None:
    """Notice that a study's code has changed since its last session.

    Returns:
        What has changed, in words, where that is allowed; None where nothing has.

    Raises:
        RequestError: it has changed and that is not allowed.
    """
    states, sessions = folder.read().get("code") or [], folder.read().get("sessions") or []
    last = next((item for item in states if sessions and item["content"] == sessions[-1]["code"]), None)
    if last is None or last["content"] == code.content:
        return None
    was = code_name(last["commit"], bool(last["patch"]), last["content"])
    if allowed:
        return f"the code has changed since the last session: {was} then, {code.name()} now"
    raise RequestError(
        f"study={folder.name}: the code has changed: the last session ran {was}, this one would run {code.name()}: "
        "go back to that, or accept runs of different code in one study with --changed-code"
    )


def resolved(request: Request) -> dict[str, Any]:
    """The study's configuration as plain values, without secrets."""
    return _plain(request.config)


def flat_config(config: Config) -> dict[str, Any]:
    """A configuration as dotted keys and plain values, without secrets."""
    return _flat(_plain(config))


def _plain(config: Config) -> dict[str, Any]:
    container = OmegaConf.to_container(OmegaConf.structured(config), resolve=True)
    assert isinstance(container, dict)
    return {str(key): redact(value, str(key)) for key, value in container.items()}


def differences(recorded: Mapping[str, Any], request: Request) -> list[tuple[str, Any, Any]]:
    """What a study has otherwise than a request: (key, recorded, requested), without what may change."""
    old, new = _flat(recorded["config"]), _flat(resolved(request))
    keys = [key for key in {**old, **new} if not may_change(key)]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def may_change(key: str) -> bool:
    """Whether a study goes on with another value of a key: one of where and how fast."""
    free = key.split(".")[0] in _MAY_CHANGE and key not in _KEPT
    return free or key.startswith(_MAY_GROW)


def hardware_facts(gpus: list[str], slots: int) -> dict[str, Any]:
    """Machine, cores, memory and accelerators of a study."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus,
        "gpu_names": gpu_names(),
        "slots": slots,
    }


def gpu_names() -> list[str]:
    """Name, memory and driver of each GPU, as nvidia-smi tells them; none without it."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def installed_versions() -> dict[str, str]:
    """Every installed package, sorted by name."""
    found = {str(item.metadata["Name"]): item.version for item in importlib.metadata.distributions()}
    return dict(sorted(found.items(), key=lambda pair: pair[0].lower()))


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in _flat(child, f"{prefix}.{name}").items()
        }
    return {prefix.lstrip("."): node}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
