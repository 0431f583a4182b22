"""Times the package's computations and their alternatives on one core, and writes the page.

    make bench                       # or: python benchmarks/run.py [--smoke] [--only PART …]

Writes benchmarks/results.json, docs/benchmarks.md and docs/images/bench_*.png. Results for the docs
need a quiet machine; they record the load average at the start.
"""

import argparse
import json
import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
ONE_CORE = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    """Measure, save, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="a few tiny cases, to test the script")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="PART",
        help="measure only these; keep the other results",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT, help="output folder; default: the repository"
    )
    arguments = parser.parse_args()

    # numpy reads the number of threads once, on import.
    os.environ |= dict.fromkeys(ONE_CORE, "1")
    import cases
    import report

    unknown = sorted(set(arguments.only) - set(cases.PARTS))
    if unknown:
        parser.error(f"--only: {unknown[0]!r} is not a part; parts are {', '.join(cases.PARTS)}")
    results = cases.measure(cases.SMOKE if arguments.smoke else cases.FULL, arguments.only)
    if arguments.only:
        saved = json.loads((arguments.out / "benchmarks" / "results.json").read_text())
        results = saved | {name: results[name] for name in arguments.only}
    report.write(results, arguments.out)


if __name__ == "__main__":
    main()
