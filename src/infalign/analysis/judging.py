"""Policies against a reference by the verdicts of judges, as values."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Framed, Shown
from infalign.errors import ArgumentError, DataError
from infalign.evaluation.panel import Panel, panel
from infalign.evaluation.ranking import Ranking, rank

from .verdicts import Verdicts

__all__ = ["Judgment", "judge"]


@dataclass(frozen=True, eq=False)
class Judgment(Shown, Framed):
    """What judges say of policies against a reference."""

    reference: str
    panels: Mapping[str, Panel] = field(repr=False)
    """Policy → its win rate and the reliability of its judges."""

    ranking: Ranking | None = field(repr=False)
    """All policies and the reference, which has ½; None for one policy, or for policies that were
    not judged on the same prompts."""

    unused: int
    """Verdicts between two other policies, which say nothing of the reference."""

    notes: tuple[str, ...] = ()

    def _facts(self):
        rates = {name: str(own.win_rate) for name, own in self.panels.items()}
        return {"reference": self.reference, **rates, "unused": self.unused}

    def _columns(self):
        rows = [(name, p, r) for name, p in self.panels.items() for r in p.judges]
        return {
            "policy": [name for name, _, _ in rows],
            "judge": [r.judge for _, _, r in rows],
            **{
                f"{key}{suffix}": [
                    None if (e := getattr(r, key)) is None else getattr(e, end) for _, _, r in rows
                ]
                for key in ("win_rate", "position_bias", "consistency", "self_preference")
                for suffix, end in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
            "verdicts": [r.verdicts for _, _, r in rows],
            "invalid": [r.invalid for _, _, r in rows],
            "one_order": [len(r.one_order) for _, _, r in rows],
        }


def judge(
    verdicts: Verdicts,
    *,
    reference: str | None = None,
    policies: Sequence[str] | None = None,
    own: Mapping[str, Collection[str]] | None = None,
    drop: bool = False,
) -> Judgment:
    """Win rate of each policy over the reference, by all judges together and by each.

    - `verdicts`: what `read_verdicts` returns.
    - `reference`: Default: the one that the source names, or the only policy of every verdict.
    - `policies`: Default: all others.
    - `own`: judge → the policies of its own family. Default: those with its name.
    - `drop`: leave out invalid answers, and pairs in one order of a judge that uses both; count
      them instead of an error.

    Raises ArgumentError for names that do not occur, and DataError for invalid answers and for
    pairs without the other order.

    >>> import math
    >>> some = Verdicts(("p", "q"), ("", ""), ("a", "b"), ("b", "a"), ("j", "j"),
    ...     np.array([1.0, 0.5]), np.array([True, True]), np.array([math.nan] * 2))
    >>> judge(some, reference="b").panels["a"].win_rate.value
    0.75
    """
    _check.instance("verdicts", verdicts, Verdicts, "`Verdicts`, as `read_verdicts` returns")
    base = _reference(verdicts, reference)
    named = [p for p in verdicts.policies if p != base]
    for name in policies or ():
        _check.one_of("policies", name, named)
    families = _families(verdicts, own or {})
    invalid = np.isnan(verdicts.outcomes)
    if invalid.any() and not drop:
        worst = int(np.argmax(invalid))
        raise DataError(
            f"{invalid.sum():,} of {invalid.size:,} answers of the judges are invalid, first that "
            f"of {_check.short(verdicts.judges[worst])} on prompt "
            f"{_check.short(verdicts.prompts[worst])}. Judge them again, or leave them out and "
            "count them: --drop missing (`drop=True`)."
        )
    first, second = np.array(verdicts.first, object), np.array(verdicts.second, object)
    with_base = (first == base) | (second == base)
    panels: dict[str, Panel] = {}
    compared = [name for name in named if (with_base & ((first == name) | (second == name))).any()]
    if not compared:
        raise DataError(f"No verdict compares {_check.short(base)} with another policy.")
    for name in policies or compared:
        at = np.flatnonzero(with_base & ((first == name) | (second == name)))
        if not at.size:
            raise DataError(
                f"No verdict compares {_check.short(name)} with the reference "
                f"{_check.short(base)}. Name another reference, or the policies: --policy NAME."
            )
        panels[name] = _panel(verdicts, at, name, base, families)
        if not drop:
            _require_both_orders(panels[name], name, base)
    notes = (*verdicts.notes, *_notes(verdicts, with_base), *_orders(verdicts, base, panels))
    return Judgment(base, panels, _ranking(base, panels), int((~with_base).sum()), notes)


def _ranking(base: str, panels: Mapping[str, Panel]) -> Ranking | None:
    """The policies and the reference, if all have been judged on the same prompts."""
    prompts = sorted(next(iter(panels.values())).prompts)
    if len(panels) < 2 or any(sorted(p.prompts) != prompts for p in panels.values()):
        return None
    values = {
        name: p.win_rate.per_prompt[np.argsort(np.array(p.prompts, object), kind="stable")]
        for name, p in panels.items()
    }
    return rank(values | {base: np.full(len(prompts), 0.5)}, bounds=(0, 1))


def _notes(verdicts: Verdicts, used: np.ndarray) -> Iterator[str]:
    """What a reader should know of votes and lengths."""
    columns = (verdicts.prompts, verdicts.pairs, verdicts.first, verdicts.second, verdicts.judges)
    votes = list(zip(*columns, strict=True))
    again = len(votes) - len(set(votes))
    if again:
        yield f"{again:,} repeated votes of a judge on one pair in one order, averaged"
    known = np.isfinite(verdicts.differences[used])
    if known.any() and not known.all():
        yield (
            f"lengths are known for {known.sum():,} of {known.size:,} verdicts; policies without "
            "all of them have no win rate at equal length"
        )


def _orders(verdicts: Verdicts, base: str, panels: Mapping[str, Panel]) -> Iterator[str]:
    """What a reader should know of policies that no judge has read in both orders."""
    for name, own in panels.items():
        shown = [
            one
            for one, other, ordered in zip(
                verdicts.first, verdicts.second, verdicts.ordered, strict=True
            )
            if ordered and {one, other} == {name, base}
        ]
        if shown and all(r.position_bias is None for r in own.judges):
            yield (
                f"no pair of {name} and {base} was judged in both orders, so the win rate may have "
                f"a position bias; {name} was shown first in {shown.count(name):,} of "
                f"{len(shown):,} verdicts"
            )


def _require_both_orders(own: Panel, name: str, base: str) -> None:
    """DataError if a judge that has both orders on some pairs has one order on others."""
    worst = max(own.judges, key=lambda report: len(report.one_order))
    if worst.one_order:
        raise DataError(
            f"The judge {_check.short(worst.judge)} has answers in one order only on "
            f"{len(worst.one_order):,} of {own.pairs + own.excluded:,} pairs of "
            f"{_check.short(name)} and {_check.short(base)}, first on prompt "
            f"{_check.short(worst.one_order[0])}, and in both orders on others. One order alone "
            "would count its position bias as a verdict: judge these pairs in the other order "
            "too, or leave them out and count them: --drop missing (`drop=True`)."
        )


def _panel(
    verdicts: Verdicts, at: np.ndarray, name: str, base: str, families: Mapping[str, set[str]]
) -> Panel:
    ours = np.array([verdicts.first[i] == name for i in at])
    ordered = verdicts.ordered[at]
    d = np.where(ours, 1, -1) * verdicts.differences[at]
    return panel(
        np.where(ours, verdicts.outcomes[at], 1 - verdicts.outcomes[at]),
        prompts=[verdicts.prompts[i] for i in at],
        pairs=[verdicts.pairs[i] for i in at],
        judges=[verdicts.judges[i] for i in at],
        orders=np.where(ordered, np.where(ours, 0, 1), 2).tolist(),
        differences=d if np.isfinite(d).all() else None,
        own=[j for j, own in families.items() if name in own],
        own_reference=[j for j, own in families.items() if base in own],
    )


def _reference(verdicts: Verdicts, reference: str | None) -> str:
    everyone = verdicts.policies
    if reference is not None:
        return _check.one_of("reference", reference, everyone)
    if verdicts.reference is not None:
        return verdicts.reference
    sides = list(zip(verdicts.first, verdicts.second, strict=True))
    always = [p for p in everyone if all(p in both for both in sides)]
    if len(always) == 1:
        return always[0]
    shown = ", ".join(map(_check.short, everyone[:8]))
    raise ArgumentError(
        "reference", f"must be given, since the verdicts do not say it: one of {shown}."
    )


def _families(verdicts: Verdicts, own: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
    """Judge → the policies of its family: those named, and those with its own name."""
    judges, policies = dict.fromkeys(verdicts.judges), verdicts.policies
    families = {j: {p for p in policies if p.lower() == j.lower()} for j in judges}
    for name, members in own.items():
        _check.one_of("own", name, tuple(judges))
        families[name] |= {_check.one_of("own", member, policies) for member in members}
    return families
