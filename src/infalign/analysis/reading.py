"""The samples of one policy from the rows of its files.

Rows come in three forms, which are known by their values: long, one sample a row; wide, lists of
samples, one prompt a row; counts, c correct samples of n. What is wrong with a row is counted
and refused, or dropped where the user asks for it, and then counted too.
"""

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np

from infalign import _check
from infalign.errors import ArgumentError, DataError

from .columns import ROLES, Columns, columns_of
from .length_units import NOTHING, lengths_in_one_unit
from .prompt_ids import prompt_ids
from .rows import Row, rows_of
from .samples import Samples

__all__ = ["DROPS", "as_float", "read_samples", "selected_rows"]

DROPS = {
    "unmatched": "prompts that some policy lacks",
    "missing": "samples without a score",
    "duplicates": "samples that occur again, with the same prompt and number",
    "truncated": "responses that were cut at the limit of their length",
}
"""What can be left out on request, and what it is."""

CUT = frozenset(("true", "yes", "1", "1.0", "length", "max_tokens", "max_length", "model_length"))
"""What frameworks write for a response that was cut, in lower case."""

TRUE = {"true": 1.0, "yes": 1.0, "false": 0.0, "no": 0.0}
"""Words that CSV files hold for 1 and 0."""


@dataclass
class _Prompt:
    """The samples of one prompt, in the order of the rows."""

    scores: list[float] = field(default_factory=list)
    answers: list[Any] = field(default_factory=list)
    lengths: list[float] = field(default_factory=list)
    """Lengths in a column, nan where there are none."""

    characters: list[float] = field(default_factory=list)
    """Lengths of the responses, nan where there are none."""

    numbers: list[float] = field(default_factory=list)
    """Numbers of the samples, nan where there are none."""

    def sort(self) -> None:
        """Put the samples into the order of their numbers, if all have one."""
        if self.numbers and not any(map(math.isnan, self.numbers)):
            order = sorted(range(len(self.numbers)), key=self.numbers.__getitem__)
            for part in (self.scores, self.answers, self.lengths, self.characters):
                part[:] = [part[place] for place in order]


def read_samples(
    source: str,
    name: str,
    *,
    columns: Mapping[str, str] | None = None,
    where: Mapping[str, str] | None = None,
    drop: Collection[str] = (),
) -> Samples:
    """The samples of one policy from files that exist.

    - `source`: a file, a folder, a pattern such as `logs/*.jsonl`, or `-` for standard input.
    - `name`: of the policy.
    - `columns`: role → column: `prompt`, `score`, `sample`, `answer`, … Default: by usual names.
    - `where`: column → value: only rows with it are read.
    - `drop`: keys of `DROPS`: what is left out instead of being an error.

    Raises DataError with file and line for what cannot be read.
    """
    roles = _check.mapping("columns", columns or {})
    unknown = next((role for role in roles if role not in ROLES), None)
    if unknown is not None:
        raise ArgumentError(
            "columns", f"must name {', '.join(ROLES)}; got {_check.short(unknown)}."
        )
    for kind in drop:
        _check.one_of("drop", kind, tuple(DROPS))
    rows = selected_rows(list(rows_of(source)), where or {}, source)
    own = columns_of(rows, roles)
    if "truncated" in drop and own.truncated is None:
        raise DataError(
            f"{_check.short(source)} has no column that says which responses were cut, so none can "
            "be left out by `truncated`. Name it: --column truncated=NAME"
        )
    ids, notes = prompt_ids(rows, own, by_task="task" in roles)
    reader = _Reader(own, drop, roles, notes)
    for row, prompt in zip(rows, ids, strict=True):
        reader.read(row, prompt)
    return reader.samples(name)


MOST_ATTEMPTS = 2**26
"""Maximum number of scores that counts become: half a gigabyte, of which a few copies exist."""


