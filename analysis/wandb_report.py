"""The report in Weights & Biases: a run of its own beside those of the study, with the table, the figures and the page."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
import sys
from typing import Any

from analysis.recommend import Analysis
from analysis.report import SENT_FILES
from analysis.reproduce import study_record
from analysis.table import recommendation_table
from conf.errors import RequestError, WorkError
from conf.schema import Tracker
from conf.wandb_mode import FINISH_S, START_S, one_line, resolve_mode

JOB_TYPE = "report"


def check_wandb() -> None:
    """Find wandb without loading it, and a mode in which it does anything.

    Raises:
        RequestError: it is not installed, or turned off.
    """
    if find_spec("wandb") is None:
        raise RequestError("--wandb: needs wandb, which is not installed; pip install wandb")
    if resolve_mode("auto") == "disabled":
        raise RequestError(
            "--wandb: WANDB_MODE=disabled turns it off; unset it, or set WANDB_MODE=offline and `wandb sync` later"
        )


def send_report(analysis: Analysis) -> str:
    """Put the report that was written into the study's group; where no server answers, into an offline run.

    Returns:
        Where it is, and how an offline run is sent.

    Raises:
        WorkError: wandb can neither reach a server nor write offline.
    """
    folder = analysis.study.root / "analysis"
    mode = resolve_mode("auto")
    for attempt in ("online", "offline") if mode == "online" else (mode,):
        try:
            return _send(analysis, folder, attempt)
        except Exception as error:  # of wandb, which raises whatever its service or its server says
            reason = one_line(error)
            _teardown()
        if attempt == "online":
            print(f"wandb cannot be reached ({reason}): writing offline", file=sys.stderr)
    raise WorkError(
        f"--wandb: wandb cannot write to {folder} ({reason}); mend that, then run the same command again"
    )


def _send(analysis: Analysis, folder: Path, mode: str) -> str:
    """Log everything in one run of wandb and end it."""
    import wandb

    root, study = analysis.study.root, analysis.study.name
    settings = wandb.Settings(
        silent=True,
        console="off",
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=START_S,
        finish_timeout=FINISH_S,
    )
    options: dict[str, Any] = {"project": _project(root), "group": study, "job_type": JOB_TYPE, "mode": mode}
    options |= {"id": report_id(root), "resume": "allow" if mode == "online" else None, "settings": settings}
    options |= {"config": {"study": study, "runs": len(analysis.study.runs), "cells": len(analysis.cells)}}
    run = wandb.init(name=f"{study} report", dir=str(folder), **options)
    run.log(_shown(analysis, folder))
    run.log_artifact(_artifact(report_id(root), folder))
    run.finish()
    if mode == "online":
        return str(run.url)
    written = Path(run.dir).parent
    return f"{written}, sent by `wandb sync {written}`"


def _shown(analysis: Analysis, folder: Path) -> dict[str, Any]:
    """The table, the page and the figures as wandb shows them."""
    import wandb

    table = recommendation_table(analysis.recommendation.cells)
    pictures = sorted((folder / "figures").glob("*.png"))
    return {
        "recommendation": wandb.Table(columns=table.titles, data=table.rows),
        "report": wandb.Html((folder / "report.html").read_text(encoding="utf-8"), inject=False),
        **{f"figures/{path.stem}": wandb.Image(str(path)) for path in pictures},
    }


def _artifact(name: str, folder: Path) -> Any:
    """All files of the report under their own names."""
    import wandb

    artifact: Any = wandb.Artifact(name, type=JOB_TYPE)
    for given in SENT_FILES:
        path = folder / given
        for file in sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []:
            artifact.add_file(str(file), name=str(file.relative_to(folder)))
    return artifact


def _teardown() -> None:
    """End wandb's service, which keeps the id of a failed run for itself otherwise."""
    import wandb

    wandb.teardown()


def report_id(root: Path) -> str:
    """The same for every report of a study: from the study's own id, else from where it lies."""
    named = study_record(root).get("id") or str(root.resolve())
    return f"report-{hashlib.sha256(str(named).encode('utf-8', 'replace')).hexdigest()[:8]}"


def _project(root: Path) -> str:
    """Of the study's runs."""
    config = study_record(root).get("config") or {}
    tracker = config.get("tracker") if isinstance(config, dict) else None
    name = tracker.get("project") if isinstance(tracker, dict) else None
    return str(name or Tracker(name="wandb").project)
