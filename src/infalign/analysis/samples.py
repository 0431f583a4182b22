"""Samples of one policy that exist already, and several policies matched by prompt."""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import finite_rewards
from infalign.errors import ArgumentError
from infalign.evaluation.growth import Stopping, stopping

__all__ = ["CORRECT", "Matched", "Samples", "match"]

CORRECT = (
    *("correct", "is_correct", "passed", "success", "acc", "accuracy", "exact_match", "pass"),
)
"""Usual names of one score: 1 for a correct response, 0 for a wrong one."""


@dataclass(frozen=True, eq=False)
class Samples(Shown):
    """The samples of one policy: a score for each, and what else the source says of them.

    Rows of all tables are the prompts, columns the samples. Prompts may have different numbers of
    samples; nan, or None for an answer, fills the rest.
    """

    name: str
    """Name of the policy."""

    prompts: tuple[str, ...]
    """Ids of the prompts, without duplicates."""

    scores: np.ndarray = field(repr=False)
    """Rewards, or 0 and 1 for wrong and correct, shape (prompts, samples)."""

    score: str = "reward"
    """What the scores are. `match` refuses policies whose scores have other names and another kind:
    only 0 and 1, or other numbers."""

    answers: np.ndarray | None = field(default=None, repr=False)
    """Final answers for majority votes, any hashable values, shape (prompts, samples)."""

    lengths: np.ndarray | None = field(default=None, repr=False)
    """Lengths of the responses in one unit, shape (prompts, samples)."""

    length_unit: str | None = None
    """The unit of the lengths, such as "tokens" or "characters", or the name of their column.
    Lengths in different units are not compared."""

    notes: tuple[str, ...] = ()
    """What a reader should know of the source, such as columns and what was left out."""

    ordered: bool = True
    """Whether samples are in the order in which they were drawn, as counts are not."""

    stopping: Stopping | None = None
    """Set if the samples of a prompt ended at its first success. Default: as the scores show."""

    def __post_init__(self):
        prompts = tuple(_check.texts("prompts", self.prompts))
        scores = finite_rewards("scores", self.scores, missing=True)
        _same_rows("scores", scores, prompts)
        _once(prompts)
        _check.enough_samples("scores", (~np.isnan(scores)).sum(1), 1, "a prompt")
        if self.length_unit is not None:
            _check.text("length_unit", self.length_unit)
        object.__setattr__(self, "prompts", prompts)
        object.__setattr__(self, "scores", scores)
        for name in ("answers", "lengths"):
            table = getattr(self, name)
            if table is None:
                continue
            table = np.asarray(table, object) if name == "answers" else _check.numbers(name, table)
            if table.shape != scores.shape:
                raise ArgumentError(
                    name,
                    f"must have one entry for each score; got shape {table.shape} for scores of "
                    f"shape {scores.shape}.",
                )
            object.__setattr__(self, name, table)
        if self.stopping is None and self.binary:
            object.__setattr__(self, "stopping", stopping(scores, ordered=self.ordered))

    @property
    def binary(self) -> bool:
        """Whether every score is 0 or 1: wrong or correct."""
        known = self.scores[~np.isnan(self.scores)]
        return bool(((known == 0) | (known == 1)).all())

    @property
    def samples(self) -> np.ndarray:
        """Number of samples of each prompt, shape (prompts,)."""
        return (~np.isnan(self.scores)).sum(1)

    @property
    def reach(self) -> int:
        """The largest n that the samples of every prompt tell of, without a forecast."""
        return self.stopping.reach if self.stopping else int(self.samples.min())

    def rows(self, places: Sequence[int]) -> "Samples":
        """The samples of some prompts, in the order of `places`."""
        places = list(places)
        return Samples(
            self.name,
            tuple(self.prompts[place] for place in places),
            self.scores[places],
            score=self.score,
            answers=None if self.answers is None else self.answers[places],
            lengths=None if self.lengths is None else self.lengths[places],
            length_unit=self.length_unit,
            notes=self.notes,
            ordered=self.ordered,
            stopping=self.stopping,
        )

    def _facts(self):
        least, most = self.samples.min(), self.samples.max()
        return {
            "name": self.name,
            "prompts": len(self.prompts),
            "samples": int(most) if least == most else f"{least} to {most}",
            "score": self.score,
            "mean": float(np.nanmean(self.scores)),
        }


@dataclass(frozen=True, eq=False)
class Matched(Shown):
    """Policies on the same prompts, in the same order."""

    policies: tuple[Samples, ...]

    without: Mapping[str, tuple[str, ...]]
    """Policy → ids of its prompts that another policy lacks, which were left out."""

    @property
    def prompts(self) -> tuple[str, ...]:
        """Ids of the prompts that every policy has."""
        return self.policies[0].prompts


