"""A campaign of random problems whose answers are checked by independent code.

    make verify               # ten minutes; the next call continues where one was ended
    make verify MINUTES=60    # as many problems as are tried within this time


A problem follows from the seed, the family and its number. Families have fixed shares of the
time. The journal belongs to one state of the package's numerical code: after a change of it,
the campaign begins again. At the end docs/verified.md is written. The exit code is 1 if there are
defects.
"""

import argparse
import hashlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from campaigns import Journal

import infalign

from .check import DEFECTS
from .families import FAMILIES
from .page import write_page

ROOT = Path(__file__).parents[2]
NUMERICAL = ("core", "evaluation", "calibration")
"""Folders of the package whose code the journal belongs to."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try problems until the time is up, write the page."""
    options = _options(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    work = options.work / f"{_state()}-{options.seed}"
    if options.fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    journals = {name: Journal(work / f"{name}.jsonl") for name in options.families}
    _try(journals, options)
    rows = {name: journal.rows() for name, journal in journals.items()}
    return write_page(rows, {"seed": options.seed}, options.out)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--problems", type=int, help="of each family; default: no limit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="problems at the same time")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/verify", help="for the journal")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier campaign")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    return parser.parse_args(arguments)


def _state() -> str:
    """A fingerprint of the package's numerical code and of these checks."""
    package = Path(infalign.__file__).parent
    folders = [*(package / name for name in NUMERICAL), Path(__file__).parent]
    files = sorted(itertools.chain.from_iterable(f.rglob("*.py") for f in folders))
    return hashlib.sha256(b"\0".join(f.read_bytes() for f in files)).hexdigest()[:12]


def _try(journals: dict[str, Journal], options: argparse.Namespace) -> None:
    """Try the problems, always one of the family that has had the least time."""
    end = time.monotonic() + 60 * options.minutes
    last = options.problems or sys.maxsize
    numbers, spent = {}, {}
    for name, journal in journals.items():
        done = journal.tried()
        numbers[name] = (n for n in itertools.count() if n not in done)
        spent[name] = sum(row["seconds"] for row in journal.rows())
    running: dict[Future, str] = {}
    with ProcessPoolExecutor(options.jobs) as pool:
        while True:
            while len(running) < options.jobs and spent and time.monotonic() < end:
                name = min(spent, key=lambda name: spent[name] / FAMILIES[name].share)
                if (number := next(numbers[name])) >= last:
                    del spent[name]
                    continue
                running[pool.submit(_tried, name, options.seed, number)] = name
                spent[name] += 0.01  # so that two jobs do not try the same family only
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, row = running.pop(future), future.result()
                journals[name].add(row)
                if name in spent:
                    spent[name] += row["seconds"]
                if row["outcome"] in DEFECTS:
                    print(f"{name} {row['case']}: {row['outcome']}: {row['words']}", flush=True)


def _tried(name: str, seed: int, number: int) -> dict:
    return FAMILIES[name].try_(seed, number)


if __name__ == "__main__":
    sys.exit(main())
