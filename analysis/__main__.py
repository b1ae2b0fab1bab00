"""`python -m analysis COMMAND RUNS`. Exit status: 0 done, 1 nothing could be read, 2 wrong request."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import math
import sys

from conf.errors import exit_status


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


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no share of the gain: give a number from 0, such as 0.1")
    return price


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description="From recorded runs to a step budget."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    runs = "folder of a study (runs/demo or demo), of run folders, or of one run"
    texts = {
        "recommend": "the table; writes RUNS/analysis/recommendation.json",
        "report": "writes RUNS/analysis/report.html, one self-contained file, report.md and figures/",
        "replay": "what each stop rule would have cost on the recorded curves",
        "panel": "scatter of the training loss against the paired error of the held-out loss, run by run",
        "verify": "a study's recommendation against fresh runs of the same cells",
    }
    for name, text in texts.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("runs", metavar="STUDY" if name == "verify" else "RUNS", help=runs)
        if name in ("recommend", "verify"):
            command.add_argument("--json", action="store_true", help="print JSON instead of the table")
        if name in ("recommend", "report"):
            command.add_argument("--price", type=_price, metavar="SHARE", help=PRICE_HELP)
        if name == "verify":
            command.add_argument(
                "fresh", metavar="FRESH_RUNS", help="runs of other seeds, longer than the minimum"
            )
    return parser


def _recommend(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.recommend import analyse, recommendation_text, write_analysis
    from analysis.table import print_recommendation

    analysis = analyse(load_study(options.runs), options.price)
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
    from analysis.recommend import analyse, write_analysis
    from analysis.report import write_report
    from analysis.table import print_recommendation

    analysis = analyse(load_study(options.runs), options.price)
    write_analysis(analysis)
    path = write_report(analysis)
    print_recommendation(analysis)
    print(f"\nreport: {path}")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.replay import print_replay

    print_replay(load_study(options.runs))
    return 0


def _panel(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.panel import print_panel

    print_panel(load_study(options.runs))
    return 0


def _verify(options: argparse.Namespace) -> int:
    from analysis.load import load_study
    from analysis.recommend import analyse
    from analysis.verify import print_verification

    print_verification(analyse(load_study(options.runs)), load_study(options.fresh), options.json)
    return 0


_COMMANDS = {
    "recommend": _recommend,
    "report": _report,
    "replay": _replay,
    "panel": _panel,
    "verify": _verify,
}

if __name__ == "__main__":
    sys.exit(main())
