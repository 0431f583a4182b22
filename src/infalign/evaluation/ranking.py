"""Several policies under one procedure: all pairs, the ranks that the data allow, and who is tied.

All pairs are compared on the same prompts, and their intervals hold together. Policy a is ahead of
b where the interval of a − b lies above 0. A policy's rank is then at least one more than the
number of policies ahead of it, and at most the number of policies minus those it is ahead of; these
bounds hold for all policies together, at the level of the intervals.

Source of the ranks: Mogstad, Romano, Shaikh and Wilhelm, Inference for ranks, Review of Economic
Studies 91 (2024).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from infalign import _check
from infalign._look import Pictured, Rows, Shown, label
from infalign.errors import ArgumentError

from .simultaneous import holm, p_value, simultaneous
from .uncertainty import Estimate, over_prompts

__all__ = ["Pair", "Ranked", "Ranking", "rank", "ranked"]


@dataclass(frozen=True)
class Pair(Shown):
    """The difference of two policies, one of all pairs."""

    ahead: str
    """The policy with the higher estimate."""

    behind: str
    difference: Estimate
    """`ahead` − `behind`, paired by prompt; its interval holds together with all others."""

    p: float
    """p-value of this difference alone."""

    p_max_t: float
    """p-value among all pairs, from the largest of their errors. Below 1 − level it is shown."""

    p_holm: float
    """p-value among all pairs by Holm's method, which knows nothing of how their errors depend."""

    shown: bool
    """Whether the interval excludes 0: the data show which of the two is better."""


@dataclass(frozen=True)
class Ranked(Shown):
    """One policy among all."""

    policy: str
    value: Estimate
    """Its own mean, with the interval of one estimate."""

    best: int
    """Best rank that the data allow; 1 is the highest."""

    worst: int
    """Worst rank that the data allow."""

    tied: tuple[str, ...]
    """Letters of the tied sets that it belongs to: policies that share a letter cannot be told
    apart."""

    def figures(self) -> dict[str, int | str]:
        """The bounds of its rank and the letters of its tied sets, for JSON."""
        return {"best": self.best, "worst": self.worst, "tied": " ".join(self.tied)}


@dataclass(frozen=True, eq=False)
class Ranking(Shown, Pictured):
    """Policies from the highest estimate to the lowest, and what of this order is shown."""

    policies: tuple[Ranked, ...]
    pairs: Rows[Pair] = field(repr=False)
    level: float

    @property
    def tied(self) -> tuple[tuple[str, ...], ...]:
        """The largest sets of policies of which no two can be told apart, the highest first."""
        letters = dict.fromkeys(letter for row in self.policies for letter in row.tied)
        return tuple(
            tuple(row.policy for row in self.policies if letter in row.tied) for letter in letters
        )

    def _columns(self):
        rows = self.policies
        return {
            "policy": [row.policy for row in rows],
            "value": [row.value.value for row in rows],
            "low": [row.value.low for row in rows],
            "high": [row.value.high for row in rows],
            "best_rank": [row.best for row in rows],
            "worst_rank": [row.worst for row in rows],
            "tied": [" ".join(row.tied) for row in rows],
        }

    def _draw(self, axes):
        places = np.arange(len(self.policies))[::-1]
        values = np.array([(r.value.value, r.value.low, r.value.high) for r in self.policies])
        axes.errorbar(
            values[:, 0], places, xerr=np.abs(values[:, 1:] - values[:, :1]).T, fmt="o", capsize=3
        )
        names = [_check.visible(f"{r.policy[:40]}  {' '.join(r.tied)}") for r in self.policies]
        axes.set_yticks(places, names, parse_math=False)
        label(axes, x="mean over prompts", y="", title="policies that share a letter are tied")


