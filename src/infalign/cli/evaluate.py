"""`infalign evaluate`: policies × procedures × rewards, from a run or from any models."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infalign.config import load_config
from infalign.errors import DataError

from . import dry_run as dry_runs
from .options import (
    ANSWER,
    ASK_AGAIN,
    COLUMN,
    DTYPE,
    LIMIT,
    MAX_NEW_TOKENS,
    REMOTE_CODE,
    SEED,
    SOURCE,
    STRIP,
    TEMPERATURE,
    TOP_P,
    Answer,
    DryRun,
    Dtype,
    Measure,
)
from .plan import DIFFERENCE, KL, PILOT, print_plan
from .progress import progress, quiet_libraries
from .run import Out, Overrides, bring_up_to
from .show import Form, print_results
from .usage import again, named_values, others, refuse, refuse_of_dry_run

if TYPE_CHECKING:
    from infalign.config import EvaluationPrompts
    from infalign.prompts import Prompt

LOG = logging.getLogger(__name__)

HELP = (
    "Compare policies with a reference under the procedures that decode them.\n\n"
    "With CONFIG.yaml: evaluate that run, running any earlier stages first.\n\n"
    "With --policy: compare any policies with --reference. Samples are drawn once "
    "and serve every procedure, n and reward. An interrupted evaluation continues. If you add "
    "policies, rewards or procedures later, only the missing samples are drawn.\n\n"
    "With --plan: the same as `infalign plan`.\n\n"
    "Example: infalign evaluate --policy mine=models/mine --reference models/base --reward "
    "models/reward --gold gold=models/gold --prompts prompts.jsonl --procedure best-of-n:4 "
    "--procedure worst-of-n:4"
)

OF_A_RUN = ("config", "overrides", "out", "form", "dry_run", "measure")
OF_A_PLAN = ("plan", "procedure", "against", "difference", "kl", "pilot", "form")
OF_A_JUDGE = ("judge_pairs", "judge_max_new_tokens", "judge_unreadable")
ONLY_OF_A_PLAN = ("difference", "kl", "pilot")
NEEDED = ("policy", "reference", "reward", "prompts")
"""Parameters of each mode. Without a configuration or --plan, all but the plan's are used."""


class Unreadable(StrEnum):
    """What two unreadable replies of a judge are."""

    error = "error"
    missing = "missing"


def _option(panel: str, help: str, *names: str, **settings) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **settings)


COMPARED, DECODED, SAMPLED, PLANNED = (
    "Models, rewards and prompts",
    "Decoding",
    "Sampling",
    "With --plan",
)


