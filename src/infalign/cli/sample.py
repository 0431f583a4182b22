"""`infalign sample`: answer prompts with a procedure."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from infalign._check import visible
from infalign.core import procedure_forms

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
from .terminal import KEPT, console, json_text, print_json
from .usage import read, refuse, refuse_of_dry_run

if TYPE_CHECKING:
    from infalign.decoding import Decoded
    from infalign.pipeline.decoding_work import DecodingWork

TOGETHER = 256
"""Approximate number of responses drawn between two steps of the progress bar."""

FORMS = procedure_forms("majority-vote:N")

EXAMPLE = (
    "infalign sample --model bundled:language-model --reward bundled:helpful "
    '--procedure best-of-n:8 "How do I bake bread?"'
)
HELP = (
    "Answer prompts with a procedure: draw responses, score them, select one.\n\n"
    f"Procedures: {FORMS}.\n\n"
    "soft-best-of-n and rewind need quantiles of the reward, which --calibration provides. Without "
    "it, the command first draws --references responses from the model. majority-vote needs no "
    "reward.\n\n"
    "Models: a folder, hub id, bundled:language-model, vllm:PATH, or http(s)://HOST/v1#MODEL for "
    "an OpenAI-compatible server. The server's key is read from OPENAI_API_KEY.\n\n"
    f"Example: {EXAMPLE}"
)


def sample(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="Model that answers, in one of the forms above.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Prompts. With -, standard input is read, one prompt per line."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="Classifier folder or hub id, bundled:helpful or python:MODULE:FUNCTION."
        ),
    ] = None,
    procedure: Annotated[str, typer.Option(help="How one response is selected.")] = "best-of-n:4",
    prompts: Annotated[str | None, typer.Option(help=SOURCE)] = None,
    split: Annotated[str, typer.Option(help="Split of --prompts to use.")] = "test",
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
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration store for the same prompts and reward, by their content."),
    ] = None,
    references: Annotated[
        int,
        typer.Option(min=1, help="Responses per prompt to calibrate with, if there is no store."),
    ] = 64,
    answers: Annotated[
        str,
        typer.Option(
            help="How majority-vote:N extracts an answer: numeric, math or python:MODULE:FUNCTION."
        ),
    ] = "numeric",
    everything: Annotated[
        bool, typer.Option("--all", help="Include all candidates, not only the selected one.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
    out: Annotated[Path | None, typer.Option(help="Also write JSON Lines to this file.")] = None,
    trust_remote_code: RemoteCode = False,
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    from infalign import _check, storage
    from infalign.decoding import MajorityVote, load_answers, parse_decoder, reads

    played = read("procedure", parse_decoder, procedure, load_answers(answers))
    _check.positive("temperature", temperature)
    if not prompts:
        refuse(context, "is used with --prompts only.", "split", "column")
    if not isinstance(played, MajorityVote):
        refuse(context, "is used with --procedure majority-vote:N only.", "answers")
    if calibration or reads(played) != "quantiles":
        refuse(context, "is used if quantiles are read without --calibration.", "references")
    refuse_of_dry_run(context, dry_run, "everything", "as_json")
    asked = read_prompts(texts, prompts, split, limit, column)
    _require_what_it_reads(played, reward, calibration)
    quiet_libraries()
    from infalign.config import SamplingSettings, read_section
    from infalign.pipeline.check import check
    from infalign.pipeline.decoding_work import DecodingWork

    sampling = {
        "temperature": temperature,
        "top_p": top_p,
        "max_new_tokens": max_new_tokens,
        "strip": strip,
        "answer": answer.value,
        "ask_again": ask_again,
    }
    work = DecodingWork(
        model=model,
        procedure=played,
        prompts=asked,
        sampling=read_section(SamplingSettings, sampling),
        reward=reward,
        calibration=calibration,
        references=references,
        out=out,
        seed=seed,
        dtype=dtype.value,
        trust_remote_code=trust_remote_code,
    )
    if dry_run:
        dry_runs.dry_decoding(work, measure)
        return
    check(list(work.checks()))
    rows = _decode(work)
    warning = _constant(rows)
    if warning is not None:
        print(f"infalign: {warning}", file=sys.stderr)
    records = [_record(p, r, played.spec, everything) for p, r in zip(asked, rows, strict=True)]
    if out:
        storage.write_text(out, "".join(json_text(record) + "\n" for record in records))
    if as_json:
        for record in records:
            print_json(record)
        return
    screen = console()
    for number, record in enumerate(records):
        if number:
            screen.print()
        _print(screen, record)
    if out:
        print(f"Written to {out}.", file=sys.stderr)


def read_prompts(texts, source, split, limit, column):
    """The prompts of the command line, of standard input, or of a file."""
    from infalign.config import Prompts
    from infalign.prompts import Prompt, load_prompts

    if bool(texts) == bool(source):
        raise typer.BadParameter("give prompts either as arguments or with --prompts.")
    if source:
        return load_prompts(Prompts(file=source, split=split, limit=limit, column=column))
    if texts == ["-"]:
        texts = [line.removesuffix("\n") for line in sys.stdin]
    texts = [text for text in texts if text.strip()][:limit]
    if not texts:
        raise typer.BadParameter("standard input has none.", param_hint="prompts")
    return [
        Prompt(str(i), ({"role": "user", "content": t},), plain=True) for i, t in enumerate(texts)
    ]


def _require_what_it_reads(played, reward, calibration) -> None:
    """Refuse a procedure without the reward that it selects by, or with a store that it does not
    read."""
    from infalign.decoding import reads

    reading = reads(played)
    if reward is None and reading in ("rewards", "quantiles"):
        raise typer.BadParameter(
            f"is needed: {played.spec} selects by reward.", param_hint="--reward"
        )
    if calibration and reading != "quantiles":
        raise typer.BadParameter(
            f"is not used: {played.spec} does not read quantiles.", param_hint="--calibration"
        )


def _decode(work: "DecodingWork") -> "list[Decoded]":
    """Decode one batch of prompts at a time, with a progress bar."""
    from infalign.decoding import decode, draw_calibration
    from infalign.models.samplers import load_sampler

    sampling = work.sampling.model_dump()
    sampler = load_sampler(work.model, **sampling, **work.loading)
    drawn = work.references if work.calibrated else min(work.procedure.draws, TOGETHER)
    asked, size = work.prompts, max(1, TOGETHER // drawn)
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    rows: list[Decoded] = []
    with progress() as report:
        for part in parts:
            if len(parts) > 1:
                report("sample", len(rows), len(asked))
            settings: dict[str, Any] = {
                "seed": work.seed,
                "prompt_ids": [p.id for p in part],
                "columns": [p.columns for p in part],
            }
            own, scorer, known = [p.value for p in part], work.scorer, work.store
            if work.calibrated and scorer is not None:
                known = draw_calibration(sampler, scorer, own, work.references, **settings)
            rows += decode(work.procedure, sampler, scorer, own, **settings, calibration=known)
        if len(parts) > 1:
            report("sample", len(rows), len(asked))
    return rows


def _constant(rows) -> str | None:
    """A warning about a reward that does not tell the candidates apart."""
    from infalign.shaping import constant

    rewards = [reward for row in rows for reward in row.rewards or ()]
    return constant("of --reward", rewards, [c.text for row in rows for c in row.candidates])


def _record(prompt, result, spec, everything) -> dict:
    """One prompt's result as JSON."""
    messages = [dict(m) for m in prompt.messages]
    record = {
        "prompt_id": prompt.id,
        "prompt": messages[0]["content"] if len(messages) == 1 else messages,
        "procedure": spec,
        "draws": len(result.candidates),
        **_candidate(result, result.index),
        "index": result.index,
        "rank": result.rank,
    }
    if result.answers:
        winner = result.answers[result.index]
        votes = 0 if winner is None else sum(a == winner for a in result.answers)
        record["votes"] = votes
    if everything:
        record["candidates"] = [_candidate(result, i) for i in range(len(result.candidates))]
    return record


