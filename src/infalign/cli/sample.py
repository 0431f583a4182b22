"""`infalign sample`: answer prompts with a procedure."""

import math
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from infalign._check import visible
from infalign.core import procedure_forms

from .progress import messages, progress, quiet_libraries
from .terminal import KEPT, console, json_text, print_json
from .thinking import ANSWER, ASK_AGAIN, DTYPE, Answer, Dtype
from .usage import read, refuse

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
    prompts: Annotated[
        str | None,
        typer.Option(
            help="JSON Lines, JSON, CSV or Parquet file, bundled:helpful or bundled:harmless."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --prompts to use.")] = "test",
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of --prompts that holds the prompt. Default: the one with a usual name."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Use only the first N prompts.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Softmax temperature.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Nucleus-sampling threshold (top-p).")
    ] = 1.0,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Maximum length of a response, in tokens.")
    ] = 128,
    strip: Annotated[
        bool, typer.Option("--strip", help="Remove white space at both ends of responses.")
    ] = False,
    answer: Annotated[Answer, typer.Option(help=ANSWER)] = Answer.whole,
    ask_again: Annotated[int, typer.Option(min=0, help=ASK_AGAIN)] = 0,
    dtype: Annotated[Dtype, typer.Option(help=DTYPE)] = Dtype.auto,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration store for the same prompts and reward.")
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
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow code from the Hub to run.")
    ] = False,
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
    asked = read_prompts(texts, prompts, split, limit, column)
    quiet_libraries()
    from infalign.models.fingerprints import policy_precision
    from infalign.models.samplers import load_sampler
    from infalign.prompts import require_scorable

    loading: dict[str, Any] = {"dtype": dtype.value, "trust_remote_code": trust_remote_code}
    with messages():
        scorer, store = _scorer_and_store(played, reward, calibration, strip, answer.value, loading)
        if store is not None and "dtype" in store.provenance:
            store.require(dtype=policy_precision(model, **loading))
    require_scorable(scorer, asked)
    sampler = load_sampler(
        model,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        strip=strip,
        answer=answer.value,
        ask_again=ask_again,
        **loading,
    )
    rows = _decode(played, sampler, scorer, store, asked, references, seed)
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
        with progress():  # shows what was decided about them
            return load_prompts(Prompts(file=source, split=split, limit=limit, column=column))
    if texts == ["-"]:
        texts = [line.removesuffix("\n") for line in sys.stdin]
    texts = [text for text in texts if text.strip()][:limit]
    if not texts:
        raise typer.BadParameter("standard input has none.", param_hint="prompts")
    return [
        Prompt(str(i), ({"role": "user", "content": t},), plain=True) for i, t in enumerate(texts)
    ]


def _scorer_and_store(played, reward, calibration, strip, answer, loading):
    from infalign.decoding import reads
    from infalign.models.fingerprints import reward_fingerprint
    from infalign.models.rewards import load_reward
    from infalign.stores import CalibrationStore

    reading = reads(played)
    if reward is None and reading in ("rewards", "quantiles"):
        raise typer.BadParameter(
            f"is needed: {played.spec} selects by reward.", param_hint="--reward"
        )
    if calibration and reading != "quantiles":
        raise typer.BadParameter(
            f"is not used: {played.spec} does not read quantiles.", param_hint="--calibration"
        )
    scorer = load_reward(reward, **loading) if reward else None
    if calibration is None:
        return scorer, None
    store = CalibrationStore.open(calibration)
    if "reward" in store.provenance:
        store.require(reward=reward_fingerprint(reward, **loading))
    store.require_strip(strip)
    store.require_answer(answer)
    return scorer, store


def _decode(played, sampler, scorer, store, asked, references, seed):
    """Decode one batch of prompts at a time, with a progress bar."""
    from infalign.decoding import decode, draw_calibration, reads

    on_the_spot = store is None and reads(played) == "quantiles"
    size = max(1, TOGETHER // (references if on_the_spot else min(played.draws, TOGETHER)))
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    rows: list = []
    with progress() as report:
        for part in parts:
            if len(parts) > 1:
                report("sample", len(rows), len(asked))
            conversations, columns = [p.value for p in part], [p.columns for p in part]
            ids = [p.id for p in part]
            known = store
            if on_the_spot:
                known = draw_calibration(
                    sampler,
                    scorer,
                    conversations,
                    references,
                    seed=seed,
                    prompt_ids=ids,
                    columns=columns,
                )
            rows += decode(
                played,
                sampler,
                scorer,
                conversations,
                seed=seed,
                prompt_ids=ids,
                columns=columns,
                calibration=known,
            )
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
