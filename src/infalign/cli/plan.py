"""`infalign plan`: the prompts and samples that an evaluation needs to detect a difference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.table import Table

from infalign import storage
from infalign.core import AbstractProcedure, parse_procedure
from infalign.errors import ArgumentError, DataError
from infalign.evaluation.pilot import Components, components
from infalign.evaluation.power import BETWEEN, EvaluationPlan, table
from infalign.manifest import Manifest
from infalign.stores import by_prompt

from .show import Form
from .terminal import console, print_json
from .usage import read

HELP = (
    "Find how many prompts and samples an evaluation needs to detect a difference.\n\n"
    "The difference is between the win rates of two policies. No model is loaded.\n\n"
    "Example: infalign plan --procedure best-of-n:4 --kl 0.5 --difference 3"
)

DIFFERENCE = "Difference in win rate to detect, in percentage points."
KL = "KL of the policies from the reference, in nats."
PILOT = "Folder of a similar evaluation, to estimate the variance between prompts."


def plan(
    procedure: Annotated[
        list[str] | None,
        typer.Option(help="How the policies are decoded. Repeatable. Default: best-of-n:4."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="How the reference is decoded. Default: like the policies.")
    ] = None,
    difference: Annotated[float, typer.Option(help=DIFFERENCE)] = 3.0,
    kl: Annotated[float, typer.Option(help=KL)] = 0.5,
    pilot: Annotated[Path | None, typer.Option(help=PILOT)] = None,
    form: Annotated[Form, typer.Option("--format", help="Format of standard output.")] = Form.table,
):
    print_plan(tuple(procedure or ["best-of-n:4"]), against, difference, kl, pilot, form)


def print_plan(
    procedures: Sequence[str],
    against: str | None,
    difference: float,
    kl: float,
    pilot: Path | None,
    form: Form,
) -> None:
    """For each procedure, print the prompts needed to detect `difference` points, by number of
    samples."""
    if form not in (Form.table, Form.json):
        raise typer.BadParameter(
            f"a plan is printed as table or json; got {form.value!r}.", param_hint="--format"
        )
    if not 0 < difference < 100:
        raise ArgumentError("difference", f"must lie between 0 and 100 points; got {difference:g}.")
    opponent = read("against", parse_procedure, against) if against else None
    plans: dict[str, tuple[EvaluationPlan, ...]] = {}
    pilots: dict[str, Components] = {}
    for spec in procedures:
        procedure = read("procedure", parse_procedure, spec)
        between = BETWEEN
        if pilot is not None:
            pilots[spec] = _pilot(pilot, procedure, opponent)
            between = max(pilots[spec].between, 0.0)
        plans[spec] = table(procedure, difference / 100, kl=kl, against=opponent, between=between)
    if form is Form.json:
        print_json({spec: [_json(p) for p in own] for spec, own in plans.items()})
    else:
        _print(plans, pilots, difference, kl)


def _pilot(
    folder: Path, procedure: AbstractProcedure, against: AbstractProcedure | None
) -> Components:
    """Variance components of the difference between the first two policies of an evaluation."""
    from infalign.reports.page import results_of  # with matplotlib

    results = results_of(folder)
    names = [p["method"] for p in results["policies"]][:2]
    if len(names) < 2:
        raise DataError(f"{folder} compares one policy; a pilot of a difference needs two.")
    files = [folder / "evaluation" / f"{name}.parquet" for name in (*names, "reference")]
    for file in files:
        Manifest(file.parent).require(file)
    tables = [storage.read_table(file) for file in files]
    ids = list(dict.fromkeys(tables[0]["prompt_id"].to_pylist()))
    a, b, reference = (
        by_prompt(table, ids, source=str(file)).matrix("reward")
        for table, file in zip(tables, files, strict=True)
    )
    return components(a, b, reference, procedure, rng=np.random.default_rng(0), against=against)


def _json(plan: EvaluationPlan) -> dict:
    return asdict(plan) | {
        "procedure": plan.procedure.spec,
        "against": plan.against.spec,
        "half_width": plan.half_width,
        "responses": plan.responses,
        "sampling_share": plan.sampling_share,
    }


def _print(
    plans: Mapping[str, Sequence[EvaluationPlan]],
    pilots: Mapping[str, Components],
    difference: float,
    kl: float,
) -> None:
    from infalign.reports.plots import procedure_words  # with matplotlib

    screen = console()
    for spec, own in plans.items():
        shown = Table(
            title=f"To detect {difference:g} points between two policies at about {kl:g} nats, "
            f"{procedure_words(spec)}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for name in ("samples", "prompts", "total responses", "sampling noise"):
            shown.add_column(name, justify="right")
        fewest = min(own, key=lambda p: p.responses)
        for plan in own:
            shown.add_row(
                f"{plan.samples}",
                f"{plan.prompts:,}",
                f"{plan.responses:,}",
                f"{plan.sampling_share:.0%}",
                style="bold" if plan is fewest else None,
            )
        screen.print(shown)
        if spec in pilots:
            pilot = pilots[spec]
            screen.print(
                f"In the pilot's {pilot.prompts} prompts × {pilot.samples} samples, the standard "
                "deviation of the true difference between prompts is "
                f"{100 * max(pilot.between, 0) ** 0.5:.1f} points."
            )
        screen.print(
            "Detected: the 95 % interval of the paired difference, "
            f"± {100 * fewest.half_width:.1f} points, lies above 0 with a probability of 80 %."
        )
    screen.print(
        "Samples: per prompt, from each policy and from the reference. Sampling noise: the share "
        "of the variance that more samples would remove. Only more prompts reduce the rest. Bold: "
        "the fewest responses."
    )
    if not pilots:
        screen.print(
            "Assumed: the standard deviation of the true difference between prompts is "
            f"{100 * BETWEEN**0.5:.0f} points. --pilot FOLDER estimates it from an evaluation."
        )
