"""`sweep plan`: every cell composed and checked, with what it will cost; starts nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conf.errors import RequestError
from curves.run_folder import find_runs
from sweep.cells import Cell, Request
from sweep.clock import duration
from sweep.cost import Cost, expected_cost, read_earlier_runs
from sweep.gpus import find_gpus
from sweep.hints import command
from sweep.launch import slot_count
from sweep.record import StudyFolder, differences
from sweep.space import Parameter
from sweep.values import describe

FINISHED = ("complete", "stopped", "pruned", "diverged", "out_of_memory", "timeout", "crashed")


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        done: trials of the study that have ended.
        slots: trials at once.
        seconds: wall-clock time of what remains, if every trial trains to its horizon.
    """

    request: Request
    costs: list[Cost]
    done: int
    slots: int
    seconds: float

    def lines(self) -> list[str]:
        """The plan in words."""
        folds, cells = self.request.folds, self.request.cells
        label_width = max(len(cell.label) for cell in cells)
        counts = sorted({cell.trials for cell in cells})
        per_cell = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        product = f"{len(cells)} cells x {per_cell} trials" + (f" x {folds} folds" if folds > 1 else "")
        lines = [f"{product} = {self.request.planned} trials, {self._sampling()}"]
        for cell, cost in zip(cells, self.costs, strict=True):
            lines.append(
                f"  {cell.label:<{label_width}}  {_cell_line(cell, cost, self.request.runs_of(cell))}"
            )
        runs = [self.request.runs_of(cell) for cell in cells]
        steps = sum(
            count * (cell.config.budget.max_steps or 0) for count, cell in zip(runs, cells, strict=True)
        )
        size = sum(count * cost.megabytes for count, cost in zip(runs, self.costs, strict=True))
        lines.append(f"steps: at most {steps:,}; disk: about {_size(size)}")
        remaining = self.request.planned - self.done
        lines.append(
            f"time: about {duration(self.seconds)} for {remaining} trials in {self.slots} "
            f"slot{'s' if self.slots > 1 else ''}, estimated from {_sources(self.costs)}, "
            "if every trial takes all of its steps"
        )
        if self.done:
            lines.append(f"the study exists: {self.done} of {self.request.planned} trials are done")
        if self.request.config.study is None:
            lines.append("to run it, name the study: study=NAME")
        return lines

    def _sampling(self) -> str:
        sweep = self.request.config.sweep
        pruner = "no pruning" if sweep.pruner.name == "none" else f"pruner {sweep.pruner.name}"
        grid = (
            " (every point of the space: sweep.trials has no effect)" if sweep.sampler.name == "grid" else ""
        )
        objectives = f", minimizing {' and '.join(sweep.objectives)}" if len(sweep.objectives) > 1 else ""
        return f"sampler {sweep.sampler.name}{grid}, {pruner}{objectives}"


def make_plan(request: Request) -> Plan:
    """Work out a request's costs, against what its study has already done.

    Raises:
        RequestError: the study exists with other settings.
    """
    earlier = read_earlier_runs(Path(request.config.runs_dir).absolute())
    costs = [expected_cost(cell.config, earlier) for cell in request.cells]
    done = 0
    if request.config.study is not None:
        folder = StudyFolder(request.folder)
        if folder.exists():
            refuse_changes(folder, request)
        done = finished_trials(folder)
    slots = slot_count(request.config.launch, find_gpus(request.config))
    share = 1 - done / request.planned
    runs = [request.runs_of(cell) for cell in request.cells]
    total = sum(count * cost.seconds for count, cost in zip(runs, costs, strict=True)) * share
    used = min(slots, max(1, request.planned - done))
    longest = max(cost.seconds for cost in costs) if done < request.planned else 0.0
    return Plan(request, costs, done, slots, max(total / used, longest))


def refuse_changes(folder: StudyFolder, request: Request) -> None:
    """A study keeps its settings.

    Raises:
        RequestError: naming the first key that differs, and the remedies.
    """
    record = folder.read()
    changed = differences(record, request)
    trials = request.config.sweep.trials
    if [item[0] for item in changed] == ["sweep.trials"] and trials > record["trials"]:
        raise RequestError(
            f"sweep.trials={trials}: the study {folder.name} was started with {record['trials']} trials a cell: "
            f"extend it with `{command('resume', folder.path, f'sweep.trials={trials}')}`"
        )
    if changed:
        key, old, new = changed[0]
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        raise RequestError(
            f"{key}={new}: the study {folder.name} was started with {key}={old}{more}: continue it as it is "
            f"with `{command('resume', folder.path)}`, or take another name with study=NAME"
        )


def finished_trials(folder: StudyFolder) -> int:
    """Trials of a study that have ended for good, by their run folders."""
    return sum(run.outcome() in FINISHED for run in find_runs(folder.path))


def _cell_line(cell: Cell, cost: Cost, trials: int) -> str:
    space = ", ".join(map(_searched, cell.space.parameters)) or "nothing searched: trials differ by seed"
    if cell.space.constraints:
        space += f"; with {', '.join(constraint.text for _, constraint in cell.space.constraints)}"
    steps = cell.config.budget.max_steps
    return f"{trials} x {steps} steps, about {duration(cost.seconds)} each; {space}"


def _searched(parameter: Parameter) -> str:
    where = ", ".join(f"{name}={'|'.join(map(str, wanted))}" for name, wanted in parameter.conditions)
    return describe(parameter.declared) + (f" (where {where})" if where else "")


def _sources(costs: Sequence[Cost]) -> str:
    return "; ".join(dict.fromkeys(cost.source for cost in costs))


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
