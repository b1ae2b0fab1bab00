"""`sweep plan`: every cell composed and checked, with what it will cost, and whether the limits hold."""

from collections.abc import Sequence
import copy
from dataclasses import dataclass, replace
from pathlib import Path

from conf.schema import Config
from curves.run_folder import find_runs
from curves.spent import Account, Spent, amount, read_account
from sweep.branches import budgets, trained_steps
from sweep.cells import Cell, Request
from sweep.clock import duration
from sweep.cost import Cost, EarlierRun, Measured, expected_cost, read_earlier_runs, state_megabytes
from sweep.extension import refuse_changes
from sweep.gpus import find_gpus
from sweep.launch import slot_count
from sweep.limits import caps, device_share
from sweep.probe import read_probes
from sweep.record import StudyFolder
from sweep.space import Parameter
from sweep.values import describe

FINISHED = ("complete", "stopped", "pruned", "diverged", "out_of_memory", "timeout", "crashed")


@dataclass(frozen=True)
class Plan:
    """What a sweep would do.

    Attributes:
        costs: of one trial of each cell.
        done: trials of the study that have ended.
        spent: by the study so far.
        slots: trials at once.
        devices: of one trial.
        on_gpus: whether these are GPUs.
        seconds: wall-clock time of what remains, if every trial trains to its horizon.
    """

    request: Request
    costs: list[Cost]
    done: int
    spent: Spent
    slots: int
    devices: float
    on_gpus: bool
    seconds: float

    @property
    def remaining(self) -> int:
        return self.request.planned - self.done

    def account(self) -> Account:
        """What the whole study will have spent, against its limits."""
        share, limits = self.remaining / self.request.planned, self.request.config.sweep.limits
        runs = [self.request.runs_of(cell) for cell in self.request.cells]
        seconds = share * sum(count * cost.seconds for count, cost in zip(runs, self.costs, strict=True))
        megabytes = share * sum(count * cost.megabytes for count, cost in zip(runs, self.costs, strict=True))
        trials = [sum(trained_steps(cell.config)) for cell in self.request.cells]
        if self.request.config.sweep.folds:
            trials = [self.request.runs_a_trial * steps for steps in trials]
        steps = sum(cell.trials * steps for cell, steps in zip(self.request.cells, trials, strict=True))
        gpu_hours = self.spent.gpu_hours + seconds * self.devices / 3600
        price = limits.price_per_gpu_hour
        spent = Spent(
            trials=self.request.planned,
            hours=self.spent.hours + self.seconds / 3600,
            gpu_hours=gpu_hours,
            steps=self.spent.steps + round(steps * share),
            disk_gb=self.spent.disk_gb + megabytes / 1000,
            cost=None if price is None else gpu_hours * price,
        )
        return Account(spent, caps(limits), limits.currency, self.on_gpus)

    def lines(self) -> list[str]:
        """The plan in words."""
        request = self.request
        counts = sorted({cell.trials for cell in request.cells})
        per_cell = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        product = f"{len(request.cells)} cells x {per_cell} trials{_runs_of_each(request)}"
        lines = [f"{product} = {request.planned} trials, {self._sampling()}", *self._cell_lines()]
        account = self.account()
        slots = f"{self.slots} slot{'s' if self.slots > 1 else ''}"
        lines.append(
            f"time: about {duration(self.seconds)} for {self.remaining} trials in {slots}, "
            f"estimated from {_sources(self.costs)}, if every trial takes all of its steps"
        )
        lines.append(
            f"steps: at most {account.spent.steps:,}; disk: about {_size(account.spent.disk_gb * 1000)}"
        )
        cost = (
            ""
            if account.spent.cost is None
            else f"; cost: about {amount(account.spent.cost)} {account.currency}"
        )
        lines.append(f"{account.unit('gpu_hours')}: about {amount(account.spent.gpu_hours)}{cost}")
        lines += [f"limit: {text}" for text in limit_lines(account)]
        if self.done:
            lines.append(f"the study exists: {self.done} of {request.planned} trials are done")
        if request.config.study is None:
            lines.append("to run it, name the study: study=NAME")
        return lines

    def _sampling(self) -> str:
        sweep = self.request.config.sweep
        pruner = "no pruning" if sweep.pruner.name == "none" else f"pruner {sweep.pruner.name}"
        grid = (
            " (every point of the space: sweep.trials has no effect)" if sweep.sampler.name == "grid" else ""
        )
        objectives = f", minimizing {' and '.join(sweep.objectives)}" if len(sweep.objectives) > 1 else ""
        design = (
            f"; adaptive: ends once high/low of every minimum is at most {sweep.narrow_enough:g}"
            if sweep.design == "adaptive"
            else ""
        )
        return f"sampler {sweep.sampler.name}{grid}, {pruner}{objectives}{design}"

    def _cell_lines(self) -> list[str]:
        """One line a cell, and below it what is searched there."""
        cells = self.request.cells
        width = max(len(cell.label) for cell in cells)
        lines = []
        for cell, cost in zip(cells, self.costs, strict=True):
            trials = self.request.runs_of(cell)
            hours = trials * cost.seconds * self.devices / 3600
            unit = Account(Spent(), {}, on_gpus=self.on_gpus).unit("gpu_hours")
            memory = f", {cost.memory_gib:.1f} GiB" if cost.memory_gib is not None else ""
            lines.append(
                f"  {cell.label:<{width}}  {trials} x {_steps_of(cell)} steps, about "
                f"{duration(cost.seconds)} each; {amount(hours)} {unit}, {_size(cost.megabytes * trials)}{memory}; "
                f"{_searched(cell)}"
            )
        return lines


