"""Put a finished demo run's output and picture into the README: figures never go in by hand.

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
MARKED = re.compile(r"(<!-- demo-output -->).*?(<!-- /demo-output -->)", re.S)


def main(run: Path) -> None:
    """Rewrite the marked part of README.md and docs/images/win_rate.png."""
    from infalign.cli.show import print_results

    os.environ["COLUMNS"] = "80"
    with redirect_stdout(io.StringIO()) as printed:
        print_results(run)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("Report:"))
    readme = ROOT / "README.md"
    block = f"\\1\n```\n{text}\n```\n\\2"
    readme.write_text(MARKED.sub(lambda m: m.expand(block), readme.read_text()))
    shutil.copy(run / "plots" / "win_rate.png", ROOT / "docs/images/win_rate.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