def rank(
    per_prompt: Mapping[str, np.ndarray],
    *,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> Ranking:
    """All pairs of policies by their values on the same prompts; the highest is the best.

    - `per_prompt`: policy → one value per prompt, in the same order for all of them: the win rates
      over a common reference, or the levels, at one n.
    - `bounds`: least and greatest possible value of a prompt, if any.
    - `level`, `seed`: as for `simultaneous`.

    Raises ArgumentError for fewer than two policies, and for values of different lengths.

    >>> rng = np.random.default_rng(0)
    >>> prompts = rng.normal(size=(200, 1))
    >>> a, b, c = (prompts + [[0.5, 0.45, 0.0]] + 0.3 * rng.normal(size=(200, 3))).T
    >>> rank({"a": a, "b": b, "c": c}).tied
    (('a', 'b'), ('c',))
    """
    columns = {
        _check.text("per_prompt", name): _check.numbers("per_prompt", values)
        for name, values in _check.mapping("per_prompt", per_prompt).items()
    }
    lengths = {name: values.shape for name, values in columns.items()}
    if len(columns) < 2 or len(set(lengths.values())) > 1 or len(next(iter(lengths.values()))) != 1:
        raise ArgumentError(
            "per_prompt",
            "must hold one list of values for each of at least two policies, all of one length; "
            f"got {_check.short(lengths)}.",
        )
    own = {
        name: over_prompts(values, level=level, bounds=bounds) for name, values in columns.items()
    }
    order = sorted(own, key=lambda name: -own[name].value)
    names = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :]]
    gaps = np.stack([columns[a] - columns[b] for a, b in names], axis=1)
    reach = None if bounds is None else (bounds[0] - bounds[1], bounds[1] - bounds[0])
    together = simultaneous(gaps, level=level, bounds=reach, seed=seed)
    p = [p_value(gap, bounds=reach) for gap in gaps.T]
    adjusted = [together.adjusted(own_p) if own_p == own_p else own_p for own_p in p]
    by_holm = holm(p) if not np.isnan(p).any() else p
    pairs = Rows(
        Pair(a, b, difference, alone, max_t, step, shown=bool(difference.low > 0))
        for (a, b), difference, alone, max_t, step in zip(
            names, together.joint, p, adjusted, by_holm, strict=True
        )
    )
    above = {(pair.ahead, pair.behind) for pair in pairs if pair.shown}
    return Ranking(ranked(own, above), pairs, level)


def ranked(
    estimates: Mapping[str, Estimate], above: Collection[tuple[str, str]]
) -> tuple[Ranked, ...]:
    """Policies from the highest estimate to the lowest, with the ranks that the data allow.

    - `above`: pairs (a, b) of which the data show that a is ahead of b. If all of them hold
      together at some level, so do the ranks.

    >>> from infalign import over_prompts
    >>> own = {name: over_prompts(np.full(9, x)) for name, x in (("a", 0.9), ("b", 0.8), ("c", 0))}
    >>> [(row.policy, row.best, row.worst, row.tied) for row in ranked(own, [("a", "c")])]
    [('a', 1, 2, ('a',)), ('b', 1, 3, ('a', 'b')), ('c', 2, 3, ('b',))]
    """
    order = sorted(estimates, key=lambda name: -estimates[name].value)
    letters = _letters(order, above)
    return tuple(
        Ranked(
            name,
            estimates[name],
            best=1 + sum((other, name) in above for other in order),
            worst=len(order) - sum((name, other) in above for other in order),
            tied=letters[name],
        )
        for name in order
    )


def _letters(order: list[str], above: Collection[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Letters such that two policies share one exactly if neither is shown to be ahead.

    Start with one set of all policies. For each pair with a shown difference, split every set with
    both of them into one without the first and one without the second, and drop sets that lie
    within others. Source: Piepho, An algorithm for a letter-based representation of all-pairwise
    comparisons, Journal of Computational and Graphical Statistics 13 (2004).
    """
    sets = [frozenset(order)]
    for a, b in sorted(above):
        split = [own - {gone} for own in sets if {a, b} <= own for gone in (a, b)]
        sets = [own for own in sets if not {a, b} <= own] + split
        sets = [own for own in set(sets) if not any(own < other for other in sets)]
    sets.sort(key=lambda own: [name not in own for name in order])
    return {
        name: tuple(_letter(place) for place, own in enumerate(sets) if name in own)
        for name in order
    }


def _letter(place: int) -> str:
    """a … z, then a1 … z1, and so on."""
    turn, letter = divmod(place, 26)
    return "abcdefghijklmnopqrstuvwxyz"[letter] + (str(turn) if turn else "")