def limit_lines(account: Account) -> list[str]:
    """Whether each limit holds if all goes as planned."""
    lines = []
    for name, limit in account.limits.items():
        need = getattr(account.spent, name)
        stated = f"sweep.limits.{name}={limit:g}"
        verdict = "holds" if need <= limit else "will end the sweep early"
        lines.append(f"{stated} {verdict}: about {amount(need)} {account.unit(name)} are needed")
    return lines


def make_plan(request: Request) -> Plan:
    """Work out a request's costs, against what its study has already done.

    Raises:
        RequestError: the study exists with other settings.
    """
    costs = expected_costs(request)
    done, spent = 0, Spent()
    if request.config.study is not None:
        folder = StudyFolder(request.folder)
        if folder.exists():
            refuse_changes(folder, request)
        done = finished_trials(folder)
        account = read_account(folder.path)
        spent = account.spent if account else Spent()
    gpus = find_gpus(request.config)
    slots = slot_count(request.config.launch, gpus)
    share = 1 - done / request.planned
    runs = [request.runs_of(cell) for cell in request.cells]
    total = sum(count * cost.seconds for count, cost in zip(runs, costs, strict=True)) * share
    used = min(slots, max(1, request.planned - done))
    longest = max(cost.seconds for cost in costs) if done < request.planned else 0.0
    devices = device_share(request.config.launch, gpus, slots)
    return Plan(request, costs, done, spent, slots, devices, bool(gpus), max(total / used, longest))


def expected_costs(request: Request) -> list[Cost]:
    """Of one trial of each cell: by its probe, else by earlier runs, else by the base model's figures."""
    probes = read_probes(request)
    earlier = read_earlier_runs(Path(request.config.runs_dir).absolute())
    return [_run_cost(cell.config, earlier, probes.get(cell.label)) for cell in request.cells]


def _run_cost(config: Config, earlier: Sequence[EarlierRun], probe: Measured | None) -> Cost:
    """Of one run of a cell; where it has a trunk and branches, their mean."""
    costs = []
    for steps in trained_steps(config):
        own = copy.deepcopy(config)
        own.budget.max_steps = steps
        costs.append(expected_cost(own, earlier, probe))
    mean = sum(cost.seconds for cost in costs) / len(costs)
    kept = state_megabytes(config) * (len(costs) - 1) / len(costs)
    return replace(costs[0], seconds=mean, megabytes=costs[0].megabytes + kept)


def finished_trials(folder: StudyFolder) -> int:
    """Trials of a study that have ended for good, by their run folders."""
    return sum(run.outcome() in FINISHED for run in find_runs(folder.path))


def _searched(cell: Cell) -> str:
    space = ", ".join(map(_described, cell.space.parameters)) or "nothing searched: trials differ by seed"
    if cell.space.constraints.texts:
        space += f"; with {', '.join(cell.space.constraints.texts)}"
    return space


def _described(parameter: Parameter) -> str:
    where = ", ".join(f"{name}={'|'.join(map(str, wanted))}" for name, wanted in parameter.conditions)
    return describe(parameter.declared) + (f" (where {where})" if where else "")


def _runs_of_each(request: Request) -> str:
    """Where a parameter set is several runs: which, in words."""
    if request.config.sweep.folds:
        return f" x {request.runs_a_trial} folds" if request.runs_a_trial > 1 else ""
    branches = len(budgets(request.config))
    return f" x (a trunk and {branches} branches)" if branches else ""


def _steps_of(cell: Cell) -> str:
    """Of one run; of a trunk and its branches the mean, and what all budgets cost by the longest of them."""
    steps, longest = trained_steps(cell.config), cell.config.budget.max_steps or 1
    if len(steps) == 1:
        return str(longest)
    shown = ", ".join(map(str, budgets(cell.config)))
    apart = sum(budgets(cell.config)) / longest
    return (
        f"{sum(steps) / len(steps):.0f} (budgets {shown}: {sum(steps) / longest:.2f} times the longest, "
        f"{apart:.2f} from scratch)"
    )


def _sources(costs: Sequence[Cost]) -> str:
    return "; ".join(dict.fromkeys(cost.source for cost in costs))


def _size(megabytes: float) -> str:
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"
