"""A fault campaign: damage, kills, full disks, odd inputs, hostile texts and lying servers.

    make faults               # all, in hours; the next call continues where one was ended
    make faults SCALE=0.01    # one case in a hundred of each kind
    make faults MINUTES=20    # as many as are tried within this time


Every case is a command with one fault. The command must name the fault, or end as it does without
it. The cases follow from the seed. A campaign that was killed continues with the next call.
At the end docs/faults.md is written. The exit code is 1 if there are defects.
"""

import argparse
import importlib
import math
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import walk_packages

from campaigns import Journal

import infalign

from . import disks, files, fuzz, kills, pairs, servers, texts
from .outcomes import DEFECTS, Case
from .page import write_page
from .world import World

ROOT = Path(__file__).parents[2]
ALONE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
"""No case reaches the network, and no library starts threads that a fork would lose."""

PARTS = {
    "files": files,
    "kills": kills,
    "pairs": pairs,
    "disks": disks,
    "fuzz": fuzz,
    "texts": texts,
    "servers": servers,
}
"""Modules with `cases(world, rng, wanted)`, all cases of a part."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try all cases, write the page."""
    options = _options(arguments)
    os.environ |= ALONE
    from runs import load_libraries

    load_libraries()
    _load_package()
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True, exist_ok=True)

    def wanted(kind: str) -> bool:
        return not options.kinds or kind in options.kinds

    world, began, todo = World.make(options.work / "world"), time.monotonic(), []
    journals = {part: Journal(options.work / f"{part}.jsonl") for part in options.parts}
    known: dict[str, set[str]] = {}
    whole = 0
    for part, journal in journals.items():
        rng = random.Random(f"{options.seed} {part}")
        listed = [c for c in PARTS[part].cases(world, rng, wanted) if wanted(c.kind)]
        whole += len(listed)
        cases = thinned(listed, options.scale, rng)
        known[part] = {case.name for case in cases}
        done = journal.tried(but=DEFECTS if options.again else ())
        todo += [(journal, c) for c in cases if c.name not in done]
    # Mixed, so that a campaign that ends early has tried some of everything.
    random.Random(options.seed).shuffle(todo)
    tried = {(j.path, row["case"]) for j in journals.values() for row in j.rows()}
    todo.sort(key=lambda one: (one[0].path, one[1].name) not in tried)  # defects first
    _try(todo, options)
    rows = {
        part: [row for row in journal.rows() if row["case"] in known[part]]
        for part, journal in journals.items()
    }
    facts = {"seed": options.seed, "scale": options.scale, "jobs": options.jobs}
    facts |= {"whole": whole, "seconds": round(time.monotonic() - began)}
    return write_page(rows, facts, options.out)


def _load_package() -> None:
    """Import what commands import, so that no case spends time on it. Optional libraries that are
    not installed stay out, and so do scripts."""
    for module in walk_packages(infalign.__path__, "infalign."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):
                importlib.import_module(module.name)
    for name in ("openai", "urllib3", "uvicorn", "starlette.testclient", "markdown_it"):
        with suppress(ImportError):
            importlib.import_module(name)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--kinds", nargs="+", help="rows of the page; default: all")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the cases of each kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="cases at the same time")
    parser.add_argument("--minutes", type=float, default=math.inf, help="time for the cases")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/faults", help="for the journal")
    parser.add_argument("--fresh", action="store_true", help="forget an earlier campaign")
    parser.add_argument("--again", action="store_true", help="try defects again")
    parser.add_argument("--out", type=Path, default=ROOT, help="folder instead of the repository")
    return parser.parse_args(arguments)


def thinned(cases: Sequence[Case], scale: float, rng: random.Random) -> list[Case]:
    """A share of the cases of each kind, drawn at random, in their order; at least one of each."""
    by_kind: dict[str, list[int]] = {}
    for i, case in enumerate(cases):
        by_kind.setdefault(case.kind, []).append(i)
    drawn = [rng.sample(own, max(1, round(scale * len(own)))) for own in by_kind.values()]
    return [cases[i] for i in sorted(i for own in drawn for i in own)]


def _try(todo: Sequence[tuple[Journal, Case]], options: argparse.Namespace) -> None:
    """Try the cases in forked processes, until they are done or the time is up."""
    end = time.monotonic() + 60 * options.minutes
    workers = []
    for job in range(options.jobs):
        sys.stdout.flush()
        sys.stderr.flush()
        if not (pid := os.fork()):
            code = 1
            try:
                os.setsid()
                own = todo[job :: options.jobs]
                judged = [_judged(*one, options.work) for one in own if time.monotonic() < end]
                code = int(not all(judged))
            finally:
                sys.stderr.flush()
                os._exit(code)
        workers.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in workers]
    if any(codes):
        print("Some cases could not be judged: the campaign has an error.", file=sys.stderr)
        raise SystemExit(3)


def _judged(journal: Journal, case: Case, work: Path) -> bool:
    """Try a case, write its verdict; whether there is one."""
    with tempfile.TemporaryDirectory(dir=work, prefix="case-", ignore_cleanup_errors=True) as name:
        began = time.monotonic()
        try:
            verdict = case.try_(Path(name).resolve())
        except Exception:
            print(f"In the case {case.name}", file=sys.stderr)
            traceback.print_exc()
            return False
        row = {"kind": case.kind, "case": case.name}
        journal.add(row | {"outcome": verdict.outcome, "words": verdict.words})
    spent = time.monotonic() - began
    print(f"{case.name}: {verdict.outcome}, {spent:.1f} s", file=sys.stderr, flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
