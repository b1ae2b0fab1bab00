"""`python -m finetune.prepare SOURCE --to FOLDER`. Exit status: 0 done, 1 the work failed, 2 wrong request."""

import argparse
from collections.abc import Sequence
import io
from pathlib import Path
import sys

from conf.errors import RequestError, exit_status
from finetune.names import shown
from finetune.prepare.options import Options
from finetune.prepare.summary import lines, write_html
from finetune.prepare.work import Preparation


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and prepare a folder."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    options = _options(_parser().parse_args(arguments))
    try:
        return exit_status(lambda: prepare(options))
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def prepare(options: Options) -> int:
    """Prepare a folder, and say what came of it.

    Raises:
        RequestError: the request is wrong, or no image can be used.
        WorkError: a model failed.
    """
    options.check()
    result = Preparation(options).run()
    for line in lines(result, options):
        print(line)
    print(write_html(result, options))
    if not result.of("prepared"):
        raise RequestError(f"SOURCE={shown(options.source)}: none of its images could be used, as said above")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m finetune.prepare",
        description="Make a folder of images ready for training. SOURCE stays as it is; a rerun does what is new.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "source",
        metavar="SOURCE",
        type=Path,
        help="folder of images: plain, with metadata.jsonl, or with N_name folders",
    )
    add("--to", metavar="FOLDER", type=Path, required=True, help="new folder for PNG and .txt files")
    add(
        "--size",
        type=int,
        metavar="PIXELS",
        help="side of the square (of equal area: bucket); of the shorter side: none",
    )
    add(
        "--square",
        choices=["none", "crop", "pad", "bucket"],
        default="none",
        help="none keeps the shape (default)",
    )
    add(
        "--background",
        choices=["keep", "remove"],
        default="keep",
        help="remove: white instead, by rembg or own alpha",
    )
    add(
        "--background-model",
        type=Path,
        metavar="FILE",
        help="ONNX file; without it rembg downloads its default",
    )
    add(
        "--captions", choices=["keep", "write", "none"], default="keep", help="keep those of SOURCE (default)"
    )
    add("--captioner", default=Options.captioner, metavar="MODEL", help="folder or hub id of a BLIP model")
    add("--caption-prefix", default="", metavar="TEXT", help="put before every caption")
    add("--caption-suffix", default="", metavar="TEXT", help="put after every caption")
    add(
        "--special-words",
        default="",
        metavar="A,B",
        help="words that every caption must have; added where lacking",
    )
    add(
        "--encoding",
        default="auto",
        help="of caption files: auto (UTF-8, or GBK where plain), gbk, big5, ...",
    )
    add(
        "--duplicates",
        choices=["report", "drop", "keep"],
        default="report",
        help="of pictures that look alike; drop: one stays",
    )
    return parser


def _options(given: argparse.Namespace) -> Options:
    return Options(
        source=given.source.expanduser(),
        to=given.to.expanduser(),
        size=given.size,
        square=given.square,
        background=given.background,
        background_model=given.background_model and given.background_model.expanduser(),
        captions=given.captions,
        captioner=given.captioner,
        prefix=given.caption_prefix,
        suffix=given.caption_suffix,
        special_words=tuple(word.strip() for word in given.special_words.split(",") if word.strip()),
        encoding=given.encoding,
        duplicates=given.duplicates,
    )


if __name__ == "__main__":
    sys.exit(main())
