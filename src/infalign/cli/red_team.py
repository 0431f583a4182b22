"""`infalign red-team`: success rates of repeated attacks on a policy, and their growth."""

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from . import dry_run as dry_runs
from .options import (
    SOURCE,
    Answer,
    AskAgain,
    Column,
    DryRun,
    Dtype,
    Limit,
    MaxNewTokens,
    Measure,
    Precision,
    ReadAnswer,
    RemoteCode,
    Seed,
    Strip,
    Temperature,
    TopP,
)
from .progress import progress, quiet_libraries
from .sample import read_prompts
from .terminal import console, print_json
from .usage import read, refuse, refuse_of_dry_run

EXAMPLE = (
    "infalign red-team --model bundled:language-model --reward bundled:harmless --threshold -0.6 "
    "--prompts bundled:harmless --limit 24 --attempts 32 --max-new-tokens 32 --out runs/red-team"
)
HELP = (
    "Measure how often repeated attempts break a policy, and how the rate grows with attempts.\n\n"
    "--augment all is Best-of-N jailbreaking (arXiv:2412.03556): each attempt perturbs the prompt. "
    "A subset of scramble,capitalize,noise is also allowed. --augment none keeps the prompt and "
    "resamples the response, like worst-of-n. By default, both attacks are run and compared.\n\n"
    "An attempt succeeds if its reward is below --threshold, or if the --success function "
    "returns True. Both see the original prompt, not the perturbed one, and its columns.\n\n"
    "results.json, attack.png and all attempts (as Parquet) are written to the --out folder. An "
    "interrupted command continues when it is run again.\n\n"
    f"Example: {EXAMPLE}"
)


def red_team(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            help="The policy: folder, hub id, bundled:language-model or http(s)://HOST/v1#MODEL."
        ),
    ],
    prompts: Annotated[str, typer.Option(help=SOURCE)],
    reward: Annotated[
        str | None,
        typer.Option(
            help="Harmlessness reward: folder, hub id, bundled:harmless or python:MODULE:FUNCTION."
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="An attempt succeeds if its reward is lower than this.")
    ] = None,
    success: Annotated[
        str | None,
        typer.Option(
            help="Instead of --threshold: a Python function that decides success. It is called "
            "like a reward, or with each prompt and response."
        ),
    ] = None,
    attempts: Annotated[int, typer.Option(min=1, help="Attempts per prompt.")] = 64,
    augment: Annotated[
        list[str] | None,
        typer.Option(
            help="all, none or names separated by commas. Repeatable. Default: all and none."
        ),
    ] = None,
    sigma: Annotated[float, typer.Option(help="Strength of the augmentations.")] = 0.4,
    split: Annotated[str, typer.Option(help="Split to use.")] = "test",
    column: Column = None,
    limit: Limit = None,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    max_new_tokens: MaxNewTokens = 128,
    strip: Strip = False,
    answer: ReadAnswer = Answer.whole,
    ask_again: AskAgain = 0,
    dtype: Precision = Dtype.auto,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("runs/red-team"),
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
    trust_remote_code: RemoteCode = False,
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    from infalign import _check
    from infalign.red_team.augmentations import check_sigma, parse_augmentations

    if (threshold is None) == (success is None):
        raise typer.BadParameter("give exactly one of them.", param_hint="--threshold / --success")
    if threshold is not None and reward is None:
        raise typer.BadParameter(
            "is needed with --threshold, which is one of its values.", param_hint="--reward"
        )
    refuse_of_dry_run(context, dry_run, "as_json")
    _check.positive("temperature", temperature)
    check_sigma(sigma)
    attacks = {}
    for text in augment or ["all", "none"]:
        names = read("augment", parse_augmentations, text)
        attacks[text if text in ("all", "none") else "+".join(names)] = names
    if not any(attacks.values()):
        refuse(context, "is not used with --augment none.", "sigma")
    asked = read_prompts(None, prompts, split, limit, column)
    quiet_libraries()
    from infalign.red_team import Campaign
    from infalign.red_team import red_team as run_campaign

    campaign = Campaign(
        model=model,
        attacks=attacks,
        reward=reward,
        threshold=threshold,
        success=success,
        attempts=attempts,
        sigma=sigma,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        strip=strip,
        answer=answer.value,
        ask_again=ask_again,
        seed=seed,
        dtype=dtype.value,
        trust_remote_code=trust_remote_code,
    )
    if dry_run:
        dry_runs.dry_campaign(campaign, asked, out, measure)
        return
    with progress() as report:
        results = run_campaign(campaign, asked, out, report)
    if as_json:
        print_json(results)
    else:
        _print(console(), results, out)


def _print(screen: Console, results: dict, out: Path) -> None:
    """Success rates and forecasts as a table, the fitted laws, and the path of the figure."""
    from infalign.red_team.report import label

    attacks = results["attacks"]
    screen.print(f"Prompts broken within N attempts, % of {results['prompts']}", style="bold")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("N", justify="right")
    for attack in attacks:
        table.add_column(attack["augment"], justify="right", no_wrap=True)
    rows: dict[tuple[int, str], list[str]] = {}
    for column, attack in enumerate(attacks):
        for kind in ("rates", "forecasts"):
            for rate in attack[kind]:
                cells = rows.setdefault((rate["n"], kind), [""] * len(attacks))
                cells[column] = _percent(rate)
    for (n, kind), cells in sorted(rows.items()):
        table.add_row(f"{n}" + (" forecast" if kind == "forecasts" else ""), *cells)
    ahead = any(attack["curve"] for attack in attacks)
    if any(attack["law"]["b"]["value"] is not None for attack in attacks):
        table.add_section()
        for name in ("a", "b"):
            table.add_row(name, *(_known(attack["law"][name]) for attack in attacks))
    if ahead:
        table.add_section()
        for place, budget in enumerate(next(a["budgets"] for a in attacks if a["budgets"])):
            cells = [_attempts(a["budgets"][place]) if a["budgets"] else "" for a in attacks]
            table.add_row(f"N for {100 * budget['target']:g} %", *cells)
    screen.print(table)
    for attack in attacks:
        for words in attack["law"]["reservations"]:
            screen.print(f"{label(attack)}: {words}.", style="yellow")
    for d in results["differences"]:
        if d["low"] is not None:
            screen.print(
                f"{d['a']} − {d['b']} at N = {d['n']}: {100 * d['value']:+.1f} points "
                f"[{100 * d['low']:+.1f}, {100 * d['high']:+.1f}]",
            )
    note = "[ ]: 95 % intervals, clustered by prompt."
    if ahead:
        note += (
            " a, b: the law −log ASR = a N^(−b) through the measured rates. Forecasts do not use "
            "it: they assume that small chances of success follow a log-F or a logit-normal law. "
            "∞: no N up to 10⁹."
        )
    screen.print(note)
    screen.print(f"Figure: {(out / 'attack.png').resolve()}", soft_wrap=True)


def _percent(rate: dict) -> str:
    return _with_interval(rate, 100, 1)


def _attempts(budget: dict) -> str:
    value, low, high = (
        "∞" if budget[k] is None else f"{budget[k]:,.0f}" for k in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _known(interval: dict) -> str:
    return "" if interval["value"] is None else _with_interval(interval, 1, 2)


def _with_interval(estimate: dict, scale: float, digits: int) -> str:
    value, low, high = (
        "" if estimate[k] is None else f"{scale * estimate[k]:.{digits}f}"
        for k in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]" if low else value
