"""`python -m finetune.generate RUN_OR_FILE... --prompts TEXT... --to GRID.png`. Exit status as of `conf.errors`."""

import argparse
from collections.abc import Sequence
import io
from pathlib import Path
import sys

from conf.errors import exit_status
from finetune.generate.columns import make_columns
from finetune.generate.options import DEFAULT_CACHE, Options, parse_weighted
from finetune.names import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and draw a grid."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    given = _parser().parse_args(arguments)
    try:
        return exit_status(lambda: _generate(given))
    except KeyboardInterrupt:
        print("interrupted; the images that are finished stay", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _generate(given: argparse.Namespace) -> int:
    options = _options(given)
    options.check()
    columns = make_columns(options)
    # Here, since importing torch takes seconds that a wrong request should not have to wait for.
    from finetune.generate.work import generate

    generate(options, columns)
    print(shown(options.to))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.generate",
        description="Draw a grid: prompts and seeds down, weights across. The starting noise is the seed's alone, so "
        "that a row compares like with like.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "columns",
        metavar="RUN_OR_FILE",
        nargs="+",
        help="run folder (its recommended, else best, else last weights), weight file or folder, or the word base; an "
        "adapter's weights may follow: FILE:0.5,1",
    )
    add("--prompts", metavar="TEXT", nargs="+", required=True)
    add("--seeds", metavar="N", nargs="+", type=int, default=[0])
    add("--to", metavar="GRID.png", type=Path, required=True)
    add("--images", metavar="FOLDER", type=Path, help="of the single images; beside GRID.png by default")
    add(
        "--base",
        metavar="MODEL",
        help="tiny, sd15, ..., folder, hub id or .safetensors file; that of the runs",
    )
    add(
        "--config",
        metavar="FOLDER_OR_HUB_ID",
        help="of models in one .safetensors file; by default that of the original model, from the hub",
    )
    add(
        "--lora",
        metavar="FILE[:WEIGHT,...]",
        action="append",
        default=[],
        help="adapter, or run, that is added to every column; repeat to stack; every weight makes a column",
    )
    add("--negative", metavar="TEXT", default="", help="what images should not show")
    add("--steps", metavar="N", type=int, default=Options.steps, help="of denoising (default 30)")
    add("--guidance", metavar="SCALE", type=float, default=Options.guidance, help="default 7.5; 1: none")
    add("--size", metavar="PIXELS", type=int, help="side; by default that of the training images")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto")
    add("--cache-dir", metavar="FOLDER", type=Path, default=DEFAULT_CACHE, help="of converted single files")
    return parser


def _options(given: argparse.Namespace) -> Options:
    to: Path = given.to.expanduser()
    return Options(
        columns=tuple(parse_weighted("RUN_OR_FILE", text) for text in given.columns),
        prompts=tuple(given.prompts),
        to=to,
        images=given.images.expanduser() if given.images else to.with_suffix(""),
        seeds=tuple(given.seeds),
        loras=tuple(parse_weighted("--lora", text) for text in given.lora),
        base=given.base,
        config=given.config,
        negative=given.negative,
        steps=given.steps,
        guidance=given.guidance,
        size=given.size,
        device=given.device,
        cache=given.cache_dir.expanduser(),
    )


if __name__ == "__main__":
    sys.exit(main())
