"""The forms in which verdicts of judges are written, as one answer after the other."""

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError

from .length_units import CHARACTERS, Length, length_of
from .prompt_ids import prompt_id
from .reading import as_float
from .rows import Row

__all__ = ["USUAL", "VERDICT_ROLES", "Answer", "Form", "form_of"]

USUAL: Mapping[str, tuple[str, ...]] = {
    "prompt": (
        "prompt_id",
        "question_id",
        "instance_id",
        "id",
        "prompt",
        "instruction",
        "question",
    ),
    "first": ("model_a", "model_1", "policy_a", "policy"),
    "second": ("model_b", "model_2", "policy_b", "reference"),
    "verdict": ("winner", "verdict", "preferred"),
    "judge": ("judge", "annotator", "judge_model", "rater"),
    "pair": ("pair", "turn"),
    "first-response": ("response_a", "answer_a", "output_a", "response"),
    "second-response": ("response_b", "answer_b", "output_b", "reference_response"),
}
"""Role → names that are looked for."""

VERDICT_ROLES = tuple(USUAL)
"""What a column can be."""

SHOWN_FIRST = ("model_a", "model_1", "policy_a", "response_a")
"""Columns of the policy whose response the judge has read first. In other columns, such as those of
alpaca_eval, which exchanges sides at random, the order is unknown."""

WORDS = {
    1.0: ("a", "first", "model_a", "model_1", "response_a", "a>b", "a>>b"),
    0.0: ("b", "second", "model_b", "model_2", "response_b", "b>a", "b>>a"),
    0.5: ("tie", "tie (bothbad)", "both", "both_bad", "bothbad", "draw", "equal", "c", "a=b"),
    math.nan: ("", "error", "invalid", "none", "null", "nan", "unknown", "n/a"),
}
"""What judges write: the first response wins, the second one does, neither, and no verdict."""

VERDICTS = {word: value for value, words in WORDS.items() for word in words}


UNKNOWN = Length(math.nan, CHARACTERS)


@dataclass(frozen=True)
class Answer(Shown):
    """One answer, before it is a column entry."""

    prompt: str
    pair: str
    first: str
    second: str
    judge: str
    outcome: float
    ordered: bool
    lengths: tuple[Length, Length] = (UNKNOWN, UNKNOWN)
    """Of the response of `first`, and of that of `second`."""


Names = tuple[str, str]
"""Of the reference and of the judge, where the source does not name them."""


@dataclass(frozen=True)
class Form(Shown):
    """A form of verdicts, known by its columns."""

    read: Callable[[Row, Mapping[str, Any], Names], Iterator[Answer]]
    """The answers in a row; its arguments are the row, role → column, and names."""

    words: str
    """What it is, for the user."""

    reference: Literal["unnamed", "second"] | None = None
    """Which side is the reference: one that the source does not name, the second one, or either."""


def form_of(present: Collection[str], own: Mapping[str, Any], where: str) -> Form:
    """The form of a source.

    - `present`: its columns. `own`: role → column, or None.
    - `where`: its name.

    Raises DataError if a column is missing.
    """
    columns = set(present)
    if {"policy_first", "reference_first", "prompt_id"} <= columns:
        return Form(_stored, "verdicts of `infalign evaluate`, in both orders", "unnamed")
    if {"g1_winner", "g2_winner", "model_1", "model_2"} <= columns:
        return Form(_two_games, "two games each, the second with the sides exchanged")
    if {"preference", "generator_1", "generator_2"} <= columns:
        return Form(_annotation, "annotations of alpaca_eval, the order is unknown", "second")
    if {"games", "model"} <= columns:
        words = "two games each, the first with the reference's response first"
        return Form(_arena_hard, words, "unnamed")
    lacking = [role for role in ("prompt", "first", "second", "verdict") if not own[role]]
    if lacking:
        raise DataError(
            f"{where} has no column for the {' and the '.join(lacking)} of a verdict; its columns "
            f"are {_check.visible(', '.join(map(str, list(present)[:12])))}. Name it: --column "
            f"{lacking[0]}=NAME"
        )
    order = f"`{own['first']}` shown first" if _ordered(own) else "the order is unknown"
    return Form(
        _plain,
        f"`{own['first']}` against `{own['second']}`, verdicts in `{own['verdict']}`, {order}",
        "second" if own["second"] == "reference" else None,
    )


def _ordered(own: Mapping[str, Any]) -> bool:
    return own["first"] in SHOWN_FIRST


