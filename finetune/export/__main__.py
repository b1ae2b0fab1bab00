"""`python -m finetune.export RUN_OR_WEIGHTS --to TARGET`. Exit status as of `conf.errors`."""

import argparse
from collections.abc import Sequence
import io
from pathlib import Path
import sys

from conf.errors import exit_status
from finetune.export.options import DEFAULT_CACHE, FORMATS, Options
from finetune.names import shown
from finetune.weights import LORA, WHICH, check_family, find_base_of, find_weights

KEY = "RUN_OR_WEIGHTS"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and export weights."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = _options(_parser().parse_args(arguments))
    try:
        return exit_status(lambda: _export(options))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _export(options: Options) -> int:
    options.check()
    weights = find_weights(KEY, options.source, options.which)
    form = options.form_for(weights)
    base = find_base_of(weights, KEY, options.base, options.config, options.cache)
    if weights.form == LORA:
        check_family(weights, base)
    # Here, since importing torch takes seconds that a wrong request should not have to wait for.
    from finetune.export.work import export

    export(options, form, weights, base)
    print(shown(options.to))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.export",
        description="Write trained weights in the form that other programs load. What is exported stays as it is.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("source", metavar=KEY, help="run folder, weight file, or folder of trained networks or a whole model")
    add("--to", metavar="TARGET", type=Path, required=True, help="new .safetensors file, or new folder")
    add(
        "--format",
        choices=FORMATS,
        help="of an adapter: diffusers, or kohya for web UIs; of a whole model: folder for diffusers, or single_file "
        "for web UIs; by default as TARGET is named",
    )
    add("--which", choices=WHICH, help="weights of a run; by default the first of these that there are")
    add("--fuse", metavar="WEIGHT", type=float, help="make an adapter part of its base model: 1 as trained")
    add(
        "--base",
        metavar="MODEL",
        help="tiny, sd15, ..., folder, hub id or .safetensors file; that of the weights",
    )
    add(
        "--config",
        metavar="FOLDER_OR_HUB_ID",
        help="of a model in one .safetensors file; by default that of the original model, from the hub",
    )
    add("--cache-dir", metavar="FOLDER", type=Path, default=DEFAULT_CACHE, help="of converted single files")
    return parser


def _options(given: argparse.Namespace) -> Options:
    return Options(
        source=given.source,
        to=given.to.expanduser(),
        form=given.format,
        which=given.which,
        fuse=given.fuse,
        base=given.base,
        config=given.config,
        cache=given.cache_dir.expanduser(),
    )


if __name__ == "__main__":
    sys.exit(main())