def _candidate(result, i) -> dict:
    response = result.candidates[i]
    known = {"text": response.text}
    if result.rewards:
        known["reward"] = result.rewards[i]
    if result.quantiles:
        known["quantile"] = result.quantiles[i]
    if result.answers:
        answer = result.answers[i]
        plain = answer is None or isinstance(answer, str | int)
        known["answer"] = answer if plain else str(answer)
    known["logprob"] = response.logprob if math.isfinite(response.logprob) else None
    return known


def _print(screen: Console, record: dict) -> None:
    """Print the prompt, the selected response and the reason; then the other candidates, if any."""
    prompt = record["prompt"]
    text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    screen.print(printable(text), style="bold")
    _indented(screen, 2, printable(record["text"] or "(nothing)"))
    _indented(screen, 2, Text(_why(record), "dim"))
    for i, other in enumerate(record.get("candidates", ())):
        if i != record["index"]:
            facts = [f"{k} {_number(other[k])}" for k in ("reward", "answer") if k in other]
            _indented(screen, 4, Text(f"{i + 1}. " + ", ".join(facts), "dim"))
            _indented(screen, 7, printable(other["text"] or "(nothing)"))


def _indented(screen: Console, by: int, text: Text) -> None:
    screen.print(Padding(text, (0, 0, 0, by), expand=False))


def _why(record: dict) -> str:
    n, facts = record["draws"], []
    if "reward" in record:
        facts.append(f"reward {_number(record['reward'])}")
    if "quantile" in record:
        facts.append(f"quantile {record['quantile']:.2f}")
    if "votes" in record:
        voted = f"answer {record['answer']}, {record['votes']} of {n} votes"
        facts.append(voted if record["votes"] else f"none of {n} has an answer")
    elif "reward" in record and n > 1:
        facts.append(f"rank {record['rank']} of {n}")
    return f"{record['procedure']}: " + (", ".join(facts) or f"1 of {n}")


def _number(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def printable(text: str) -> Text:
    """A model's text, in lines, with control characters spelled out."""
    return Text(visible(text, KEPT))
