"""`infalign analyze`: a verdict on samples that exist already."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from infalign import _check
from infalign.analysis import Analysis, Gate, analyze, gate, read_measure, read_samples
from infalign.analysis.columns import ROLES
from infalign.analysis.page import analysis_page
from infalign.analysis.reading import DROPS
from infalign.analysis.tables import NOTE, analysis_tables, as_json
from infalign.analysis.verdict_forms import VERDICT_ROLES

from .analysis_output import Output
from .analyze_verdicts import OWN, VERDICTS, Limits, analyze_verdicts
from .show import Form
from .terminal import console
from .usage import named_values, read, refuse

HELP = (
    "Compare policies from existing samples: files of rewards, logs of evaluations, counts.\n\n"
    "No model is loaded. Files are JSON Lines, JSON, CSV, TSV, Parquet, or logs of inspect_ai, "
    "lm-evaluation-harness, HELM, TRL, verl, OpenRLHF and alpaca_eval.\n\n"
    "Exit codes of a gate: 0 not worse, 3 shown worse, 4 the data cannot tell.\n\n"
    "Example: infalign analyze --reference base.jsonl --policy rl=rl.jsonl\n\n"
    "Example: infalign analyze --verdicts judged.jsonl --reference base"
)

REFERENCE = (
    "Samples of the reference: FILE or NAME=FILE; also a folder, a pattern, or - (stdin). With "
    "--verdicts: the name of the reference."
)
POLICY = (
    "Samples of a policy: FILE or NAME=FILE. Repeatable. With --verdicts: the name of a policy to "
    "compare. Default: all."
)
PROCEDURE = (
    "What to compare under: best-of-n, worst-of-n, pass@n, pass^n, majority-of-n, or one n of "
    "them: best-of-n:8, pass@8. Repeatable. Default: all that the samples allow."
)
COLUMN = "Column of a role: prompt=NAME, score=NAME, answer=NAME, … Repeatable."
WHERE = "Read only rows with a value: COLUMN=VALUE. Repeatable."
DROP = (
    f"Leave out instead of refusing: {', '.join(DROPS)}. With --verdicts, missing: invalid "
    "answers, and pairs without a judge's other order. Repeatable."
)
WORSE = "Gate: fail if a policy is worse than this one under --procedure."
UNDER = "Gate: fail if a policy has less than this percent under --procedure."
MARGIN = "Loss that a gate tolerates, in percentage points. Default: 1."
FORECAST = "Forecast pass@n at this n, beyond the number of samples. Repeatable."
TARGET = "Forecast the samples per prompt with which this percent of prompts succeeds. Repeatable."
ABOVE = "For forecasts from rewards: a sample succeeds if its reward is at least this."
OUT = "Folder for analysis.json, tables and the report page."


def analyze_samples(
    context: typer.Context,
    reference: Annotated[str | None, typer.Option(help=REFERENCE)] = None,
    policy: Annotated[list[str] | None, typer.Option(help=POLICY)] = None,
    verdicts: Annotated[list[str] | None, typer.Option(help=VERDICTS)] = None,
    own: Annotated[list[str] | None, typer.Option(help=OWN)] = None,
    procedure: Annotated[list[str] | None, typer.Option(help=PROCEDURE)] = None,
    column: Annotated[list[str] | None, typer.Option(help=COLUMN)] = None,
    where: Annotated[list[str] | None, typer.Option(help=WHERE)] = None,
    drop: Annotated[list[str] | None, typer.Option(help=DROP)] = None,
    fail_if_worse_than: Annotated[str | None, typer.Option(help=WORSE)] = None,
    fail_under: Annotated[float | None, typer.Option(help=UNDER)] = None,
    margin: Annotated[float | None, typer.Option(help=MARGIN)] = None,
    forecast: Annotated[list[int] | None, typer.Option(min=1, help=FORECAST)] = None,
    target: Annotated[list[float] | None, typer.Option(help=TARGET)] = None,
    forecast_above: Annotated[float | None, typer.Option(help=ABOVE)] = None,
    form: Annotated[Form, typer.Option("--format", help="Format of standard output.")] = Form.table,
    out: Annotated[Path | None, typer.Option(help=OUT)] = None,
) -> None:
    named = named_values("--column", column)
    rows = named_values("--where", where)
    for role in named:
        read("column", _check.one_of, "column", role, VERDICT_ROLES if verdicts else ROLES)
    for kind in drop or ():
        if kind not in DROPS:
            raise typer.BadParameter(
                f"must be one of {', '.join(DROPS)}; got {_check.short(kind)}.", param_hint="--drop"
            )
    for text in procedure or ():
        read("procedure", read_measure, text)
    if fail_under is not None and not 0 <= fail_under <= 100:
        raise typer.BadParameter(
            f"must lie between 0 and 100 percent; got {fail_under:g}.", param_hint="--fail-under"
        )
    gated = [] if verdicts else _gated(procedure, fail_if_worse_than, fail_under)
    if margin is not None and fail_if_worse_than is None and fail_under is None:
        raise typer.BadParameter(
            "belongs to a gate: give --fail-if-worse-than or --fail-under.", param_hint="--margin"
        )
    if margin is not None and margin < 0:
        raise typer.BadParameter(f"must be at least 0; got {margin:g}.", param_hint="--margin")
    margin = 1.0 if margin is None else margin
    if verdicts:
        refuse(
            context,
            "is not used with --verdicts.",
            *("procedure", "forecast", "target", "forecast_above"),
        )
        limits = Limits(fail_if_worse_than, fail_under, margin)
        analyze_verdicts(
            verdicts, reference, policy, own, named, rows, drop or (), limits, form, out
        )
        return
    refuse(context, "is used with --verdicts only.", "own")
    targets = _targets(target, forecast, forecast_above)
    if not reference:
        raise typer.BadParameter("must name a file, or give --verdicts.", param_hint="--reference")
    if not policy and not (forecast or targets):
        raise typer.BadParameter(
            "must name a file, or give --verdicts or a --forecast.", param_hint="--policy"
        )
    sides = _named([reference, *(policy or ())])
    _different([name for name, _ in sides])
    if fail_if_worse_than is not None and fail_if_worse_than not in dict(sides):
        raise typer.BadParameter(
            f"must name a policy, one of {', '.join(name for name, _ in sides)}; got "
            f"{_check.short(fail_if_worse_than)}.",
            param_hint="--fail-if-worse-than",
        )
    kinds = [kind for kind in drop or () if kind != "unmatched"]
    base, *others = (
        read_samples(source, name, columns=named, where=rows, drop=kinds) for name, source in sides
    )
    analysis = analyze(
        base,
        others,
        measured=procedure,
        drop="unmatched" in (drop or ()),
        forecast_at=forecast or (),
        targets=targets,
        above=forecast_above,
    )
    gates = list(_gates(analysis, gated, fail_if_worse_than, fail_under, margin))
    screen = console(stderr=True)
    for samples in analysis.matched.policies:
        for note in samples.notes:
            screen.print(f"{samples.name}: {note}", markup=False, highlight=False)
        if samples.stopping:
            screen.print(f"{samples.name}: {samples.stopping}", markup=False, highlight=False)
    for name, prompts in analysis.matched.without.items():
        screen.print(f"{name}: {len(prompts):,} prompts that others lack, left out", markup=False)
    for name, note in analysis.length_notes.items():
        screen.print(f"{name}: {note}", markup=False, highlight=False)
    output = Output(analysis_tables(analysis), as_json(analysis), NOTE, gates)
    output.print(form)
    if out is not None:
        output.write(out, lambda command: analysis_page(analysis, command=command))
    output.end()


def _targets(
    target: Sequence[float] | None, forecast: Sequence[int] | None, above: float | None
) -> list[float]:
    """The targets as fractions."""
    for percent in target or ():
        if not 0 < percent < 100:
            raise typer.BadParameter(
                f"must lie strictly between 0 and 100 percent; got {percent:g}.",
                param_hint="--target",
            )
    if above is not None and not (target or forecast):
        raise typer.BadParameter(
            "belongs to a forecast: give --forecast or --target.", param_hint="--forecast-above"
        )
    return [percent / 100 for percent in target or ()]


def _named(texts: Sequence[str]) -> list[tuple[str, str]]:
    """The name and the source of each NAME=FILE. A file without a name has its own, or that of its
    folder where another file is called the same."""
    sides: list[tuple[str | None, str]] = []
    for text in texts:
        name, equals, source = text.partition("=")
        named = equals and name and source and not Path(text).exists()
        sides.append((name, source) if named else (None, text))
    stems = [_stem(Path(source)) for _, source in sides]
    folders = [Path(source).absolute().parent.name for _, source in sides]
    return [
        (
            name or ("reference" if source == "-" else folder if stems.count(stem) > 1 else stem),
            source,
        )
        for (name, source), stem, folder in zip(sides, stems, folders, strict=True)
    ]


def _stem(path: Path) -> str:
    return path.name.partition(".")[0] or path.absolute().name or str(path)


def _different(names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise typer.BadParameter(
            f"names {_check.short(twice)} twice. Name each one: NAME=FILE.", param_hint="--policy"
        )


def _gated(procedure: Sequence[str] | None, worse: str | None, under: float | None) -> list[str]:
    """The measures at one n that gates are for."""
    if worse is None and under is None:
        return []
    hint = "--fail-if-worse-than" if worse is not None else "--fail-under"
    if not procedure or any(read_measure(text).sizes is None for text in procedure):
        raise typer.BadParameter(
            "needs --procedure with its n, such as best-of-n:8 or pass@8.", param_hint=hint
        )
    return list(procedure)


def _gates(
    analysis: Analysis,
    measures: Sequence[str],
    worse: str | None,
    under: float | None,
    margin: float,
) -> Iterator[Gate]:
    """The gate of each policy under each measure."""
    for text in measures:
        for name in analysis.policies:
            if worse is not None and name != worse:
                estimate = analysis.difference(name, worse, text)
                words = f"{name} against {worse}, {text}"
                yield gate(estimate, margin=margin / 100, question=words)
            if under is not None:
                words = f"{name} under {under:g} %, {text}"
                own = analysis.own(name, text)
                yield gate(own, under / 100, margin=margin / 100, question=words)