def evaluate(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="YAML file of a run.")] = None,
    overrides: Overrides = None,
    policy: Annotated[
        list[str] | None,
        _option(
            COMPARED,
            "Policy as NAME=MODEL: a folder, hub id or http(s)://HOST/v1#MODEL. Repeatable.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        _option(COMPARED, "Reference model that the policies are compared with."),
    ] = None,
    reward: Annotated[
        str | None,
        _option(
            COMPARED,
            "Reward that the procedures select by, in the form of the configuration key `reward`.",
        ),
    ] = None,
    gold: Annotated[
        list[str] | None,
        _option(
            COMPARED,
            "Held-out reward that judges the selected responses, as NAME=REWARD. Repeatable.",
        ),
    ] = None,
    judge: Annotated[
        str | None,
        _option(
            COMPARED,
            "Pairwise judge: http(s)://HOST/v1#MODEL, reward:REWARD or python:module:function.",
        ),
    ] = None,
    judge_pairs: Annotated[
        int, _option(COMPARED, "Pairs per prompt and policy that the judge compares.", min=1)
    ] = 1,
    judge_max_new_tokens: Annotated[
        int,
        _option(
            COMPARED,
            "Maximum length of a judge's reply, in tokens. A judge that thinks needs more.",
            min=1,
        ),
    ] = 256,
    judge_unreadable: Annotated[
        Unreadable,
        _option(
            COMPARED,
            "Result of two unreadable replies of a judge: an error, or a missing verdict, which is "
            "counted.",
        ),
    ] = Unreadable.error,
    prompts: Annotated[
        str | None,
        _option(COMPARED, SOURCE),
    ] = None,
    split: Annotated[str, _option(COMPARED, "Split to use.")] = "test",
    column: Annotated[
        str | None,
        _option(COMPARED, COLUMN),
    ] = None,
    limit: Annotated[int | None, _option(COMPARED, LIMIT, metavar="N")] = None,
    test_fraction: Annotated[
        float | None,
        _option(
            COMPARED,
            "Use only the share of --prompts that a run with this `prompts.test_fraction` holds "
            "out; 1 uses all. Default: all, and an error if a policy was trained on some of them.",
            min=0,
            max=1,
        ),
    ] = None,
    procedure: Annotated[
        list[str] | None,
        _option(DECODED, "How the policies are decoded. Repeatable. Default: best-of-n:4."),
    ] = None,
    against: Annotated[
        str | None,
        _option(DECODED, "How the reference is decoded. Default: like the policies."),
    ] = None,
    answers: Annotated[
        str,
        _option(
            DECODED,
            "How majority-vote:N extracts an answer: numeric, math or python:MODULE:FUNCTION.",
        ),
    ] = "numeric",
    samples: Annotated[int, _option(SAMPLED, "Responses per prompt and policy.", min=1)] = 32,
    kl_samples: Annotated[
        int,
        _option(SAMPLED, "Maximum number of responses per prompt used to measure the KL.", min=1),
    ] = 8,
    no_kl: Annotated[
        bool,
        _option(
            SAMPLED,
            "Do not measure the KL, as between models with different tokens.",
            "--no-kl",
        ),
    ] = False,
    temperature: Annotated[float, _option(SAMPLED, TEMPERATURE)] = 1.0,
    top_p: Annotated[float, _option(SAMPLED, TOP_P)] = 1.0,
    max_new_tokens: Annotated[int, _option(SAMPLED, MAX_NEW_TOKENS)] = 128,
    batch_size: Annotated[int, _option(SAMPLED, "Responses generated per batch.")] = 256,
    strip: Annotated[bool, _option(SAMPLED, STRIP, "--strip")] = False,
    answer: Annotated[Answer, _option(SAMPLED, ANSWER)] = Answer.whole,
    ask_again: Annotated[int, _option(SAMPLED, ASK_AGAIN, min=0)] = 0,
    dtype: Annotated[Dtype, _option(SAMPLED, DTYPE)] = Dtype.auto,
    seed: Annotated[int, _option(SAMPLED, SEED, min=0)] = 0,
    trust_remote_code: Annotated[
        bool, _option(SAMPLED, REMOTE_CODE, "--trust-remote-code")
    ] = False,
    out: Out = Path("runs/evaluation"),
    plan: Annotated[bool, _option(PLANNED, "Plan an evaluation instead.", "--plan")] = False,
    difference: Annotated[float, _option(PLANNED, DIFFERENCE)] = 3.0,
    kl: Annotated[float, _option(PLANNED, KL)] = 0.5,
    pilot: Annotated[Path | None, _option(PLANNED, PILOT)] = None,
    form: Annotated[Form, typer.Option("--format", help="Format of standard output.")] = Form.table,
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    procedures = tuple(procedure or ["best-of-n:4"])
    if plan:
        refuse(context, "is not used with --plan.", *others(context, OF_A_PLAN))
        print_plan(procedures, against, difference, kl, pilot, form)
        return
    refuse(context, "is used with --plan only.", *ONLY_OF_A_PLAN)
    refuse_of_dry_run(context, dry_run, "form")
    if config is not None:
        refuse(
            context,
            "is not used with CONFIG.yaml. Set it in the configuration, or leave CONFIG.yaml out.",
            *others(context, OF_A_RUN),
        )
        if dry_run:
            settings = load_config(config, tuple(overrides or ()))
            dry_runs.dry_run(settings, out, "evaluate", measure)
            return
        finished = bring_up_to(config, tuple(overrides or ()), out, "evaluate")
        print_results(finished.folder, form)
        return
    missing = [f"--{name}" for name in NEEDED if not context.params[name]]
    if missing:
        raise typer.BadParameter(f"without a configuration it needs {', '.join(missing)}")
    if no_kl:
        refuse(context, "is not used with --no-kl.", "kl_samples")
    if judge is None:
        refuse(context, "is used with --judge only.", *OF_A_JUDGE)
    if not any(spec.startswith("majority-vote") for spec in (*procedures, against or "")):
        refuse(context, "is used with --procedure majority-vote:N only.", "answers")

    from infalign.comparison.comparison import Comparison
    from infalign.comparison.run import compare_policies
    from infalign.config import EvaluationPrompts, SamplingSettings, read_section
    from infalign.pipeline.bill import origin_of_comparison
    from infalign.pipeline.costs import metered
    from infalign.pipeline.trained_on import other_sampling
    from infalign.reports.page import build_report

    source = read_section(
        EvaluationPrompts, {"file": prompts, "split": split, "limit": limit, "column": column}
    )
    policies = named_values("--policy", policy)
    stated = {
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "strip": strip,
        "answer": answer.value,
        "ask_again": ask_again,
    }
    asked = _held_out(source, policies, test_fraction)
    sampling = read_section(SamplingSettings, stated)
    for sentence in other_sampling(policies, sampling):
        LOG.warning(sentence)
    comparison = Comparison(
        reference=reference or "",
        policies=policies,
        reward=reward or "",
        gold=named_values("--gold", gold),
        answers=answers,
        judge=judge,
        judge_pairs=judge_pairs,
        judge_max_new_tokens=judge_max_new_tokens,
        judge_unreadable=judge_unreadable.value,
        prompts=asked,
        procedures=procedures,
        against=against,
        sampling=sampling,
        samples=samples,
        kl_samples=0 if no_kl else kl_samples,
        seed=seed,
        dtype=dtype.value,
        trust_remote_code=trust_remote_code,
    )
    if dry_run:
        dry_runs.dry_comparison(comparison, out, measure)
        return
    quiet_libraries()
    with progress() as report:
        with metered(out, "evaluate", report) as measured:
            compare_policies(comparison, out, measured)
        build_report(out, origin_of_comparison(out, comparison, again()))
    print_results(out, form)


def _held_out(
    source: "EvaluationPrompts", policies: dict[str, str], fraction: float | None
) -> "list[Prompt]":
    """The prompts to evaluate on. Those that a policy was trained on are refused, unless a share
    was asked for, which may be all of them; a warning then says how many they are."""
    from infalign.pipeline.trained_on import trained_on
    from infalign.prompts import held_out, load_prompts

    if fraction is None:
        asked = load_prompts(source)
    else:
        whole = load_prompts(source.model_copy(update={"limit": None}))
        held = held_out(whole, fraction)
        asked = held[: source.limit]
        used = f"; the first {len(asked)} are used (--limit)" if len(asked) < len(held) else ""
        counts = f"{len(held)} of {len(whole)}"
        LOG.info("%s prompts are held out by a hash of their text%s.", counts, used)
    for known in trained_on(policies, asked):
        if fraction is not None:
            LOG.warning("%s.", known.words())
            continue
        share = known.test_fraction or 0.1
        raise DataError(
            f"{known.words()}. --test-fraction {share:g} evaluates on the prompts that this run "
            "held out; --test-fraction 1 on all of them; or give other prompts."
        )
    return asked
