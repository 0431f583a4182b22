"""`infalign design`: the analytical tool."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

DEFAULTS = ["identity", "probit", "log", "exponential:5", "exponential:10", "exponential:-5"]


def design(
    procedure: Annotated[str, typer.Option(help="sampling, best-of-n:N or worst-of-n:N.")],
    kl: Annotated[float | None, typer.Option(help="KL budget in nats per sequence.")] = None,
    beta: Annotated[float | None, typer.Option(help="KL strength, instead of a budget.")] = None,
    against: Annotated[str | None, typer.Option(help="The opponent's procedure.")] = None,
    transform: Annotated[
        list[str] | None, typer.Option(help="Candidate to compare; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw win rate against KL, as PNG.")
    ] = None,
):
    """Best transform for a procedure and a KL budget, beside simple ones. No training needed.

    Example: infalign design --procedure best-of-n:4 --kl 0.5
    """
    import numpy as np

    from infalign.design import compare
    from infalign.design import design as solve
    from infalign.procedures import parse_procedure
    from infalign.transforms import parse_transform

    played = parse_procedure(procedure)
    opponent = parse_procedure(against or procedure)
    best = solve(played, kl=kl, beta=beta, against=opponent)
    candidates = [parse_transform(t) for t in transform or DEFAULTS]
    rows = compare(played, candidates, kl=best.kl, against=opponent)[1:]
    if plot:
        from infalign.reports.plots import frontier, save_png

        kls = np.linspace(best.kl / 12, 2 * best.kl, 24).tolist()
        curves = compare(played, candidates, kl=kls, against=opponent)
        save_png(frontier(played.spec, curves, best.kl), plot)
    result = {
        "procedure": played.spec,
        "against": opponent.spec,
        "kl": best.kl,
        "beta": best.beta,
        "win_rate": best.win_rate,
        "gap": None if best.gap != best.gap else best.gap,
        "candidates": [
            {"transform": r.transform, "win_rate": r.win_rate, "beta": r.beta} for r in rows
        ],
    }
    if as_json:
        print(json.dumps(result))
        return
    console = Console()
    table = Table(title=f"{played.spec} against {opponent.spec} at {best.kl:.3g} nats")
    for column in ("transform", "win rate", "short of the best", "β"):
        table.add_column(column, justify="left" if column == "transform" else "right")
    table.add_row("optimal", f"{best.win_rate:.4f}", "", f"{best.beta:.4g}", style="bold")
    for r in sorted(rows, key=lambda r: r.loss):
        table.add_row(r.transform, f"{r.win_rate:.4f}", f"{r.loss:.4f}", f"{r.beta:.4g}")
    console.print(table)
    certificate = (
        f"Certified: no policy gains more than {best.gap:.1e} at this β."
        if best.gap == best.gap
        else "No certificate: the win rate is not concave for this procedure."
    )
    console.print(certificate)
