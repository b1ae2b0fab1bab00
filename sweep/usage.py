"""What `python -m sweep --help` and `python -m sweep COMMAND --help` print."""

from dataclasses import dataclass

STUDY = "STUDY is a name (mine), a folder (runs/mine) or study=mine."
CHANGED_CODE = "  --changed-code  accept that the code is not that of the study's last session, which is refused otherwise"
STATUSES = "Exit status: 0 done, 1 failed, 2 wrong request, 3 a limit was reached, 130 stopped by Ctrl-C."


@dataclass(frozen=True)
class Usage:
    """Of one command: its arguments, what it does in one line, and its options and examples."""

    arguments: str
    does: str
    details: tuple[str, ...]


COMMANDS = {
    "plan": Usage(
        "OVERRIDES [--probe]",
        "compose and check every cell; print cells, trials, time, disk and cost; start nothing",
        (
            "  --probe  train ten steps of each cell first, so that the figures are measured; kept for later plans",
            "",
            "  python -m sweep plan experiment=demo",
            "  python -m sweep plan experiment=demo sweep.limits.hours=2 --probe",
        ),
    ),
    "run": Usage(
        "OVERRIDES",
        "run a study to its planned number of trials, or go on with it",
        (
            CHANGED_CODE,
            "",
            "  python -m sweep run experiment=demo study=mine budget.max_steps=300",
            "  python -m sweep run study=sizes 'sweep.factors={dataset_size: [n4, n8, n16]}' sweep.trials=6",
            "",
            "python train.py --help lists groups and keys.",
            STATUSES,
        ),
    ),
    "resume": Usage(
        "STUDY [OVERRIDES]",
        "continue an interrupted study, with more trials, cells or steps where asked to",
        (
            CHANGED_CODE,
            "",
            "  python -m sweep resume mine",
            "  python -m sweep resume mine sweep.trials=12 launch.slots=4",
            "",
            "launch.*, tracker.*, device, sweep.limits.* and sweep.storage may change; sweep.trials, sweep.factors and",
            "budget.max_steps may grow.",
            STATUSES,
        ),
    ),
    "status": Usage(
        "[STUDY] [--json]",
        "what a study, or each one, has done and spent, from another terminal too",
        ("  --json  everything, for programs", "", "  python -m sweep status mine --json", "", STUDY),
    ),
    "stop": Usage(
        "STUDY [--trial N]",
        "ask a running study, or one trial of it, to end cleanly",
        (
            "  --trial N  end this trial only; the sweep goes on with the next",
            "",
            "  python -m sweep stop mine --trial 3",
            "",
            STUDY,
        ),
    ),
    "dashboard": Usage(
        "STUDY [--port N]",
        "optuna-dashboard on the study, while it runs too",
        (
            "  --port N  of this machine, 8080 by default; 0 takes a free one",
            "",
            "  python -m sweep dashboard mine",
            "",
            STUDY,
        ),
    ),
    "reproduce": Usage(
        "TRIAL_FOLDER, or STUDY --trial N",
        "print a trial's command, run it again and compare the curves bit for bit",
        (
            "  --trial N    of the study",
            "  --print      only print the commands",
            "  --to FOLDER  where the new run lies; beside the study by default",
            "",
            "  python -m sweep reproduce mine --trial 3",
            "",
            "Exit status: 0 the curves are equal, 1 they differ or the trainer failed, 2 wrong request.",
        ),
    ),
}


def overview() -> str:
    """All commands, a line each."""
    heads = {f"{name} {usage.arguments}": usage.does for name, usage in COMMANDS.items()}
    width = max(map(len, heads))
    lines = [f"  {head:<{width}}  {does}" for head, does in heads.items()]
    return "\n".join(
        [
            "python -m sweep COMMAND ...",
            "",
            *lines,
            "",
            STUDY,
            "python -m sweep COMMAND --help tells options and examples; python train.py --help lists groups and keys.",
            STATUSES,
        ]
    )


def usage_of(name: str) -> str:
    """One command."""
    usage = COMMANDS[name]
    return "\n".join([f"python -m sweep {name} {usage.arguments}", "", f"  {usage.does}", "", *usage.details])
