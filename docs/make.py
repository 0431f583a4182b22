"""Write docs/reference.md from the code, and docs/demo.md from a finished demo run.

python docs/make.py            # the reference
python docs/make.py runs/demo  # the reference, and the demo's output and picture
"""

import inspect
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRINTED = re.compile(r"(## What it prints\n\n```\n).*?(```\n)", re.S)
COLUMNS = "80"
"""Width of the terminal that the page shows."""


def commands(group=None, prefix: str = "infalign") -> Iterator[tuple[str, str]]:
    """(command, first sentence of its help), those of groups included."""
    if group is None:
        import typer

        from infalign.cli.app import app

        group = typer.main.get_command(app)
    for name, command in group.commands.items():
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", first_sentence(command.help)


def public_names() -> Iterator[tuple[str, str]]:
    """(name, first sentence of its documentation) of all that `infalign` exports."""
    import infalign

    for name in infalign.__all__:
        value = getattr(infalign, name)
        known = not isinstance(value, str)
        yield name, first_sentence(inspect.getdoc(value)) if known else "The installed version."


def first_sentence(text: str | None) -> str:
    """Up to the first full stop or blank line, on one line, fit for a cell of a table."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s(?=[A-Z`])", paragraph)[0].replace("|", "\\|")


def reference() -> str:
    """The page of all commands and public names."""
    tables = {
        "Commands": ("command", "purpose", commands()),
        "Python": ("name in `infalign`", "purpose", public_names()),
    }
    lines = [
        "# Reference",
        "",
        "Written by `make reference` from the code. "
        "`--help` explains a command, `help(infalign.NAME)` a name.",
    ]
    for title, (first, second, rows) in tables.items():
        lines += ["", f"## {title}", "", f"| {first} | {second} |", "|---|---|"]
        lines += [f"| `{name}` | {text} |" for name, text in rows]
    return "\n".join(lines) + "\n"


def write_demo(run: Path, pages: Path = ROOT / "docs") -> None:
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
    (ROOT / "docs" / "reference.md").write_text(reference(), encoding="utf-8")
    for run in sys.argv[1:]:
        write_demo(Path(run))
