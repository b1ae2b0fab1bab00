"""`python -m analysis COMMAND RUNS`. Exit status: 0 done, 1 nothing could be read, 2 wrong request."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import math
from pathlib import Path
import sys
from typing import Any

from conf.errors import RequestError, exit_status


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run one command."""
    options = _parser().parse_args(arguments)
    try:
        return exit_status(lambda: _COMMANDS[options.command](options))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


PRICE_HELP = "also the steps of least cost where the whole horizon costs this share of the gain, as 0.1"
LEVEL_HELP = "what tells image sets apart: a level of the cells, or run; default: dataset"
PDF_HELP = "also the page as PDF; needs pip install 'stepbudget[pdf]'"
WANDB_HELP = "also to Weights & Biases, beside the runs of the study; a repeat goes on under the same id"
SET_HELP = "what the log does not say: dataset=cats dataset_size=20 resolution=512 method=lora base_model=sd15 lr=1e-4 ..."
PRIOR_HELP = "no RUNS: what public facts say before any run, for dataset_size=20 method=text_to_image optimizer.lr=1e-6"
ENOUGH_HELP = "images are enough where doubling them buys less than this share of the gain (0.05)"
CELL_HELP = {
    "recommend": "also a cell that was not run, from the law across cells: dataset_size=n24 resolution=px96 ...",
    "next": "a cell that was not run: what its first run would tell",
}
STEPS_HELP = (
    "logged steps that make one optimizer update: the gradient accumulation of a tool that logs micro-steps"
)


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no share of the gain: give a number from 0, such as 0.1")
    return price


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(
            f"{text} is no share of the gain: give a number between 0 and 1, such as 0.05"
        )
    return share


