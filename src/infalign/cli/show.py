"""Results on the terminal: tables for people, one line per fact for machines."""

import json
from pathlib import Path

from rich.console import Console

from infalign.reports.page import read_results
from infalign.reports.tables import NOTE, latex, markdown, terminal


def print_results(folder: Path, form: str = "table") -> None:
    """The results of an evaluated run or comparison, on standard output.

    - `form`: table, json, markdown or latex.
    """
    results = read_results(folder / "evaluation" / "results.json")
    if form == "json":
        print(json.dumps(results, ensure_ascii=False))
        return
    if form in ("markdown", "latex"):
        print((markdown if form == "markdown" else latex)(results), end="")
        return
    console = Console()
    for table in terminal(results):
        console.print(table)
    console.print(NOTE)
    if not results["evidence"]:
        console.print("[bold]A try-out, too small to be evidence: the numbers prove nothing.[/]")
    page = folder / "report.html"
    if page.exists():
        console.print(f"Report: {page.resolve()}", soft_wrap=True)
