"""`infalign design`: the best transform for a procedure, in theory."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from infalign.core import procedure_forms, transform_forms

from .terminal import console, print_json
from .usage import read

GOOD_ENOUGH = 0.005
"""Acceptable loss of win rate: half a point, which is less than the difference between training and
theory."""

DEFAULTS = (
    "identity",
    "probit",
    "log",
    "exponential:10",
    "exponential:-10",
    "exponential:best",
    "power:best",
)

CANDIDATE_FORMS = transform_forms(
    "exponential:best",
    "power:best",
    "raw:PATH (a calibration store or a file of rewards)",
)

POINTS, SAMPLED_POINTS = 12, 6
"""Number of KLs in a plot, without and with --samples; with it, each KL takes seconds."""

HELP = (
    "Find the best transform for a procedure and a KL budget, and compare it with simple ones.\n\n"
    "No model is needed.\n\n"
    f"Procedures: {procedure_forms()}.\n\n"
    f"Transforms: {CANDIDATE_FORMS}.\n\n"
    "exponential:best and power:best choose the best parameter for the budget. raw:PATH is plain "
    "RLHF on raw rewards. A file holds a list of numbers, or one list per prompt, as text, JSON, "
    "Parquet or .npy.\n\n"
    "Example: infalign design --procedure best-of-n:4 --kl 0.5"
)


def design(
    procedure: Annotated[str, typer.Option(help="How the policy will be decoded.")],
    kl: Annotated[
        list[float] | None,
        typer.Option(help="KL budget, in nats per sequence. Repeatable."),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="KL strength, instead of a budget.")] = None,
    against: Annotated[
        str | None, typer.Option(help="How the reference is decoded. Default: like the policy.")
    ] = None,
    transform: Annotated[
        list[str] | None, typer.Option(help="Transform to compare. Repeatable.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            help="Calibration samples per prompt, K. Default: exact quantiles, with the "
            "recommendation for a run's default K."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Also plot win rate against KL in this PNG file.")
    ] = None,
):
    from infalign import _check
    from infalign.core import parse_procedure

    played = read("procedure", parse_procedure, procedure)
    opponent = read("against", parse_procedure, against or procedure)
    if bool(kl) == (beta is not None):
        raise typer.BadParameter("give exactly one of them.", param_hint="--kl / --beta")
    for budget in kl or ():
        _check.positive("kl", budget)
    if beta is not None:
        _check.positive("beta", beta)
    if samples is not None:
        _check.count("samples", samples)
    candidates = {text: _candidate(text) for text in transform or DEFAULTS}
    budgets: list[float] | list[None] = kl or [None]
    designs = [_budget(played, opponent, candidates, kl, beta, samples) for kl in budgets]
    if plot:
        _plot(played, opponent, candidates, [d["kl"] for d in designs], samples, plot)
    if as_json:
        names = {"procedure": played.spec, "against": opponent.spec}
        print_json(designs[0] if len(designs) == 1 else names | {"budgets": designs})
        return
    screen = console()
    for number, one in enumerate(designs):
        if number:
            screen.print()
        _print(screen, one)


def _candidate(text: str):
    """The candidate for one --transform, as `infalign.compare` takes it."""
    from infalign.calibration.reward_files import read_raw
    from infalign.core import best_exponential, best_power, parse_transform
    from infalign.errors import ArgumentError, DataError

    if text.startswith("raw:"):
        try:
            return read_raw(text.removeprefix("raw:"))
        except DataError as error:
            raise DataError(f"--transform {text}: {error}") from None
    families = {"exponential:best": best_exponential, "power:best": best_power}
    if text in families:
        return families[text]
    try:
        return parse_transform(text)
    except ArgumentError as error:
        if error.argument == "transform":  # not a transform of the core
            hint = "".join(error.problem.partition(" Did you mean ")[1:])
            raise ArgumentError(
                "transform", f"must be {CANDIDATE_FORMS}; got {text!r}.{hint}"
            ) from None
        raise typer.BadParameter(str(error), param_hint="--transform") from None


def _rows(played, opponent, candidates, kl, samples):
    """The optimum and every candidate at one budget."""
    from infalign.core import compare

    best, *rows = compare(played, list(candidates), kl=kl, against=opponent, samples=samples)
    return best, rows


def _budget(played, opponent, candidates, kl, beta, samples) -> dict:
    """The design for one budget, as JSON states it."""
    from infalign.core import beside
    from infalign.core import design as solve

    best = solve(played, kl=kl, beta=beta, against=opponent, samples=samples)
    rows = beside(best, list(candidates.values()))
    advised = _advised(best, rows, samples)
    stated = {
        "procedure": played.spec,
        "against": opponent.spec,
        "kl": best.kl,
        "beta": best.beta,
        "win_rate": best.win_rate,
        "stderr": best.stderr,
        "gap": None if math.isnan(best.gap) else best.gap,
        "certificate": best.certificate,
        "samples": samples,
        **advised,
        "candidates": [
            {
                "transform": r.transform,
                "kl": r.kl,
                "win_rate": r.win_rate,
                "stderr": r.stderr,
                "loss": r.loss,
                "good_enough": r.loss <= GOOD_ENOUGH,
                "beta": r.beta,
            }
            for r in rows
        ],
    }
    if samples is not None:
        needed = _samples_needed(played, opponent, advised["recommended"], best.kl)
        stated["samples_needed"] = needed
    return stated


def _advised(best, rows, samples: int | None) -> dict:
    """The transform to train on: the simplest that is good enough with the samples of a run.

    Without --samples these are as many as a run draws by default, since the best transform for
    exact quantiles is too sharp for few samples. Procedures that read quantiles have no theory for
    few samples, and some budgets cannot be expressed; then quantiles are exact here too.
    """
    from infalign.config import Calibration
    from infalign.core import RankProcedure, beside, parse_transform, roughly
    from infalign.errors import SolveError

    of_a_run = Calibration.model_fields["samples"].default
    if samples is None and isinstance(best.procedure, RankProcedure):
        simple = [r.transform for r in rows if not r.transform.startswith("raw")]
        try:
            # Their losses to exact calibration are bounds, which often decide already.
            at_k = beside(best, [parse_transform(t) for t in simple], samples=of_a_run)
            if not _decided(at_k):
                at_best = roughly(best, of_a_run)
                at_k = [replace(r, loss=at_best.win_rate - r.win_rate) for r in at_k]
        except SolveError:
            pass
        else:
            chosen = _simplest(at_k)
            stated = next((r for r in at_k if r.transform == chosen), None)
            return {
                "recommended": chosen,
                "recommended_samples": of_a_run,
                "recommended_win_rate": stated.win_rate if stated else at_best.win_rate,
                "recommended_loss": stated.loss if stated else 0.0,
            }
    return {"recommended": _simplest(rows), "recommended_samples": samples}


def _decided(rows) -> bool:
    """Whether smaller losses of all rows would change no recommendation."""
    least = min((r.loss for r in rows), default=math.inf)
    plain = [r.loss for r in rows if r.transform == "identity"]
    return least <= GOOD_ENOUGH and not any(GOOD_ENOUGH < p <= least + GOOD_ENOUGH for p in plain)


def _simplest(rows) -> str:
    """The identity if it is good enough, else the best candidate that is, else the optimum."""
    good = [r for r in rows if r.loss <= GOOD_ENOUGH and not r.transform.startswith("raw")]
    simplest = [r for r in good if r.transform == "identity"] or sorted(good, key=lambda r: r.loss)
    return simplest[0].transform if simplest else "optimal"


def _samples_needed(played, opponent, transform: str, kl: float) -> int | None:
    """Smallest K within half a point of exact calibration; None if it is beyond the search
    range."""
    from infalign.core import at_kl, parse_transform, samples_needed
    from infalign.core import design as solve
    from infalign.errors import SolveError

    optimal = transform == "optimal"
    chosen = (
        solve(played, kl=kl, against=opponent).transform if optimal else parse_transform(transform)
    )
    exact = at_kl(chosen, kl).win_rate(played, opponent)
    try:
        return samples_needed(
            played, chosen, kl=kl, loss=GOOD_ENOUGH, exact=exact, against=opponent
        )
    except SolveError:
        return None


def _plot(played, opponent, candidates, budgets, samples, path: Path) -> None:
    """Plot win rate against KL, up to twice the largest budget or the largest KL that the samples
    can express."""
    from dataclasses import replace

    from infalign.errors import SolveError
    from infalign.reports.drawing import save_png
    from infalign.reports.plots import frontier

    curves, points = [], POINTS if samples is None else SAMPLED_POINTS
    for i in range(1, points + 1):
        kl = 2 * max(budgets) * (i / points) ** 2  # win rates rise like √KL at first
        try:
            best, rows = _rows(played, opponent, candidates.values(), kl, samples)
        except SolveError:
            break
        names = [t if t.endswith(":best") else _short(t) for t in candidates]
        curves += [best, *(replace(r, transform=n) for r, n in zip(rows, names, strict=True))]
    save_png(frontier(played, opponent, curves, budgets), path)


def _short(transform: str) -> str:
    kind, colon, value = transform.partition(":")
    return f"raw:{Path(value).name}" if kind == "raw" else kind + colon + value


def _print(screen: Console, stated: dict) -> None:
    """One budget as a table, its certificate, and the next command."""
    samples = stated["samples"]

    def rate(row):
        error = f" ± {row['stderr']:.4f}" if samples else ""
        return f"{row['win_rate']:.4f}{error}"

    screen.print(
        f"{stated['procedure']} against {stated['against']} at {stated['kl']:.3g} nats"
        + (f", {samples} calibration samples per prompt" if samples else ""),
        style="bold",
        soft_wrap=True,
    )
    table = Table()
    longest = max(len(row["transform"]) for row in stated["candidates"])
    table.add_column("transform", overflow="fold", min_width=min(longest, 28))
    for column in ("win rate", "short of best", "β"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("good enough", justify="center")
    table.add_row("optimal", rate(stated), "", f"{stated['beta']:.4g}", "", style="bold")
    for row in sorted(stated["candidates"], key=lambda row: row["loss"]):
        table.add_row(
            row["transform"],
            rate(row),
            f"{row['loss']:.4f}",
            f"{row['beta']:.4g}",
            "✓" if row["good_enough"] else "",
        )
    screen.print(table)
    screen.print(f"Good enough: within {100 * GOOD_ENOUGH:g} points of the best possible.")
    if stated["gap"] is None:
        screen.print(f"{stated['certificate'][0].upper()}{stated['certificate'][1:]}.")
    else:
        more = f"gains more than {stated['gap']:.1e}" if stated["gap"] else "is better"
        screen.print(f"Certified: no policy {more} at this β, by {stated['certificate']}.")
    if samples:
        screen.print(
            "±: standard error of the win rate, which is simulated. "
            f"The {stated['kl']:.3g} nats are the exact expectation over prompts."
        )
        needed, name = stated["samples_needed"], stated["recommended"]
        screen.print(
            f"{name} comes within {100 * GOOD_ENOUGH:g} points of exact calibration with "
            + (f"{needed} samples per prompt." if needed else "more than 4096 samples per prompt.")
        )
    elif stated["recommended_samples"]:
        loss = 100 * stated["recommended_loss"]
        short = f", {loss:.1f} points short of the best there" if loss >= 0.05 else ""
        screen.print(
            f"Recommended for K = {stated['recommended_samples']} calibration samples per prompt, "
            f"the default of a run: {stated['recommended']} "
            f"({100 * stated['recommended_win_rate']:.1f} %{short}). The table is for exact "
            "quantiles; --samples K shows another K."
        )
    screen.print(_next(stated), soft_wrap=True)


def _next(stated: dict) -> str:
    """The next command, or the next line of Python."""
    from infalign.core import RankProcedure, parse_procedure

    specs = stated["procedure"], stated["against"]
    other = specs[0] != specs[1]
    if not all(isinstance(parse_procedure(spec), RankProcedure) for spec in specs):
        played, opponent = (f'parse_procedure("{spec}")' for spec in specs)
        against = f", against={opponent}" if other else ""
        return f"Next, in Python: design({played}, kl={stated['kl']:.6g}{against}).transform"
    words = [f"procedure={specs[0]}"] + [f"against={specs[1]}"] * other
    words += [f"kl={stated['kl']:.6g}", f"transform={stated['recommended']}"]
    if stated["samples"]:
        words.append(f"calibration.samples={stated['samples']}")
    quoted = [f"'{word}'" if "*" in word else word for word in words]
    return f"Next: infalign run config.yaml {' '.join(quoted)}"