class _Reader:
    """Collects samples by prompt, and counts what is wrong."""

    def __init__(
        self,
        columns: Columns,
        drop: Collection[str],
        named: Collection[str],
        notes: Collection[str],
    ) -> None:
        self.columns, self.drop, self.named = columns, drop, named
        self.prompts: dict[str, _Prompt] = {}
        self.numbers: set[tuple[str, str, str]] = set()
        self.wrong: dict[str, list[str]] = {kind: [] for kind in DROPS}
        self.notes = list(notes)
        self.one_score_noted = False
        self.no_length: str | None = None
        self.widest = 0

    def read(self, row: Row, prompt: str) -> None:
        """Take the samples of a row."""
        columns = self.columns
        own = self.prompts.setdefault(prompt, _Prompt())
        if columns.counts:
            if own.scores:
                raise DataError(f"{row}: prompt {_check.short(prompt)} has counts already.")
            correct, total = (_whole(row, column) for column in columns.counts)
            if correct > total:
                raise DataError(f"{row}: {correct} correct samples of {total} are too many.")
            self._require_room(row, total)
            own.scores = [0.0] * (total - correct) + [1.0] * correct
            return
        assert columns.score is not None
        value = row.values.get(columns.score)
        if isinstance(value, list | tuple | np.ndarray):
            self._wide(row, own, list(value))
            return
        if self._left_out(row, prompt):
            return
        score = _score(row, columns.score, value)
        if math.isnan(score):
            self.wrong["missing"].append(str(row))
            return
        repeats = row.values.get(
            "resps"
        )  # lm-evaluation-harness scores one of them, or all at once
        several = isinstance(repeats, list) and len(np.ravel(repeats[:1])) > 1
        if several and not self.one_score_noted:
            self.one_score_noted = True
            self.notes.append(
                "one score for several responses to a prompt, as the filter left them"
            )
        own.scores.append(score)
        own.answers.append(_plain(_value(row, columns.answer)))
        own.lengths.append(self._length(row, _value(row, columns.length)))
        own.characters.append(_characters(_value(row, columns.response)))
        number = row.values.get(columns.sample) if columns.sample else None
        own.numbers.append(_number(number))

    def _wide(self, row: Row, own: _Prompt, values: list[Any]) -> None:
        """All samples of a prompt, with lists of one length in every column that is read."""
        columns = self.columns
        lists = {}
        for column in (columns.answer, columns.length, columns.response, columns.truncated):
            if column is None or not isinstance(row.values.get(column), list):
                continue
            lists[column] = row.values[column]
            if len(lists[column]) != len(values):
                raise DataError(
                    f"{row}: `{column}` has {len(lists[column])} entries for {len(values)} scores."
                )
        if columns.truncated and columns.truncated not in lists:
            if _word(row.values.get(columns.truncated)) in CUT:
                raise DataError(
                    f"{row}: `{columns.truncated}` must be a list with one entry per score; got "
                    f"{_check.short(row.values[columns.truncated])} for {len(values)} scores."
                )
        for place, value in enumerate(values):
            cut = lists.get(columns.truncated or "")
            if cut is not None and self._cut(cut[place], f"{row}, sample {place}"):
                continue
            score = _score(row, columns.score or "", value)
            if math.isnan(score):
                self.wrong["missing"].append(f"{row}, sample {place}")
                continue
            own.scores.append(score)
            answer = lists.get(columns.answer or "")
            own.answers.append(None if answer is None else _plain(answer[place]))
            length, text = (lists.get(c or "") for c in (columns.length, columns.response))
            own.lengths.append(self._length(row, None if length is None else length[place]))
            own.characters.append(_characters(None if text is None else text[place]))
            own.numbers.append(math.nan)

    def _left_out(self, row: Row, prompt: str) -> bool:
        """Whether a row is a duplicate, or was cut and is to be dropped; both are counted."""
        columns = self.columns
        if columns.sample is not None and row.values.get(columns.sample) is not None:
            number = row.file, prompt, str(row.values[columns.sample])
            if number in self.numbers:
                self.wrong["duplicates"].append(str(row))
                return True
            self.numbers.add(number)
        return columns.truncated is not None and self._cut(row.values.get(columns.truncated), row)

    def _cut(self, value: Any, place: object) -> bool:
        """Whether a response was cut and is to be dropped; it is counted."""
        if _word(value) not in CUT:
            return False
        self.wrong["truncated"].append(str(place))
        return "truncated" in self.drop

    def _length(self, row: Row, value: Any) -> float:
        """A length in its column; nan if there is none.

        Raises DataError for something else, if the user named the column. Otherwise the first such
        value is remembered for a note.
        """
        if value is None or _word(value) in NOTHING:
            return math.nan
        length = math.nan if isinstance(value, bool) else _number(value)
        if 0 <= length < math.inf:
            return length
        if "length" in self.named or math.isinf(length):
            raise DataError(
                f"{row}: `{self.columns.length}` must be a length, a number of at least 0; got "
                f"{_check.short(value)}. Name the column of the lengths, or that of the responses, "
                "whose characters are then counted: --column length=NAME"
            )
        if self.no_length is None:
            self.no_length = f"{_check.short(value)} ({row})"
        return math.nan

    def samples(self, name: str) -> Samples:
        """The samples that were read. Raises DataError for what is wrong and not dropped."""
        notes = [*self.columns.notes, *self.notes]
        for kind, places in self.wrong.items():
            if not places:
                continue
            if kind not in self.drop and kind != "truncated":
                raise DataError(
                    f"{len(places):,} {DROPS[kind]}, first {places[0]}. Mend the source, or leave "
                    f"them out: --drop {kind}"
                )
            verb = "left out" if kind in self.drop else "included"
            notes.append(f"{len(places):,} {DROPS[kind]}, {verb}")
        empty = [prompt for prompt, own in self.prompts.items() if not own.scores]
        if empty:
            notes.append(f"{len(empty):,} prompts without a sample, left out")
        prompts = {prompt: own for prompt, own in self.prompts.items() if own.scores}
        if not prompts:
            raise DataError(f"{_check.short(name)} has no samples with a score.")
        for own in prompts.values():
            own.sort()
        width = max(len(own.scores) for own in prompts.values())
        contradiction = self._contradiction(prompts) if self.columns.answer else None
        if contradiction:
            notes.append(f"majority votes are left out: {contradiction}")

        lengths = lengths_in_one_unit(
            self.columns.length,
            [own.lengths for own in prompts.values()],
            [own.characters for own in prompts.values()],
            self.no_length,
        )
        if lengths.note:
            notes.append(lengths.note)

        def table(rows: Iterable[Sequence[Any]], fill: Any, kind: type) -> np.ndarray:
            filled: np.ndarray = np.full((len(prompts), width), fill, kind)
            for place, values in enumerate(rows):
                filled[place, : len(values)] = values
            return filled

        answers = [own.answers for own in prompts.values()]
        return Samples(
            name,
            tuple(prompts),
            table([own.scores for own in prompts.values()], np.nan, float),
            score=self.columns.score or "correct",
            answers=table(answers, None, object)
            if self.columns.answer and not contradiction
            else None,
            lengths=None if lengths.rows is None else table(lengths.rows, np.nan, float),
            length_unit=lengths.unit,
            notes=tuple(notes),
            ordered=not self.columns.counts,
        )

    def _require_room(self, row: Row, total: int) -> None:
        """Raise DataError if the table of all attempts, those of this row among them, is too
        large."""
        self.widest = max(self.widest, total)
        if (size := self.widest * len(self.prompts)) > MOST_ATTEMPTS:
            raise DataError(
                f"{row}: {total:,} attempts. {len(self.prompts):,} prompts with up to "
                f"{self.widest:,} attempts are {size:,} scores; at most {MOST_ATTEMPTS:,} are "
                "analyzed. Give the counts of a random part of each prompt's attempts: they say "
                "the same for every n up to their number, with wider intervals."
            )

    def _contradiction(self, prompts: Mapping[str, _Prompt]) -> str | None:
        """Why answers cannot vote: equal ones of a prompt have different scores, as where the
        column holds the right answer instead of the model's.

        Raises DataError if the user named the column.
        """
        bad = []
        for prompt, own in prompts.items():
            known: dict[Any, float] = {}
            for answer, score in zip(own.answers, own.scores, strict=True):
                if answer is not None and known.setdefault(answer, score) != score:
                    bad.append(prompt)
                    break
        if not bad:
            return None
        why = (
            f"equal answers in `{self.columns.answer}` are scored differently on {len(bad):,} of "
            f"{len(prompts):,} prompts, first {_check.short(bad[0])}"
        )
        if "answer" in self.named:
            raise DataError(f"{why}. Name the column of the model's final answers.")
        return why


