"""What `infalign analyze` prints and writes, and its exit code as a gate."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from infalign import storage
from infalign.analysis import Gate, Outcome
from infalign.errors import ArgumentError
from infalign.reports.tables import Table, in_latex, in_markdown, in_terminal

from .show import Form
from .terminal import console, json_text, print_json

__all__ = ["Output"]


@dataclass(frozen=True)
class Output:
    """One verdict, in every form."""

    tables: list[Table]
    values: Mapping[str, Any]
    note: str
    gates: Sequence[Gate]

    def print(self, form: Form) -> None:
        """Print the verdict on standard output, and what the gates say on standard error."""
        if form is Form.json:
            gates = {own.question: _plain(own) for own in self.gates}
            print_json({**self.values, "gates": gates})
        elif form is Form.table:
            out = console()
            for table in self.tables:
                for part in in_terminal(table):
                    out.print(part)
            out.print(self.note, markup=False, highlight=False)
        else:
            print(self._text(form), end="")
        screen = console(stderr=True)
        for own in self.gates:
            screen.print(own.sentence, markup=False, highlight=False, soft_wrap=True)

    def write(self, out: Path, page: Callable[[str], str]) -> None:
        """Write everything into a folder; each file is complete or absent.

        - `page`: the report page, from the command that makes it.
        """
        if out.exists() and not out.is_dir():
            raise ArgumentError("out", f"must be a folder; {out} is a file.")
        out.mkdir(parents=True, exist_ok=True)
        storage.write_text(out / "analysis.json", json_text(self.values) + "\n")
        storage.write_text(out / "tables.md", self._text(Form.markdown))
        storage.write_text(out / "tables.tex", self._text(Form.latex))
        storage.write_text(out / "report.html", page(shlex.join(["infalign", *sys.argv[1:]])))
        print(f"Report: {(out / 'report.html').resolve()}", file=sys.stderr)

    def end(self) -> None:
        """Exit with the code of the gates, unless it is 0."""
        outcomes = [own.outcome for own in self.gates]
        code = next((o for o in (Outcome.WORSE, Outcome.CANNOT_TELL) if o in outcomes), 0)
        if code:
            raise typer.Exit(int(code))

    def _text(self, form: Form) -> str:
        one, note = (
            (in_markdown, self.note) if form is Form.markdown else (in_latex, f"% {self.note}")
        )
        return "\n\n".join([*map(one, self.tables), note]) + "\n"


def _plain(own: Gate) -> dict:
    return {
        "outcome": own.outcome.name.lower(),
        "value": own.estimate.value,
        "low": own.estimate.low,
        "high": own.estimate.high,
        "limit": own.limit,
        "margin": own.margin,
        "prompts_needed": own.prompts_needed,
    }
