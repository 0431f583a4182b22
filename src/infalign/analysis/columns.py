"""Which column of a table is what: as named by the user, or by the names that people use."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

from infalign import _check
from infalign._look import Shown
from infalign.errors import DataError

from .logs import NOT_RECORDED
from .rows import Row
from .samples import CORRECT

__all__ = ["CONTENTS", "ROLES", "Columns", "columns_of"]

USUAL: Mapping[str, tuple[str, ...]] = {
    "prompt": (
        *("prompt_id", "instance_id", "doc_hash", "doc_id", "task_id", "problem_id"),
        *("question_id", "example_id", "id", "prompt", "question", "instruction", "problem"),
        *("input", "query", "goal", "behavior"),
    ),
    "score": ("reward", "rewards", "score", "scores", *CORRECT, "preferred"),
    "sample": (
        *("sample", "sample_id", "sample_index", "completion_id", "epoch", "attempt", "rollout"),
        *("trial", "repeat"),
    ),
    "correct-count": ("c", "n_correct", "num_correct", "correct_count", "successes", "passes"),
    "total-count": ("n", "n_samples", "num_samples", "total", "attempts", "trials"),
    "answer": ("answer", "final_answer", "extracted_answer", "prediction", "pred", "parsed_answer"),
    "length": ("length", "n_tokens", "num_tokens", "completion_tokens", "response_tokens"),
    "response": ("response", "completion", "output", "generation", "text"),
    "truncated": ("truncated", "finish_reason", "stop_reason"),
    "task": ("task",),
    "prompt-text": ("behavior", "goal", "question", "problem", "query"),
}
"""Role → names that are looked for, the most telling first."""

ROLES = tuple(USUAL)
"""What a column can be."""

MIXED = (
    *("step", "filter", "global_step", "checkpoint"),
    *("model", "model_id", "model_name", "policy", "generator", "generator_2"),
    *("annotator", "scorer"),
)
"""Columns whose values must not be mixed: policies, checkpoints of one training, or ways to
score."""

NO_SCORES = ("advantage", "advantages", "index", "idx", "seed", "logprob", "temperature")
"""Columns of numbers that are not scores."""

TEXTS = ("prompt", "question", "instruction", "problem", "input", "query", "goal", "behavior")
"""Columns that hold the prompt itself."""

PARTS = ("instruction", "input", "prompt")
"""Columns that together are the prompt, where none of the usual names for its text is there."""

CONTENTS = (*TEXTS, "doc_hash")
"""Columns that are equal only for the same prompt."""


@dataclass(frozen=True)
class Columns(Shown):
    """The column of each role that a table has."""

    prompt: str
    score: str | None = None
    counts: tuple[str, str] | None = None
    """Columns with the number of correct samples and of all samples, instead of scores."""

    sample: str | None = None
    answer: str | None = None
    length: str | None = None
    response: str | None = None
    truncated: str | None = None
    task: str | None = None
    """Column of the task, within which ids are different."""

    texts: tuple[str, ...] = ()
    """Columns that must not change where the id is the same."""

    notes: tuple[str, ...] = field(default=(), repr=False)
    """What was decided by names, for the user."""


def columns_of(rows: Sequence[Row], named: Mapping[str, str] | None = None) -> Columns:
    """The columns of a table.

    - `named`: role → column, for columns with other names.

    Raises DataError if a named column is missing, or if it is not clear which column holds the
    prompts or the scores.
    """
    named = dict(named or {})
    present = dict.fromkeys(name for row in rows for name in row.values)
    where = rows[0].file
    for role, column in named.items():
        if column not in present:
            raise DataError(
                f"{where} has no column {_check.short(column)} (for the {role})."
                f"{_check.nearest(column, present)} Its columns are {_listed(present)}."
            )
    unrecorded = _one_policy(rows, present)
    usual = {r: next((n for n in names if n in present), None) for r, names in USUAL.items()}
    own = usual | named
    prompt = named.get("prompt") or _prompt(rows, present, where)
    task = None if own["task"] == prompt else own["task"]
    texts = _texts(present, prompt, named.get("prompt-text"))
    correct, total = own["correct-count"], own["total-count"]
    if correct and total and "score" not in named:
        notes = (f"prompts in `{prompt}`, `{correct}` of `{total}` correct", *unrecorded)
        return Columns(prompt, counts=(correct, total), task=task, texts=texts, notes=notes)
    score = named.get("score") or _score(
        rows, present, where, {prompt, *filter(None, own.values())}
    )
    sample, answer, length, response, truncated = (
        None if (name := own[role]) in (prompt, score) else name
        for role in ("sample", "answer", "length", "response", "truncated")
    )
    if length == response:
        length = None  # the characters of a text are its length
    said = [f"prompts in `{prompt}`, scores in `{score}`"]
    said += [
        f"{role}s in `{name}`" for role, name in (("sample", sample), ("answer", answer)) if name
    ]
    notes = (", ".join(said), *unrecorded)
    return Columns(
        prompt, score, None, sample, answer, length, response, truncated, task, texts, notes
    )


def _one_policy(rows: Sequence[Row], present: Collection[str]) -> tuple[str, ...]:
    """Refuse a table that mixes the samples of several policies, or several ways to score.

    Returns a note of logs that do not name their model, if others do.
    """
    notes = []
    for column in MIXED:
        if column not in present:
            continue
        own = [str(row.values.get(column)) for row in rows]
        values = [value for value in dict.fromkeys(own) if value != NOT_RECORDED]
        if len(values) > 1:
            shown = ", ".join(values[:5]) + (", …" if len(values) > 5 else "")
            files = len({row.file for row in rows})
            plural = "s" if files > 2 else ""
            more = " has" if files == 1 else f" and {files - 1:,} more file{plural} have"
            raise DataError(
                f"{rows[0].file}{more} {len(values)} values in `{column}` "
                f"({_check.visible(shown)}), which must not be mixed. "
                f"{_remedy(rows, column, values[-1])}"
            )
        if values and (unknown := own.count(NOT_RECORDED)):
            notes.append(
                f"`{column}` is not recorded for {unknown:,} of {len(own):,} samples, which are "
                f"taken as those of {_check.visible(values[0])}"
            )
    return tuple(notes)


def _remedy(rows: Sequence[Row], column: str, value: str) -> str:
    """How to choose one value. `--where` is for all sources alike, which often have other values,
    so that files of one value each become a source of their own."""
    choice = f"--where {column}={shlex.quote(_check.visible(value))}"
    values: dict[str, set[str]] = {}
    for row in rows:
        values.setdefault(row.file, set()).add(str(row.values.get(column)))
    if len(values) == 1 or any(len(own) > 1 for own in values.values()):
        return (
            f"Choose one: {choice}. It is for all sources; if they differ, write a file for each."
        )
    file = next(name for name, own in values.items() if value in own)
    return (
        "Give the files of each as a source of their own, such as --policy NAME="
        f"{shlex.quote(_check.visible(file))}; or, if all sources have it, choose one: {choice}"
    )


def _prompt(rows: Sequence[Row], present: Collection[str], where: str) -> str:
    column = next((name for name in USUAL["prompt"] if name in present), None)
    if column is None:
        raise DataError(
            f"{where} has no column with prompts or their ids; its columns are "
            f"{_listed(present)}. Name it: --column prompt=NAME"
        )
    if column == "id":  # perhaps the id of a sample, where the prompt repeats
        ids = [row.values.get("id") for row in rows]
        text = next((name for name in TEXTS if name in present), None)
        if text and len(set(map(str, ids))) == len(ids):
            if len({str(row.values.get(text)) for row in rows}) < len(rows):
                return text
    return column


def _texts(present: Collection[str], prompt: str, named: str | None) -> tuple[str, ...]:
    """The columns of the prompt's text: by name; none if the text is the id."""
    if named is not None:
        return (named,)
    if prompt in CONTENTS:
        return ()
    usual = next((name for name in USUAL["prompt-text"] if name in present), None)
    return tuple(name for name in PARTS if name in present) if usual is None else (usual,)


