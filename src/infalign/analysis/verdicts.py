"""Verdicts of judges from the files that people have: who has won, of two responses to a prompt.

One row is one answer of a judge. The forms are known by their columns: two policies and a winner
(Chatbot Arena, or a table of one's own), two games with the sides exchanged (MT-bench and
Arena-Hard), annotations of alpaca_eval, and the verdicts that `infalign evaluate` stores.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError, DataError

from .reading import prompt_id, selected_rows
from .rows import Row, rows_of

__all__ = ["VERDICT_ROLES", "Verdicts", "join_verdicts", "read_verdicts"]

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


@dataclass(frozen=True, eq=False)
class Verdicts(Shown):
    """Answers of judges, one entry each."""

    prompts: tuple[str, ...] = field(repr=False)
    """Ids of the prompts."""

    pairs: tuple[str, ...] = field(repr=False)
    """Name of the pair of responses among those of its prompt and its two policies."""

    first: tuple[str, ...] = field(repr=False)
    second: tuple[str, ...] = field(repr=False)
    """The policies whose responses were compared."""

    judges: tuple[str, ...] = field(repr=False)

    outcomes: np.ndarray = field(repr=False)
    """1 where `first` wins, 0 where `second` does, ½ for a tie, nan for an invalid answer."""

    ordered: np.ndarray = field(repr=False)
    """Whether the judge has read the response of `first` before the other one; where not, the
    order is unknown."""

    differences: np.ndarray = field(repr=False)
    """Length of the response of `first` minus that of `second`, in characters; nan if unknown."""

    reference: str | None = None
    """The reference, where the source names one."""

    notes: tuple[str, ...] = ()

    @property
    def policies(self) -> tuple[str, ...]:
        """All policies in the order in which they occur."""
        return tuple(
            dict.fromkeys(n for both in zip(self.first, self.second, strict=True) for n in both)
        )

    def _facts(self):
        return {
            "verdicts": len(self.prompts),
            "invalid": int(np.isnan(self.outcomes).sum()),
            "prompts": len(set(self.prompts)),
            "policies": self.policies,
            "judges": tuple(dict.fromkeys(self.judges)),
        }


@dataclass(frozen=True)
class _Answer:
    """One answer, before it is a column entry."""

    prompt: str
    pair: str
    first: str
    second: str
    judge: str
    outcome: float
    ordered: bool
    difference: float = math.nan


def read_verdicts(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    reference: str | None = None,
    judge: str = "judge",
) -> Verdicts:
    """Verdicts from files: JSON Lines, JSON, CSV, TSV or Parquet.

    - `source`: a file, a folder, a pattern, or `-` for standard input.
    - `columns`: role, one of `VERDICT_ROLES` → column. Default: by usual names.
    - `where`: column → value: only rows with it are read.
    - `reference`, `judge`: their names in sources that do not name them, such as Arena-Hard.

    Raises DataError with file and line for what cannot be read.
    """
    roles = _check.mapping("columns", columns or {})
    unknown = next((role for role in roles if role not in USUAL), None)
    if unknown is not None:
        raise ArgumentError(
            "columns", f"must name {', '.join(USUAL)}; got {_check.short(unknown)}."
        )
    rows = selected_rows(list(rows_of(source)), where or {}, source)
    present = dict.fromkeys(name for row in rows for name in row.values)
    for role, column in roles.items():
        if column not in present:
            raise DataError(
                f"{rows[0].file} has no column {_check.short(column)} (for the {role})."
                f"{_check.nearest(column, present)}"
            )
    own = {r: next((n for n in names if n in present), None) for r, names in USUAL.items()}
    own |= roles
    form, words = _form(present, own, rows[0].file)
    answers = [a for row in rows for a in form(row, own, (reference or "reference", judge))]
    same = next((a for a in answers if a.first == a.second), None)
    if same is not None:
        raise DataError(
            f"{source}: prompt {_check.short(same.prompt)} compares {_check.short(same.first)} "
            "with itself. Name the two policies differently."
        )
    if form in (_stored, _arena_hard):
        reference = reference or "reference"
    elif form is _annotation or own["second"] == "reference":
        seconds = {a.second for a in answers}
        reference = reference or (seconds.pop() if len(seconds) == 1 else None)
    return Verdicts(
        prompts=tuple(a.prompt for a in answers),
        pairs=tuple(a.pair for a in answers),
        first=tuple(a.first for a in answers),
        second=tuple(a.second for a in answers),
        judges=tuple(a.judge for a in answers),
        outcomes=np.array([a.outcome for a in answers]),
        ordered=np.array([a.ordered for a in answers]),
        differences=np.array([a.difference for a in answers]),
        reference=reference,
        notes=(words,),
    )


def join_verdicts(several: Sequence[Verdicts]) -> Verdicts:
    """Verdicts of several sources, such as one file for each judge, as one."""
    several = [
        _check.instance("several", v, Verdicts, "a list of `Verdicts`")
        for v in _check.entries("several", several)
    ]
    if not several:
        raise ArgumentError("several", "must hold at least one; got none.")
    references = {v.reference for v in several}
    return Verdicts(
        prompts=tuple(p for v in several for p in v.prompts),
        pairs=tuple(p for v in several for p in v.pairs),
        first=tuple(p for v in several for p in v.first),
        second=tuple(p for v in several for p in v.second),
        judges=tuple(j for v in several for j in v.judges),
        outcomes=np.concatenate([v.outcomes for v in several]),
        ordered=np.concatenate([v.ordered for v in several]),
        differences=np.concatenate([v.differences for v in several]),
        reference=references.pop() if len(references) == 1 else None,
        notes=tuple(dict.fromkeys(note for v in several for note in v.notes)),
    )


Names = tuple[str, str]
"""Of the reference and of the judge, where the source does not name them."""

Form = Callable[[Row, Mapping[str, Any], Names], Iterator[_Answer]]


def _form(present: Mapping, own: Mapping[str, Any], where: str) -> tuple[Form, str]:
    """How rows are read, and what to say of it."""
    if {"policy_first", "reference_first", "prompt_id"} <= set(present):
        return _stored, "verdicts of `infalign evaluate`, in both orders"
    if {"g1_winner", "g2_winner", "model_1", "model_2"} <= set(present):
        return _two_games, "two games each, the second with the sides exchanged"
    if {"preference", "generator_1", "generator_2"} <= set(present):
        return _annotation, "annotations of alpaca_eval, the order shown is unknown"
    if {"games", "model"} <= set(present):
        return _arena_hard, "two games each, the first with the reference's response first"
    lacking = [role for role in ("prompt", "first", "second", "verdict") if not own[role]]
    if lacking:
        raise DataError(
            f"{where} has no column for the {' and the '.join(lacking)} of a verdict; its columns "
            f"are {_check.visible(', '.join(map(str, list(present)[:12])))}. Name it: --column "
            f"{lacking[0]}=NAME"
        )
    said = f"`{own['first']}` against `{own['second']}`, verdicts in `{own['verdict']}`"
    order = own["first"] in SHOWN_FIRST
    return _plain, said + (
        f", `{own['first']}` shown first" if order else ", the order shown is unknown"
    )


def _plain(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[_Answer]:
    first, second = (_name(row, own[role]) for role in ("first", "second"))
    yield _Answer(
        *_place(row, own),
        first,
        second,
        _judge(row, own, names),
        _verdict(row, own["verdict"], row.values.get(own["verdict"]), first, second),
        own["first"] in SHOWN_FIRST,
        _difference(row, own),
    )


def _two_games(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[_Answer]:
    """MT-bench: both winners are named by column, and the second game shows `model_2` first."""
    first, second = _name(row, "model_1"), _name(row, "model_2")
    for game, sides in (("g1_winner", (first, second)), ("g2_winner", (second, first))):
        won = _verdict(row, game, row.values.get(game), first, second)
        if sides[0] == second:
            won = 1 - won
        yield _Answer(*_place(row, own), *sides, _judge(row, own, names), won, True)


def _annotation(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[_Answer]:
    """alpaca_eval in a table: 1 prefers the first output, 2 the second, and 0 or 1.5 neither."""
    value = row.values.get("preference")
    try:
        chance = None if value in (None, "") else (float(value) or 1.5) - 1
    except (TypeError, ValueError):
        chance = value  # refused below
    outputs = [row.values.get(name) for name in ("output_2", "output_1")]
    sizes = [float(len(text)) for text in outputs if isinstance(text, str)]
    sides = _name(row, "generator_2"), _name(row, "generator_1")
    yield _Answer(
        *_place(row, own),
        *sides,
        _judge(row, own, names),
        _verdict(row, "preference", chance, *sides),
        False,
        sizes[0] - sizes[1] if len(sizes) == 2 else math.nan,
    )


def _arena_hard(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[_Answer]:
    """Arena-Hard: A is the reference in the first game, and the model in the second."""
    model, reference = _name(row, "model"), names[0]
    games = row.values["games"]
    if not isinstance(games, list) or len(games) != 2:
        raise DataError(f"{row}: `games` must hold two games; got {_check.short(games)}.")
    for game, sides in zip(games, ((reference, model), (model, reference)), strict=True):
        score = game.get("score") if isinstance(game, dict) else game
        yield _Answer(
            *_place(row, own),
            *sides,
            _judge(row, own, names),
            _verdict(row, "games", score, *sides),
            True,
        )


def _stored(row: Row, own: Mapping[str, Any], names: Names) -> Iterator[_Answer]:
    """The table judge-NAME.parquet of an evaluation."""
    policy, reference = Path(row.file).stem.removeprefix("judge-"), names[0]
    orders = (("policy_first", (policy, reference)), ("reference_first", (reference, policy)))
    for column, sides in orders:
        won = _verdict(row, column, row.values.get(column), *sides)
        yield _Answer(*_place(row, own), *sides, _judge(row, own, names), won, True)


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
        number = float(value)
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


def _difference(row: Row, own: Mapping[str, Any]) -> float:
    """Difference in characters, or of numbers that are lengths already."""
    sizes = []
    for role in ("first-response", "second-response"):
        value = row.values.get(own[role]) if own[role] else None
        if isinstance(value, str):
            sizes.append(float(len(value)))
        elif isinstance(value, Real) and not isinstance(value, bool):
            sizes.append(float(value))
    return sizes[0] - sizes[1] if len(sizes) == 2 else math.nan
