"""study.yaml: what a study is, written once at its start; and the rule that it does not change under way."""

from collections.abc import Mapping
import datetime
import importlib.metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

from omegaconf import OmegaConf
import yaml

from conf.compose import PROJECT_ROOT
from conf.errors import RequestError
from curves.run_folder import write_atomically
from sweep.cells import Request

SCHEMA = 1
PACKAGES = (
    "hydra-core",
    "omegaconf",
    "optuna",
    "accelerate",
    "torch",
    "diffusers",
    "peft",
    "transformers",
    "numpy",
)
_MAY_CHANGE = (
    "launch",
    "tracker",
    "study",
    "runs_dir",
    "cache_dir",
    "device",
)  # where and how fast, not what
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


def write_record(folder: StudyFolder, request: Request, hardware: Mapping[str, Any]) -> None:
    """Write study.yaml, or renew it when a study is extended; the first writing's date stays."""
    created = folder.read()["created"] if folder.exists() else _now()
    record = {
        "schema": SCHEMA,
        "study": folder.name,
        "created": created,
        "overrides": list(request.overrides),
        "cells": [
            {"label": cell.label, "levels": cell.levels, "trials": cell.trials} for cell in request.cells
        ],
        "trials": request.config.sweep.trials,
        "seeds": {"runs": request.config.seed, "sampler": request.config.sweep.sampler.seed},
        "git": git_state(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "hardware": dict(hardware),
        "config": resolved(request),
    }
    write_atomically(folder.record, yaml.safe_dump(record, sort_keys=False, allow_unicode=True))


def resolved(request: Request) -> dict[str, Any]:
    """The study's configuration as plain values."""
    container = OmegaConf.to_container(OmegaConf.structured(request.config), resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def differences(recorded: Mapping[str, Any], request: Request) -> list[tuple[str, Any, Any]]:
    """What a study has otherwise than a request: (key, recorded, requested), without what may change."""
    old, new = _flat(recorded["config"]), _flat(resolved(request))
    keys = [key for key in {**old, **new} if not may_change(key)]
    return [(key, old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)]


def may_change(key: str) -> bool:
    """Whether a study goes on with another value of a key: one of where and how fast."""
    return key.split(".")[0] in _MAY_CHANGE and key not in _KEPT


def hardware_facts(gpus: list[str], slots: int) -> dict[str, Any]:
    """Machine, cores, memory and accelerators of a study."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30, 1),
        "gpus": gpus,
        "slots": slots,
    }


def git_state() -> dict[str, Any]:
    """Commit of the code and whether it has uncommitted changes; null outside a repository."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return {"commit": commit or None, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(PROJECT_ROOT), *arguments],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, Mapping) and node:
        return {
            key: value
            for name, child in node.items()
            for key, value in _flat(child, f"{prefix}.{name}").items()
        }
    return {prefix.lstrip("."): node}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
