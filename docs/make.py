"""Write docs/demo.md and its picture from a finished demo run: no figure is typed by hand.

python docs/make.py runs/demo
"""

import io
import os
import re
import shutil
import sys
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRINTED = re.compile(r"(## What it prints\n\n```\n).*?(```\n)", re.S)
COLUMNS = "80"
"""Width of the terminal that the page shows."""


def main(run: Path, pages: Path = ROOT / "docs") -> None:
    """Rewrite the output in `pages`/demo.md, and `pages`/images/win_rate.png."""
    from infalign.cli.show import print_results

    os.environ["COLUMNS"] = COLUMNS
    with redirect_stdout(io.StringIO()) as printed:
        print_results(run)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    text = "".join(f"{line}\n" for line in lines if not line.startswith("Report:"))
    page = pages / "demo.md"
    before, after = PRINTED.search(page.read_text()).groups()
    page.write_text(PRINTED.sub(lambda _: before + text + after, page.read_text()))
    (pages / "images").mkdir(exist_ok=True)
    shutil.copy(run / "plots" / "win_rate.png", pages / "images" / "win_rate.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
