"""Results on the terminal: tables for people, one line of JSON for machines."""

from enum import StrEnum
from pathlib import Path

from .terminal import console, print_json


class Form(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    markdown = "markdown"
    latex = "latex"


def print_results(folder: Path, form: Form = Form.table) -> None:
    """Print the results of an evaluated run or comparison on standard output."""
    from infalign.reports.page import results_of  # with matplotlib
    from infalign.reports.tables import latex, markdown

    results = results_of(folder)
    match form:
        case Form.json:
            print_json(results)
        case Form.markdown:
            print(markdown(results), end="")
        case Form.latex:
            print(latex(results), end="")
        case Form.table:
            _print_table(results, folder / "report.html")


def _print_table(results: dict, page: Path) -> None:
    from infalign.reports.tables import NOTE, terminal

    screen = console()
    for table in terminal(results):
        screen.print(table)
    screen.print(NOTE)
    if not results["evidence"]:
        screen.print("Quick run: these numbers are not evidence.", style="bold")
    if page.exists():
        screen.print(f"Report: {page.resolve()}", soft_wrap=True)