def _plain(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[Answer]:
    first, second = (_name(row, own[role]) for role in ("first", "second"))
    columns = [own[role] for role in ("first-response", "second-response")]
    texts = [row.values.get(column) if column else None for column in columns]
    prompt, pair = _place(row, own)
    yield Answer(
        prompt,
        pair + _pair_of((first, second), texts),
        first,
        second,
        _judge(row, own, names),
        _verdict(row, own["verdict"], row.values.get(own["verdict"]), first, second),
        _ordered(own),
        _lengths(texts, columns),
    )


def _two_games(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[Answer]:
    """MT-bench: both winners are named by column, and the second game shows `model_2` first."""
    first, second = _name(row, "model_1"), _name(row, "model_2")
    for game, sides in (("g1_winner", (first, second)), ("g2_winner", (second, first))):
        won = _verdict(row, game, row.values.get(game), first, second)
        if sides[0] == second:
            won = 1 - won
        yield Answer(*_place(row, own), *sides, _judge(row, own, names), won, True)


def _annotation(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[Answer]:
    """alpaca_eval in a table: 1 prefers the first output, 2 the second, and 0 or 1.5 neither."""
    value = row.values.get("preference")
    try:
        chance = None if value in (None, "") else (as_float(value) or 1.5) - 1
    except (TypeError, ValueError):
        chance = value  # refused below
    columns = ("output_2", "output_1")
    texts = [row.values.get(column) for column in columns]
    sides = _name(row, "generator_2"), _name(row, "generator_1")
    prompt, pair = _place(row, own)
    yield Answer(
        prompt,
        pair + _pair_of(sides, texts),
        *sides,
        _judge(row, own, names),
        _verdict(row, "preference", chance, *sides),
        False,
        _lengths(texts, columns),
    )


def _arena_hard(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[Answer]:
    """Arena-Hard: A is the reference in the first game, and the model in the second."""
    model, reference = _name(row, "model"), names[0]
    games = row.values["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise DataError(f"{row}: `games` must hold two games; got {_check.short(games)}.")
    for game, sides in zip(games, ((reference, model), (model, reference)), strict=True):
        score = game.get("score") if isinstance(game, dict) else game
        yield Answer(
            *_place(row, own),
            *sides,
            _judge(row, own, names),
            _verdict(row, "games", score, *sides),
            True,
        )


def _stored(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[Answer]:
    """The table judge-NAME.parquet of an evaluation."""
    policy, reference = Path(row.file).stem.removeprefix("judge-"), names[0]
    orders = (("policy_first", (policy, reference)), ("reference_first", (reference, policy)))
    for column, sides in orders:
        won = _verdict(row, column, row.values.get(column), *sides)
        yield Answer(*_place(row, own), *sides, _judge(row, own, names), won, True)


def _place(row: Row, own: Mapping[str, Any]) -> tuple[str, str]:
    pair = row.values.get(own["pair"]) if own["pair"] else None
    return prompt_id(row, own["prompt"] or "question_id"), "" if pair is None else str(pair)


def _name(row: Row, column: str) -> str:
    value = row.values.get(column)
    if value is None or value == "":
        raise DataError(f"{row}: no name of a policy in `{column}`.")
    return str(value)


def _judge(row: Row, own: Mapping[str, Any], names: Names) -> str:
    """The judge's name; MT-bench writes it with the name of the instruction."""
    value = row.values.get(own["judge"]) if own["judge"] else None
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    return names[1] if value is None or value == "" else str(value)


def _verdict(row: Row, column: str, value: Any, first: str, second: str) -> float:
    """Whether the first response wins: a word, the name of a policy, or a chance from 0 to 1."""
    if value is None:
        return math.nan
    if isinstance(value, Real):
        number = as_float(value)
        if math.isnan(number) or 0 <= number <= 1:
            return number
    elif str(value) in (first, second):
        return float(str(value) == first)
    elif (word := str(value).strip().strip("[]").lower()) in VERDICTS:
        return VERDICTS[word]
    else:
        try:
            number = float(word)
        except ValueError:
            number = -1
        if 0 <= number <= 1:
            return number
    raise DataError(
        f"{row}: `{column}` must name the winner (such as model_a, A, tie, or a policy), or be a "
        f"chance from 0 to 1 that the first one wins; got {_check.short(value)}. An invalid answer "
        "is empty, or says error."
    )


def _pair_of(sides: tuple[str, str], texts: Sequence[Any]) -> str:
    """A name of two responses, the same in both orders; none without their texts. Other responses
    to a prompt are another pair, and the same ones again another vote."""
    if not all(isinstance(text, str) for text in texts):
        return ""
    named = sorted(zip(sides, texts, strict=True))
    return ":" + hashlib.sha256(repr(named).encode(errors="surrogatepass")).hexdigest()[:16]


def _lengths(texts: Sequence[Any], columns: Sequence[str | None]) -> tuple[Length, Length]:
    """The lengths of the two responses."""
    first, second = (length_of(*own) for own in zip(texts, [c or "" for c in columns], strict=True))
    return first, second
