"""Puts recorded runs into one small file for the tests, or lays such a file out as run folders.

    python -m benchmarks.own_sets.pack RUNS FILE
    python -m benchmarks.own_sets.pack --unpack FILE RUNS

What is laid out is a folder of run folders: `python -m analysis recommend RUNS`, `replay RUNS` and `report RUNS` read it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from benchmarks.own_sets.packed import pack, read_run, unpack
from conf.errors import RequestError, exit_status
from curves.run_folder import find_runs


def main() -> int:
    """Returns: the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("source", type=Path, help="folder of run folders; with --unpack a packed file")
    parser.add_argument("to", type=Path, help="file to write; with --unpack the folder")
    parser.add_argument("--unpack", action="store_true")
    options = parser.parse_args()
    return exit_status(lambda: (_unpack if options.unpack else _pack)(options.source, options.to))


def _pack(source: Path, to: Path) -> int:
    runs = [read_run(folder) for folder in find_runs(source) if folder.outcome() is not None]
    if not runs:
        raise RequestError(f"{source}: there are no finished runs in this folder")
    pack(runs, to)
    print(f"{len(runs)} runs in {to}, {to.stat().st_size} bytes")
    return 0


def _unpack(source: Path, to: Path) -> int:
    if to.exists() and any(to.iterdir()):
        raise RequestError(f"{to}: is not empty; unpack into a new folder")
    print(f"{len(unpack(source, to))} runs in {to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
