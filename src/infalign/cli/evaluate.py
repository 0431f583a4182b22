"""`infalign evaluate`: policies × procedures × rewards, from a run or from any models."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infalign.errors import ConfigError

from . import run as run_cli
from .plan import print_plan
from .show import print_results

HELP = (
    "Do policies win under the procedure they are decoded with?\n\n"
    "With CONFIG.yaml: the evaluation of that run, after what comes before. With --policy: "
    "policies trained anywhere, against --reference. Samples are drawn once and serve every "
    "procedure, n and reward; a killed evaluation continues, and a second one with more policies, "
    "rewards or procedures draws only what is new. With --plan: how many prompts and samples a "
    "difference needs, without any model.\n\n"
    "Example: infalign evaluate --policy mine=models/mine --reference models/base --reward "
    "models/reward --gold gold=models/gold --prompts prompts.jsonl --procedure best-of-n:4 "
    "--procedure worst-of-n:4\n\n"
    "Example: infalign evaluate --plan --procedure best-of-n:4 --kl 0.5 --difference 3"
)


class Form(StrEnum):
    """How results are printed."""

    table = "table"
    json = "json"
    markdown = "markdown"
    latex = "latex"


Named = list[str] | None
COMPARED, DECODED, SAMPLED, PLANNED = (
    "What is compared",
    "How it is decoded",
    "How it is sampled",
    "With --plan",
)


def evaluate(
    config: Annotated[Path | None, typer.Argument(help="YAML file of a run.")] = None,
    overrides: run_cli.Overrides = None,
    policy: Annotated[
        Named,
        typer.Option(
            help="NAME=MODEL of a policy: folder, hub id or http(s)://HOST/v1#MODEL; repeatable.",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Model that they are held against.", rich_help_panel=COMPARED)
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Reward that procedures keep by, as in a configuration.", rich_help_panel=COMPARED
        ),
    ] = None,
    gold: Annotated[
        Named,
        typer.Option(
            help="NAME=REWARD that judges what is kept; repeatable.", rich_help_panel=COMPARED
        ),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Pairwise judge: http(s)://HOST/v1#MODEL or python:module:function.",
            rich_help_panel=COMPARED,
        ),
    ] = None,
    judge_pairs: Annotated[
        int,
        typer.Option(
            help="Pairs per prompt and policy that it compares.", rich_help_panel=COMPARED
        ),
    ] = 1,
    prompts: Annotated[
        str | None,
        typer.Option(
            help="JSON Lines file, or bundled:helpful, bundled:harmless.", rich_help_panel=COMPARED
        ),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which of the prompts.", rich_help_panel=COMPARED)
    ] = "test",
    limit: Annotated[
        int | None, typer.Option(help="The first so many prompts.", rich_help_panel=COMPARED)
    ] = None,
    procedure: Annotated[
        Named,
        typer.Option(
            help="How policies are decoded; repeatable. Default best-of-n:4.",
            rich_help_panel=DECODED,
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="How the reference is decoded; as the policy unless given.",
            rich_help_panel=DECODED,
        ),
    ] = None,
    answers: Annotated[
        str,
        typer.Option(
            help="For majority-vote:N: numeric, or python:package.module:function.",
            rich_help_panel=DECODED,
        ),
    ] = "numeric",
    samples: Annotated[
        int, typer.Option(help="Responses per prompt and policy.", rich_help_panel=SAMPLED, min=1)
    ] = 32,
    kl_samples: Annotated[
        int,
        typer.Option(
            help="Of them, those on which the KL is measured.", rich_help_panel=SAMPLED, min=1
        ),
    ] = 8,
    temperature: Annotated[
        float, typer.Option(help="Softmax temperature.", rich_help_panel=SAMPLED)
    ] = 1.0,
    top_p: Annotated[
        float,
        typer.Option(help="Mass of the nucleus that tokens come from.", rich_help_panel=SAMPLED),
    ] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option(help="Longest response, in tokens.", rich_help_panel=SAMPLED)
    ] = 128,
    batch_size: Annotated[
        int, typer.Option(help="Responses generated at once.", rich_help_panel=SAMPLED)
    ] = 256,
    seed: Annotated[
        int, typer.Option(help="All randomness follows from it.", rich_help_panel=SAMPLED)
    ] = 0,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Allow code from the hub to run.", rich_help_panel=SAMPLED
        ),
    ] = False,
    out: run_cli.Out = Path("runs/evaluation"),
    plan: Annotated[
        bool,
        typer.Option(
            "--plan",
            help="How many prompts and samples a difference needs.",
            rich_help_panel=PLANNED,
        ),
    ] = False,
    difference: Annotated[
        float, typer.Option(help="The difference to be seen, in points.", rich_help_panel=PLANNED)
    ] = 3.0,
    kl: Annotated[
        float, typer.Option(help="KL of the policies, in nats.", rich_help_panel=PLANNED)
    ] = 0.5,
    pilot: Annotated[
        Path | None,
        typer.Option(
            help="Folder of an evaluation like the one that is planned.", rich_help_panel=PLANNED
        ),
    ] = None,
    form: Annotated[
        Form, typer.Option("--format", help="What is printed on standard output.")
    ] = Form.table,
):
    if plan:
        print_plan(tuple(procedure or ["best-of-n:4"]), against, difference, kl, pilot, form)
        return
    options = (policy, reference, reward, prompts)
    if config is not None:
        if any(options):
            raise typer.BadParameter("give a configuration, or --policy and the options with it")
        finished = run_cli.bring_up_to(config, tuple(overrides or ()), out, "evaluate")
        print_results(finished.folder, form)
        return
    if not all(options):
        missing = [
            name
            for name, value in zip(
                ("--policy", "--reference", "--reward", "--prompts"), options, strict=True
            )
            if not value
        ]
        raise typer.BadParameter(f"without a configuration it needs {', '.join(missing)}")
    from infalign.comparison.comparison import Comparison
    from infalign.comparison.run import compare_policies
    from infalign.config import EvaluationPrompts, SamplingSettings, read_section
    from infalign.prompts import load_prompts
    from infalign.reports.page import build_report

    source = read_section(EvaluationPrompts, {"file": prompts, "split": split, "limit": limit})
    comparison = Comparison(
        reference=reference,
        policies=dict(_named("--policy", policy)),
        reward=reward,
        gold=dict(_named("--gold", gold or [])),
        answers=answers,
        judge=judge,
        judge_pairs=judge_pairs,
        prompts=load_prompts(source),
        procedures=tuple(procedure or ["best-of-n:4"]),
        against=against,
        sampling=read_section(
            SamplingSettings,
            {
                "temperature": temperature,
                "top_p": top_p,
                "max_new_tokens": max_new_tokens,
                "batch_size": batch_size,
            },
        ),
        samples=samples,
        kl_samples=kl_samples,
        seed=seed,
        trust_remote_code=trust_remote_code,
    )
    run_cli.quiet_libraries()
    with run_cli.progress() as report:
        compare_policies(comparison, out, report)
        build_report(out)
    print_results(out, form)


def _named(option: str, values: list[str]) -> list[tuple[str, str]]:
    """NAME=VALUE pairs; every name once."""
    pairs = []
    for text in values:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"`{option}` must read NAME=VALUE; got {text!r}.")
        if name in dict(pairs):
            raise ConfigError(f"`{option}` has the name {name!r} twice. Give each its own.")
        pairs.append((name, value))
    return pairs