def _whole(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of logged steps: give a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="From recorded runs to a step budget."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    runs = "folder of a study (runs/demo or demo), of run folders, or of one run"
    texts = {
        "recommend": "the table; writes RUNS/analysis/recommendation.json",
        "report": "writes RUNS/analysis/report.html, one self-contained file, report.md and figures/",
        "replay": "the exam: what each stop rule would have cost on the recorded curves",
        "tune": "a stop rule's parameters for a price, from the recorded curves, for stopping=calibrated",
        "panel": "scatter of the training loss against the paired error of the held-out loss, run by run",
        "law": "the law across cells, and its exam: cells left out and recommended from the rest",
        "next": "which run to make next: the one that narrows an answer most a step, with its command",
        "verify": "a study's recommendation against fresh runs of the same cells",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        optional: dict[str, Any] = {"nargs": "?"} if name == "recommend" else {}
        command.add_argument("runs", metavar="STUDY" if name == "verify" else "RUNS", help=runs, **optional)
        if name in ("recommend", "verify", "next"):
            command.add_argument("--json", action="store_true", help="print JSON instead of the table")
        if name == "recommend":
            command.add_argument("--prior", action="store_true", help=PRIOR_HELP)
            command.add_argument("--enough", type=_share, metavar="SHARE", default=0.05, help=ENOUGH_HELP)
        if name in ("recommend", "next"):
            command.add_argument("cell", metavar="KEY=VALUE", nargs="*", help=CELL_HELP[name])
        if name == "report":
            command.add_argument("--pdf", action="store_true", help=PDF_HELP)
            command.add_argument("--wandb", action="store_true", help=WANDB_HELP)
        if name in ("recommend", "report"):
            command.add_argument("--price", type=_price, metavar="SHARE", help=PRICE_HELP)
        if name in ("replay", "tune"):
            command.add_argument("--sets", default="dataset", metavar="LEVEL", help=LEVEL_HELP)
        if name == "tune":
            _add_tuning(command)
        if name == "verify":
            command.add_argument(
                "fresh", metavar="FRESH_RUNS", help="runs of other seeds, longer than the minimum"
            )
    _add_compare(commands)
    _add_import(commands)
    return parser


def _add_tuning(command: argparse.ArgumentParser) -> None:
    """The options of `tune` alone."""
    command.add_argument(
        "--to", metavar="FILE", type=Path, required=True, help="the calibration that is written"
    )
    command.add_argument(
        "--rule", default="posterior", metavar="RULE", help="the rule to tune; default: posterior"
    )
    command.add_argument(
        "--price",
        type=_price,
        action="append",
        metavar="SHARE",
        help="cost of a whole horizon in gain; repeatable",
    )


def _add_compare(commands: Any) -> None:
    """The options of `compare`."""
    text = "studies beside each other: steps, intervals, gain and cost, cell by cell"
    command = commands.add_parser("compare", help=text, description=text)
    command.add_argument("--pdf", action="store_true", help=PDF_HELP)
    command.add_argument(
        "runs", metavar="RUNS", nargs="+", help="two studies or more; differences are from the first"
    )
    command.add_argument("--to", metavar="FOLDER", type=Path, help="default: RUNS/analysis/comparison-OTHERS")
    command.add_argument("--json", action="store_true", help="print JSON instead of the table")


def _add_import(commands: Any) -> None:
    """The options of `import`."""
    text = "other tools' logs become runs that the other commands read"
    command = commands.add_parser("import", help=text, description=text)
    command.add_argument("kind", choices=("tensorboard", "wandb", "csv"), help="what the logs are")
    command.add_argument("source", metavar="SOURCE", type=Path, help="a file, or a folder of runs")
    command.add_argument("--to", metavar="RUNS", type=Path, required=True, help="folder that the runs go to")
    command.add_argument(
        "--val", metavar="TAG", help="the held-out loss, where the guess is wrong or in doubt"
    )
    command.add_argument("--train", metavar="TAG", help="the training loss")
    command.add_argument("--lr", metavar="TAG", help="the learning rate")
    command.add_argument("--probe", metavar="TAG", help="the held-out measure on training images")
    command.add_argument("--set", metavar="KEY=VALUE", nargs="+", action="extend", default=[], help=SET_HELP)
    command.add_argument("--steps-per-update", metavar="K", type=_whole, help=STEPS_HELP)
    command.add_argument("--only", metavar="NAME", help="runs of that name; * and ? stand for anything")


def _recommend(options: argparse.Namespace) -> int:
    from analysis.asked import parse_asked
    from analysis.load import load_study
    from analysis.prior import print_prior
    from analysis.recommend import analyse, recommendation_text, write_analysis
    from analysis.table import print_recommendation
    from analysis.unseen_answer import with_asked

    if options.prior:
        print_prior(parse_asked([*filter(None, [options.runs]), *options.cell]), options.json)
        return 0
    if options.runs is None:
        raise RequestError(
            "recommend: give RUNS, the folder of a study; before any run, --prior and the cell"
        )
    analysis = analyse(load_study(options.runs), options.price, options.enough)
    if options.cell:
        analysis = with_asked(analysis, parse_asked(options.cell), options.price)
    write_analysis(analysis)
    if options.json:
        print(recommendation_text(analysis), end="")
        for name, reason in analysis.study.damaged:
            print(f"left out {name}: {reason}", file=sys.stderr)
    else:
        print_recommendation(analysis)
    return 0


def _report(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.pdf import check_pdf, write_pdf
    from analysis.recommend import analyse, write_analysis
    from analysis.report import write_report
    from analysis.table import print_recommendation
    from analysis.wandb_report import check_wandb, send_report

    if options.pdf:
        check_pdf()
    if options.wandb:
        check_wandb()
    analysis = analyse(load_study(options.runs), options.price)
    write_analysis(analysis)
    path = write_report(analysis)
    print_recommendation(analysis)
    if options.pdf:
        print(f"\npdf: {write_pdf(path)}")
    if options.wandb:
        print(f"\nwandb: {send_report(analysis)}")
    print(f"\nreport: {path}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from analysis.comparison import compare
    from analysis.comparison_report import NAME, default_folder, print_comparison, write_comparison
    from analysis.load import load_study
    from analysis.pdf import check_pdf, write_pdf
    from analysis.recommend import analyse

    if options.pdf:
        check_pdf()
    found = compare([analyse(load_study(runs)) for runs in options.runs])
    path = write_comparison(found, options.to.expanduser() if options.to else default_folder(found))
    if options.pdf:
        print(f"pdf: {write_pdf(path)}", file=sys.stderr)
    if options.json:
        print(path.with_name(f"{NAME}.json").read_text(encoding="utf-8"), end="")
    else:
        print_comparison(found)
        print(f"\ncomparison: {path}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.replay import print_replay

    print_replay(load_study(options.runs), options.sets)
    return 0


def _tune(options: argparse.Namespace) -> int:
    from analysis.exam.outcomes import PRICES
    from analysis.load import load_study
    from analysis.replay import print_tuning

    prices = list(dict.fromkeys(options.price or PRICES))
    print_tuning(load_study(options.runs), options.sets, options.rule, prices, options.to)
    return 0


def _panel(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.panel import print_panel

    print_panel(load_study(options.runs))
    return 0


def _next(options: argparse.Namespace) -> int:
    from analysis.asked import parse_asked
    from analysis.design import print_next
    from analysis.load import load_study
    from analysis.recommend import analyse

    asked = parse_asked(options.cell) if options.cell else None
    print_next(analyse(load_study(options.runs)), asked, options.json)
    return 0


def _law(options: argparse.Namespace) -> int:
    from analysis.law_exam import print_law
    from analysis.load import load_study
    from analysis.recommend import analyse

    print_law(analyse(load_study(options.runs)))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.recommend import analyse
    from analysis.verify import print_verification

    print_verification(analyse(load_study(options.runs)), load_study(options.fresh), options.json)
    return 0


def _import(options: argparse.Namespace) -> int:
    from analysis.importing.command import Request, import_logs, print_import
    from analysis.importing.settings import parse_settings
    from analysis.importing.tags import Wanted

    wanted = Wanted(options.val, options.train, options.lr, options.probe)
    told = parse_settings(options.set)
    places = (options.source.expanduser(), options.to.expanduser())
    request = Request(*places, options.kind, wanted, told, options.steps_per_update, options.only)
    print_import(request, *import_logs(request))
    return 0


_COMMANDS = {
    "compare": _compare,
    "import": _import,
    "recommend": _recommend,
    "report": _report,
    "replay": _replay,
    "tune": _tune,
    "panel": _panel,
    "law": _law,
    "next": _next,
    "verify": _verify,
}

if __name__ == "__main__":
    sys.exit(main())
