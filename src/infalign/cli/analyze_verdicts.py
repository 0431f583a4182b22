"""`infalign analyze --verdicts`: compare policies by the verdicts of judges."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import typer

from infalign import _check
from infalign.analysis import Gate, Judgment, gate, join_verdicts, judge, read_verdicts
from infalign.analysis.judgment_tables import JUDGED_NOTE, judgment_json, judgment_tables
from infalign.analysis.page import judgment_page
from infalign.errors import ArgumentError

from .analysis_output import Output
from .show import Form
from .terminal import console

__all__ = ["OWN", "VERDICTS", "Limits", "analyze_verdicts"]

VERDICTS = (
    "Verdicts of judges, instead of samples: FILE, or JUDGE=FILE if the file does not name the "
    "judge. Repeatable."
)
OWN = "Policy of a judge's own family, for its self-preference: JUDGE=POLICY. Repeatable."


class Limits(NamedTuple):
    """The gates that are asked for."""

    worse: str | None
    under: float | None
    margin: float


def analyze_verdicts(
    sources: Sequence[str],
    reference: str | None,
    policies: Sequence[str] | None,
    own: Sequence[str] | None,
    columns: Mapping[str, str],
    where: Mapping[str, str],
    drop: Collection[str],
    limits: Limits,
    form: Form,
    out: Path | None,
) -> None:
    """Print and write what judges say; the arguments are those of the command."""
    for kind in drop:
        if kind != "missing":
            raise typer.BadParameter(
                f"must be missing, the only one with --verdicts; got {kind}.", param_hint="--drop"
            )
    families: dict[str, set[str]] = {}
    for text in own or ():
        name, equals, policy = text.partition("=")
        if not (name and equals and policy):
            raise typer.BadParameter(
                f"must be JUDGE=POLICY; got {_check.short(text)}.", param_hint="--own"
            )
        families.setdefault(name, set()).add(policy)
    read = []
    for text in sources:
        name, equals, source = text.partition("=")
        named = bool(equals and name and source and not Path(text).exists())
        read.append(
            read_verdicts(
                source if named else text,
                columns=columns,
                where=where,
                reference=reference,
                **({"judge": name} if named else {}),
            )
        )
    try:
        judgment = judge(
            join_verdicts(read),
            reference=reference,
            policies=policies,
            own=families,
            drop="missing" in drop,
        )
    except ArgumentError as error:
        option = {"policies": "--policy", "reference": "--reference", "own": "--own"}
        if error.argument not in option:
            raise
        raise typer.BadParameter(error.problem, param_hint=option[error.argument]) from None
    gates = list(_gates(judgment, limits))
    screen = console(stderr=True)
    for note in judgment.notes:
        screen.print(note, markup=False, highlight=False)
    if judgment.unused:
        screen.print(
            f"{judgment.unused:,} verdicts between two other policies are not used",
            markup=False,
            highlight=False,
        )
    output = Output(judgment_tables(judgment), judgment_json(judgment), JUDGED_NOTE, gates)
    output.print(form)
    if out is not None:
        output.write(out, lambda command: judgment_page(judgment, command=command))
    output.end()


def _gates(judgment: Judgment, limits: Limits) -> Iterator[Gate]:
    if limits.worse not in (None, judgment.reference):
        raise typer.BadParameter(
            f"must name the reference, {_check.short(judgment.reference)}, with --verdicts; got "
            f"{_check.short(limits.worse)}.",
            param_hint="--fail-if-worse-than",
        )
    for name, own in judgment.panels.items():
        if limits.worse is not None:
            words = f"{name} against {limits.worse}, by the judges"
            yield gate(own.win_rate, 0.5, margin=limits.margin / 100, question=words)
        if limits.under is not None:
            words = f"{name} under {limits.under:g} %, by the judges"
            limit = limits.under / 100
            yield gate(own.win_rate, limit, margin=limits.margin / 100, question=words)