def match(policies: Sequence[Samples], *, drop: bool = False) -> Matched:
    """Several policies on the prompts that all of them have, in the order of the first one.

    - `drop`: leave out the prompts that some policy lacks, and say which. Without it, they are an
      error: a policy that has no answer to the hardest prompts must not win by it.

    Scores with one name are taken to be the same, and so are usual names of scores of 0 and 1, such
    as `correct` and `passed`. A policy whose scores have another name than those of the first one
    gets a note.

    Raises ArgumentError if policies share a name or have no prompt in common, or if one has only
    scores of 0 and 1 and another one, whose scores have another name, does not.
    """
    policies = _check.entries("policies", policies)
    for policy in policies:
        _check.instance("policies", policy, Samples, "a list of `Samples`")
    names = [policy.name for policy in policies]
    again = next((name for name in names if names.count(name) > 1), None)
    if not policies or again is not None:
        problem = "must hold at least one policy; got none."
        if again is not None:
            problem = f"must have different names; {_check.short(again)} is given more than once."
        raise ArgumentError("policies", problem)
    _require_one_kind(policies)
    shared = set(policies[0].prompts).intersection(*(p.prompts for p in policies[1:]))
    without = {
        p.name: tuple(prompt for prompt in p.prompts if prompt not in shared) for p in policies
    }
    without = {name: missing for name, missing in without.items() if missing}
    if not shared:
        examples = ", ".join(f"{_check.short(p.prompts[0])} ({p.name})" for p in policies)
        raise ArgumentError(
            "policies",
            f"must have prompts in common; no id of a prompt is in all of them: {examples}. "
            f"{_likeness(policies)}Name the column of the prompts' ids, or write the same ids into "
            "all files.",
        )
    if without and not drop:
        name, missing = next(iter(without.items()))
        own = len(missing) + len(shared)
        raise ArgumentError(
            "policies",
            f"must have the same prompts; {len(missing):,} of the {own:,} prompts of "
            f"{_check.short(name)} are missing elsewhere, such as "
            f"{_check.short(missing[0])}; {len(shared):,} prompts are in all of them. To compare "
            "on those only, drop the others (`drop=True`, or --drop unmatched).",
        )
    order = [prompt for prompt in policies[0].prompts if prompt in shared]
    aligned = []
    for policy in policies:
        place = {prompt: row for row, prompt in enumerate(policy.prompts)}
        own = policy.rows([place[prompt] for prompt in order])
        aligned.append(replace(own, notes=(*own.notes, *_other_name(own, policies[0]))))
    return Matched(tuple(aligned), without)


def _require_one_kind(policies: Sequence[Samples]) -> None:
    """Raise ArgumentError for scores of another name and another kind, such as rewards around 5
    that would lead against 0 and 1 everywhere. A name alone is no evidence: one score has many."""
    first = policies[0]
    other = next(
        (own for own in policies[1:] if not _one_name(first, own) and first.binary != own.binary),
        None,
    )
    if other is not None:
        raise ArgumentError(
            "policies",
            f"must have the same score; {_score_of(first)}, and {_score_of(other)}. Name a score "
            "that all of them have (--column score=NAME) or, if it is the same one, give it one "
            "name in all files.",
        )


def _other_name(policy: Samples, first: Samples) -> tuple[str, ...]:
    """A note of a score that has another name than that of the first policy."""
    if _one_name(policy, first):
        return ()
    return (
        f"scores in `{policy.score}` are compared with those in `{first.score}` of {first.name}, "
        "as if they were the same",
    )


def _one_name(one: Samples, other: Samples) -> bool:
    """Whether the names of two scores say that they are the same."""
    names = {one.score, other.score}
    if len({name.removesuffix("s") for name in names}) == 1:
        return True
    return names <= {*CORRECT} and one.binary and other.binary


def _score_of(policy: Samples) -> str:
    low, high = np.nanmin(policy.scores), np.nanmax(policy.scores)
    values = "0 and 1" if policy.binary else f"from {low:.4g} to {high:.4g}"
    return f"{_check.short(policy.name)} has `{_check.visible(policy.score)}` ({values})"


def _likeness(policies: Sequence[Samples]) -> str:
    """Says if ids would be the same but for spaces at their ends or the form of their Unicode."""
    alike = [{unicodedata.normalize("NFC", own).strip() for own in p.prompts} for p in policies]
    if not set.intersection(*alike):
        return ""
    return (
        f"{len(set.intersection(*alike)):,} of them differ only in spaces at their ends or in how "
        "accents are encoded (Unicode normalization). "
    )


def _same_rows(name: str, table: np.ndarray, prompts: Sequence[str]) -> None:
    if len(table) != len(prompts):
        raise ArgumentError(
            name, f"must have one row per prompt; got {len(table)} rows for {len(prompts)} prompts."
        )


def _once(prompts: Sequence[str]) -> None:
    seen: set[str] = set()
    for place, prompt in enumerate(prompts):
        if prompt in seen:
            raise ArgumentError(
                "prompts",
                f"must be different ids; {_check.short(prompt)} occurs again at index {place}.",
            )
        seen.add(prompt)
