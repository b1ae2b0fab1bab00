"""Why a run ends: what its stop rule says, what somebody has asked for, and one answer for all processes."""

import math

from accelerate import Accelerator
import torch

from curves.point import Point
from curves.run_folder import OUTCOMES, RunFolder, read_json
from curves.stopping.base import EvaluationRule
from finetune.interruption import Interruption

Ending = tuple[str, str]  # outcome, reason


def judged(rule: EvaluationRule, point: Point) -> Ending | None:
    """What a point means: the run has diverged, its rule ends it, or (None) it goes on."""
    if point.val_loss is not None and not math.isfinite(point.val_loss):
        return "diverged", f"the held-out loss is not finite at step {point.step}: lower optimizer.lr"
    decision = rule.update(point)
    return ("stopped", decision.reason) if decision.stop else None


def requested(interruption: Interruption, folder: RunFolder, accelerator: Accelerator) -> Ending | None:
    """A request to end, from a signal, the supervisor's end, or the stop file."""
    if interruption.reason is not None:
        return "preempted", interruption.reason
    if not accelerator.is_main_process or not folder.stop_request.exists():
        return None
    try:
        request = read_json(folder.stop_request)
    except ValueError:
        request = {}
    outcome = request.get("outcome")
    return (outcome if outcome in OUTCOMES else "stopped", str(request.get("reason") or "asked to stop"))


def agreed(accelerator: Accelerator, ending: Ending | None) -> Ending | None:
    """One answer for all processes: the first one that has a reason to end decides."""
    if accelerator.num_processes == 1:
        return ending
    code = OUTCOMES.index(ending[0]) if ending is not None else -1
    codes = accelerator.gather(torch.tensor([code], device=accelerator.device)).tolist()
    decided = next((item for item in codes if item >= 0), None)
    if decided is None or decided == code:
        return ending
    return OUTCOMES[decided], "another process was asked to end"
