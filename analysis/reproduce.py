"""What reproduces a study: the commands behind it, and the code, versions and machine that it ran with."""

from __future__ import annotations

from pathlib import Path
import shlex
from typing import Any

from analysis.recommend import Analysis, CellResult, FittedRun
from conf.quoting import override

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"
ALWAYS_NAMED = (
    "dataset_size",
    "method",
    "base_model",
)  # groups that a command names even where they are the default
GROUPS = (*ALWAYS_NAMED, "dataset", "resolution", "captions")
# Overrides that budget=recommended decides itself, and those that only say where a run lies.
DECIDED = ("method.rank", "method.alpha", "method.dropout", "method.targets", "captions.dropout")
FOLD = "dataset.fold"  # and dataset.folds: of one run of a study, never of its answer
PLACES = ("run_dir=", "runs_dir=", "study=")
SHOWN_VERSIONS = ("torch", "diffusers", "transformers", "peft", "accelerate", "optuna", "hydra-core", "numpy")


def commands(analysis: Analysis, record: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """What reproduces the study, its runs and its answer: (title, command lines)."""
    study = _path(analysis)
    groups: list[tuple[str, list[str]]] = []
    overrides = record.get("overrides")
    if isinstance(overrides, list):
        groups.append(("The sweep", [shlex.join(["python", "-m", "sweep", "run", *map(str, overrides)])]))
    groups.append(("The answer and this page", [f"python -m analysis report {shlex.quote(study)}"]))
    # What another tool trained is not trained again by a command of ours.
    own = [cell for cell in analysis.cells if not any(item.run.imported for item in cell.runs)]
    known = [cell for cell in own if cell.answer.recommended_steps is not None]
    used = [
        shlex.join(
            ["python", "train.py", *_levels(cell), "budget=recommended", override("budget.study", study)]
        )
        for cell in known
    ]
    if used:
        groups.append(("Training as recommended", used))
    shown = [cell.shown for cell in analysis.cells if cell.shown is not None]
    single = [shlex.join(["python", "train.py", *_overrides(item)]) for item in shown if _overrides(item)]
    if single:
        groups.append(("The best run of each cell", single))
    return groups


def _levels(cell: CellResult) -> list[str]:
    """Group choices that lead to the cell: those of the best run, without what the recommendation sets."""
    if cell.shown is None:
        return []
    chosen = [item for item in _overrides(cell.shown) if item.split("=", 1)[0].split(".")[0] in GROUPS]
    named = {item.split("=", 1)[0] for item in chosen}
    config = _read_yaml(cell.shown.run.folder.config)
    defaults = {}
    for entry in _read_yaml(CONF_DIR / "config.yaml").get("defaults", []):
        defaults.update(entry if isinstance(entry, dict) else {})
    own = {name: getattr(cell.answer, name) for name in ALWAYS_NAMED}
    own |= {name: (config.get(name) or {}).get("name") for name in GROUPS if name not in own}
    wanted = [name for name in own if name in ALWAYS_NAMED or own[name] not in (None, defaults.get(name))]
    return [override(name, str(own[name])) for name in wanted if name not in named] + [
        item for item in chosen if not item.startswith((*DECIDED, FOLD))
    ]


def _overrides(item: FittedRun) -> list[str]:
    """overrides.yaml without the place of the run folder."""
    found = _read_yaml(item.run.folder.overrides, list)
    return [str(text) for text in found if not str(text).startswith(PLACES)]


def environment(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Commit, versions, seeds and machine from study.yaml."""
    git = record.get("git") or {}
    commit = str(git.get("commit") or "")[:12]
    facts = (
        [("commit", f"{commit}{' with uncommitted changes' if git.get('dirty') else ''}")] if commit else []
    )
    if record.get("python"):
        facts.append(("python", str(record["python"])))
    for group in ("versions", "hardware", "seeds"):
        values = record.get(group) or {}
        if group == "versions":
            values = {name: values[name] for name in SHOWN_VERSIONS if name in values}
        shown = [f"{name} {_shown(value)}" for name, value in values.items() if value not in (None, [])]
        if shown:
            facts.append((group, ", ".join(shown)))
    return facts


def study_record(root: Path) -> dict[str, Any]:
    """study.yaml, or nothing."""
    return dict(_read_yaml(root / "study.yaml"))


def _read_yaml(path: Path, kind: type = dict) -> Any:
    """What the file holds, empty where it is absent, damaged or of another kind."""
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return kind()
    return found if isinstance(found, kind) else kind()


def _path(analysis: Analysis) -> str:
    """The study as a command names it: relative to where one stands, where that is possible."""
    root = analysis.study.root.resolve()
    return str(root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root)


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