def selected_rows(rows: Sequence[Row], where: Mapping[str, str], source: str) -> list[Row]:
    """The rows with the wanted values."""
    selected = list(rows)
    for column, value in where.items():
        values = dict.fromkeys(str(row.values.get(column)) for row in selected)
        selected = [row for row in selected if str(row.values.get(column)) == value]
        if not selected:
            shown = _check.visible(", ".join(list(values)[:8]))
            raise DataError(
                f"{source} has no row with {_check.short(value)} in `{column}`; it has {shown}."
            )
    if not selected:
        raise DataError(f"{source} holds no rows.")
    return selected


def _word(value: Any) -> str:
    """A value of a column as a word, in lower case."""
    return str(value).strip().lower()


def as_float(value: Any) -> float:
    """A number in double precision; infinite if it has too many digits."""
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _score(row: Row, column: str, value: Any) -> float:
    """A score as a number; nan if there is none."""
    if value is None or value == "":
        return math.nan
    if isinstance(value, str):
        word = value.strip().lower()
        if word in TRUE:
            return TRUE[word]
        try:
            value = int(word) if word.removeprefix("-").isdecimal() else float(word)
        except ValueError:
            value = None
    if isinstance(value, Real) or isinstance(value, bool | np.bool_):
        number = as_float(value)
        if isinstance(value, Integral) and not math.isinf(number) and number != int(value):
            raise DataError(
                f"{row}: `{column}` holds {int(value)}, which double precision rounds to "
                f"{int(number)}, so that it would tie with others. Subtract a constant from all "
                "scores, or divide them."
            )
        if not math.isinf(number):
            return number
    raise DataError(
        f"{row}: `{column}` must be a number; got {_check.short(row.values.get(column))}. Name "
        "the column of the scores: --column score=NAME"
    )


def _value(row: Row, column: str | None) -> Any:
    return None if column is None else row.values.get(column)


def _characters(text: Any) -> float:
    """The length of a text; nan for anything else."""
    return float(len(text)) if isinstance(text, str) else math.nan


def _number(value: Any) -> float:
    """The number of a sample, or a length; nan if it has none."""
    try:
        return as_float(value)
    except (TypeError, ValueError):
        return math.nan


def _whole(row: Row, column: str) -> int:
    value = row.values.get(column)
    number = _score(row, column, value)
    if math.isnan(number) or number < 0 or not number.is_integer():
        raise DataError(
            f"{row}: `{column}` must be a whole number of samples; got {_check.short(value)}."
        )
    return int(number)


def _plain(answer: Any) -> Any:
    """An answer as a value that can be compared: lists and objects as their JSON."""
    if answer is None or isinstance(answer, str | bool | Real):
        return answer
    return json.dumps(answer, ensure_ascii=False, sort_keys=True, default=str)
