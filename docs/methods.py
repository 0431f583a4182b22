"""Write the tables of training methods into docs/training.md, from `infalign.methods`.

python docs/methods.py
"""

import re
from pathlib import Path

from infalign.methods import METHODS, Offline, OnPolicy

PAGE = Path(__file__).parent / "training.md"
KINDS = {"on-policy": (OnPolicy, "maximizes (minus β KL)"), "offline": (Offline, "minimizes")}


def table(name: str) -> str:
    """The methods of one kind as a table of Markdown."""
    kind, verb = KINDS[name]
    rows = [
        f"| `{m.name}` | {m.summary} | {m.source} |"
        for m in METHODS.values()
        if isinstance(m, kind)
    ]
    return "\n".join([f"| method | {verb} | source |", "|---|---|---|", *rows])


def written(page: str) -> str:
    """The page with the tables of today between its marks."""
    for name in KINDS:
        start, end = f"<!-- methods: {name} -->", "<!-- end -->"
        pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.S)
        page = pattern.sub(lambda _, s=start, n=name, e=end: f"{s}\n{table(n)}\n{e}", page)
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
