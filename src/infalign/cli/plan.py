"""`infalign evaluate --plan`: how large an evaluation has to be."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from infalign import storage
from infalign.core import parse_procedure
from infalign.errors import DataError
from infalign.evaluation.pilot import Components, components
from infalign.evaluation.power import BETWEEN, EvaluationPlan, table
from infalign.reports.page import read_results
from infalign.reports.plots import procedure_words
from infalign.stores import by_prompt


def print_plan(
    procedures: tuple[str, ...],
    against: str | None,
    difference: float,
    kl: float,
    pilot: Path | None,
    form: str,
) -> None:
    """For each procedure, the prompts that show `difference` points, by samples per prompt."""
    opponent = parse_procedure(against) if against else None
    plans: dict[str, tuple[EvaluationPlan, ...]] = {}
    seen: dict[str, Components] = {}
    for spec in procedures:
        procedure = parse_procedure(spec)
        between = BETWEEN
        if pilot is not None:
            seen[spec] = _pilot(pilot, procedure, opponent)
            between = max(seen[spec].between, 0.0)
        plans[spec] = table(procedure, difference / 100, kl=kl, against=opponent, between=between)
    if form == "json":
        print(json.dumps({spec: [_json(p) for p in found] for spec, found in plans.items()}))
        return
    _print(plans, seen, difference, kl)


def _pilot(folder: Path, procedure, against) -> Components:
    """Variance components between the first two policies of an evaluation that there is."""
    results = read_results(folder / "evaluation" / "results.json")
    names = [p["method"] for p in results["policies"]][:2]
    if len(names) < 2:
        raise DataError(f"{folder} compares one policy; a pilot of a difference needs two.")
    files = [folder / "evaluation" / f"{name}.parquet" for name in (*names, "reference")]
    tables = [storage.read_table(file) for file in files]
    ids = list(dict.fromkeys(tables[0]["prompt_id"].to_pylist()))
    rewards = [
        by_prompt(table, ids, source=str(file)).matrix("reward")
        for table, file in zip(tables, files, strict=True)
    ]
    return components(*rewards, procedure, rng=np.random.default_rng(0), against=against)


def _json(plan: EvaluationPlan) -> dict:
    figures = asdict(plan) | {
        "procedure": plan.procedure.spec,
        "against": plan.against.spec,
        "half_width": plan.half_width,
        "responses": plan.responses,
        "sampling_share": plan.sampling_share,
    }
    return figures


def _print(plans, seen, difference: float, kl: float) -> None:
    console = Console()
    for spec, found in plans.items():
        shown = Table(
            title=f"To see {difference:g} points between two policies at about {kl:g} nats, "
            f"{procedure_words(spec)}",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for name in ("samples", "prompts", "responses in all", "noise left"):
            shown.add_column(name, justify="right")
        fewest = min(found, key=lambda p: p.responses)
        for plan in found:
            shown.add_row(
                f"{plan.samples}",
                f"{plan.prompts:,}",
                f"{plan.responses:,}",
                f"{plan.sampling_share:.0%}",
                style="bold" if plan is fewest else None,
            )
        console.print(shown)
        reach = f"{100 * fewest.half_width:.1f}"
        if spec in seen:
            pilot = seen[spec]
            console.print(
                f"From the pilot's {pilot.prompts} prompts × {pilot.samples} samples: the true "
                f"difference varies by {100 * max(pilot.between, 0) ** 0.5:.1f} points between "
                "prompts."
            )
    console.print(
        f"Seen: the 95 % interval of the paired difference, {reach} points to either side, ends "
        "above 0 with a chance of 80 %. "
        "Samples are per prompt, of each policy and of the reference. Noise left: the share of "
        "the variance that more samples could still remove; the rest only more prompts do. Bold: "
        "the fewest responses."
    )
    if not seen:
        console.print(
            f"Assumed: true differences vary by {100 * BETWEEN**0.5:.0f} points between prompts. "
            "--pilot FOLDER finds it in an evaluation that you have."
        )