def _score(
    rows: Sequence[Row], present: Collection[str], where: str, taken: Collection[str]
) -> str:
    """The column of the scores: one of the usual names, or the only column of numbers."""
    listed = rows[0].values.get("metrics")  # as lm-evaluation-harness names them
    metrics = [m for m in listed if m in present] if isinstance(listed, list) else []
    candidates = metrics or [name for name in USUAL["score"] if name in present]
    if not candidates:
        candidates = [
            name
            for name in present
            if name not in (*taken, *MIXED, *NO_SCORES) and _is_score(rows, name)
        ]
    if len(candidates) == 1:
        return candidates[0]
    what = "no column that is clearly a score" if not candidates else "more than one score"
    shown = _listed(candidates or present)
    raise DataError(
        f"{where} has {what}: {shown}. Name it: --column score="
        f"{_check.visible(candidates[0]) if candidates else 'NAME'}"
    )


def _is_score(rows: Sequence[Row], column: str) -> bool:
    """Whether a column holds numbers or lists of numbers, as far as it has values."""
    values = [row.values[column] for row in rows[:100] if row.values.get(column) is not None]
    flat = [x for v in values for x in (v if isinstance(v, list) else [v]) if x is not None]
    return bool(flat) and all(isinstance(x, Real) for x in flat)


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(map(str, list(names)[:12]))
    return _check.visible(shown) + (", …" if len(names) > 12 else "")
