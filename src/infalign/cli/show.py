"""Results on the terminal: tables for people, one line of JSON for machines."""

import json
from enum import StrEnum
from pathlib import Path

from rich.console import Console

from infalign.reports.page import results_of
from infalign.reports.tables import NOTE, latex, markdown, terminal


class Form(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    markdown = "markdown"
    latex = "latex"


def print_results(folder: Path, form: Form = Form.table) -> None:
    """Print the results of an evaluated run or comparison on standard output."""
    results = results_of(folder)
    match form:
        case Form.json:
            print(json.dumps(results, ensure_ascii=False))
        case Form.markdown:
            print(markdown(results), end="")
        case Form.latex:
            print(latex(results), end="")
        case Form.table:
            _print_table(results, folder / "report.html")


def _print_table(results: dict, page: Path) -> None:
    console = Console()
    for table in terminal(results):
        console.print(table)
    console.print(NOTE)
    if not results["evidence"]:
        console.print("[bold]Quick run: these numbers are not evidence.[/]")
    if page.exists():
        console.print(f"Report: {page.resolve()}", soft_wrap=True)
