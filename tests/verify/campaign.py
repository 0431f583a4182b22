"""A campaign of random problems whose answers are checked by independent code.

    make verify               # ten minutes; the next call continues where one was ended
    make verify MINUTES=60    # as many problems as are tried within this time


A problem follows from the seed, the family and its number. Families have fixed shares of the
time. The journal of a family belongs to one state of the code that the family imports: after a
change of that code, the family begins again, and the others continue. At the end docs/verified.md
is written, with every family that has a journal. The exit code is 1 if there are defects.
"""

import argparse
import itertools
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

import imported
from campaigns import Journal

from .check import DEFECTS
from .families import FAMILIES
from .page import write_page

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Try problems until the time is up, write the page."""
    options = _options(arguments)
    os.environ["OMP_NUM_THREADS"] = "1"
    options.work.mkdir(parents=True, exist_ok=True)
    journals = {name: journal(name, options.seed, options.work) for name in FAMILIES}
    tried = {name: journals[name] for name in options.families}
    if options.fresh:
        for begun in tried.values():
            begun.path.unlink(missing_ok=True)
    _try(tried, options)
    rows = {name: rows for name, own in journals.items() if (rows := own.rows())}
    return write_page(rows, {"seed": options.seed}, options.out)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--problems", type=int, help="of each family; default: no limit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="problems at the same time")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/verify", help="for the journals")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier campaign")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    return parser.parse_args(arguments)


def journal(name: str, seed: int, work: Path) -> Journal:
    """The journal of a family, of a seed, and of the code as it is."""
    return Journal(
        work / f"{name.replace(' ', '-')}-{seed}-{imported.state(FAMILIES[name].files)}.jsonl"
    )


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
