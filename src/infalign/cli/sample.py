"""`infalign sample`: answer prompts with a procedure."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    from infalign.pipeline.decoding_work import DecodingWork

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
    "An interrupted command with --out FILE continues when it is run again: finished prompts "
    "are stored in the folder FILE.parts until FILE is complete.\n\n"
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
        typer.Option(help="Calibration store made with the same prompts and reward."),
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
    out: Annotated[
        Path | None,
        typer.Option(help="Also write JSON Lines to this file. The same command continues it."),
    ] = None,
    trust_remote_code: RemoteCode = False,
    dry_run: DryRun = False,
    measure: Measure = 30.0,
):
    from infalign import _check
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
        answers=answers,
        out=out,
        seed=seed,
        dtype=dtype.value,
        trust_remote_code=trust_remote_code,
    )
    if dry_run:
        dry_runs.dry_decoding(work, measure)
        return
    check(list(work.checks()))
    records = _decoded(work, everything)
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


def _decoded(work: "DecodingWork", everything: bool) -> list[dict]:
    """The records, which the file of the results holds as well, with their candidates if
    `everything` is asked for."""
    from infalign import storage
    from infalign.pipeline.decoding_records import decoded_records

    def stated(records: list[dict]) -> list[dict]:
        left_out = () if everything else ("candidates",)
        return [{k: v for k, v in r.items() if k not in left_out} for r in records]

    def write(records: list[dict]) -> None:
        if work.out is not None:
            lines = [json_text(record) + "\n" for record in stated(records)]
            storage.write_text(work.out, "".join(lines))

    with progress() as report:
        records = decoded_records(work, write, report)
    warning = _constant(records)
    if warning is not None:
        print(f"infalign: {warning}", file=sys.stderr)
    return stated(records)


def _constant(records: list[dict]) -> str | None:
    """A warning about a reward that does not tell the candidates apart."""
    from infalign.shaping import constant

    drawn = [candidate for record in records for candidate in record["candidates"]]
    rewards = [candidate["reward"] for candidate in drawn if "reward" in candidate]
    return constant("of --reward", rewards, [candidate["text"] for candidate in drawn])


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
