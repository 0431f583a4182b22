"""What policies are compared by: for each n, one value per prompt.

A win rate compares the scores that a procedure selects from both sides. With scores of 0 and 1
there are also levels of each policy alone: pass@n, pass^n and the accuracy of a majority vote.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import (
    AbstractProcedure,
    RankProcedure,
    families,
    family,
    parse_procedure,
    procedure_forms,
)
from infalign.errors import ArgumentError
from infalign.evaluation.estimators import win_rate
from infalign.evaluation.selected import pass_all, pass_at
from infalign.evaluation.votes import majority_vote

from .samples import Samples

__all__ = ["Measure", "measures", "read_measure"]


@dataclass(frozen=True)
class Measure(Shown):
    """A family of procedures, one for each n, and what is measured under it."""

    name: str
    """As in commands and tables, such as "best-of-n"."""

    words: str
    """What it is, for the axis of a plot."""

    level: Callable[[Samples, int], np.ndarray] | None = None
    """Value of one policy on each prompt at n; None for win rates, which need two sides."""

    procedure: Callable[[int], AbstractProcedure] | None = None
    """The procedure at n that a win rate compares under; None for levels."""

    sizes: tuple[int, ...] | None = None
    """The only values of n, for one member of a family; None for the whole family."""

    answers: bool = False
    """Whether it reads answers."""

    stopped: bool = False
    """Whether attempts that stopped at the first success tell of it."""

    def wins(self, policy: Samples, reference: Samples, n: int) -> np.ndarray:
        """Win rate of a policy over a reference on each prompt at n."""
        assert self.procedure is not None
        return win_rate(policy.scores, reference.scores, self.procedure(n)).per_prompt

    def contrast(self, policy: Samples, reference: Samples, n: int) -> np.ndarray:
        """Win rate over the reference, or the level minus that of the reference."""
        if self.level is None:
            return self.wins(policy, reference, n)
        return self.level(policy, n) - self.level(reference, n)

    def _facts(self):
        return {"name": self.name, "words": self.words, "sizes": self.sizes}

    @property
    def null(self) -> float:
        """The contrast of two equal policies."""
        return 0.5 if self.level is None else 0.0

    @property
    def bounds(self) -> tuple[float, float]:
        """Least and greatest contrast of a prompt."""
        return (0.0, 1.0) if self.level is None else (-1.0, 1.0)

    def fits(self, policies: Sequence[Samples]) -> bool:
        """Whether the samples have what the measure reads."""
        return all(
            (self.level is None or p.binary)
            and (not self.answers or p.answers is not None)
            and (self.stopped or not p.stopping)
            for p in policies
        )

    def require(self, name: str, samples: Samples) -> None:
        """Raises ArgumentError if the samples of the argument `name` lack what it reads."""
        if self.level is not None and not samples.binary:
            other = next(x for x in samples.scores.flat if not np.isnan(x) and x not in (0, 1))
            raise ArgumentError(
                name,
                f"must have scores of 0 and 1 for {self.name}; {_check.short(samples.name)} has "
                f"{other:g}.",
            )
        if samples.stopping and not self.stopped:
            raise ArgumentError(
                name,
                f"must have samples that do not depend on each other for {self.name}; those of "
                f"{_check.short(samples.name)} do: {samples.stopping}. Only pass@n can be known.",
            )
        if self.answers and samples.answers is None:
            raise ArgumentError(
                name, f"must have answers for {self.name}; {_check.short(samples.name)} has none."
            )


LEVELS = {
    measure.name: measure
    for measure in (
        Measure(
            "pass@n",
            "at least one of n is correct",
            level=lambda policy, n: _pass_at(policy, n),
            stopped=True,
        ),
        Measure(
            "pass^n",
            "all n are correct",
            level=lambda policy, n: pass_all(policy.scores, n).per_prompt,
        ),
        Measure(
            "majority-of-n",
            "the most frequent answer of n is correct",
            level=lambda policy, n: majority_vote(policy.answers, policy.scores, n).per_prompt,
            answers=True,
        ),
    )
}


def _pass_at(policy: Samples, n: int) -> np.ndarray:
    """pass@n of each prompt; of stopped attempts, whether one of the first n succeeded."""
    if policy.stopping:
        return (policy.scores[:, :n] == 1).any(1).astype(float)
    return pass_at(policy.scores, n).per_prompt


def measures() -> dict[str, Measure]:
    """Name → measure: win rates under each family of procedures, then levels.

    >>> list(measures())
    ['best-of-n', 'worst-of-n', 'pass@n', 'pass^n', 'majority-of-n']
    """
    return {name: _family(name) for name in families()} | LEVELS


def _family(name: str, sizes: tuple[int, ...] | None = None) -> Measure:
    words = f"win rate under {name}"
    return Measure(name, words, procedure=lambda n: family(name, n), sizes=sizes)


def read_measure(text: str) -> Measure:
    """A measure from its text: a family such as "best-of-n" or "pass@n", one member of it such as
    "best-of-n:8" or "pass@8", or another procedure by rank such as "order-statistic:8:2".

    Raises ArgumentError for any other text.

    >>> read_measure("best-of-n:8").sizes, read_measure("pass^4").name
    ((8,), 'pass^n')
    """
    text = _check.text("measure", text)
    known = measures()
    if text in known:
        return known[text]
    for name, measure in LEVELS.items():
        stem = name.removesuffix("n")
        if text.startswith(stem) and text[len(stem) :].isascii() and text[len(stem) :].isdigit():
            n = _check.count("measure", int(text[len(stem) :]))
            return replace(measure, sizes=(n,))
    try:
        procedure = parse_procedure(text)
    except ValueError:
        forms = ", ".join([*known, "pass@8 and the like", *procedure_forms()])
        raise ArgumentError(
            "measure", f"must be one of {forms}; got {_check.short(text)}."
        ) from None
    if not isinstance(procedure, RankProcedure):
        raise ArgumentError(
            "measure",
            f"must select by rank; {_check.short(text)} reads calibrated rewards, for which "
            "`win_rate` takes further reference samples.",
        )
    name = text.partition(":")[0]
    if name in families():
        return _family(name, (procedure.draws,))
    return Measure(
        text, f"win rate under {text}", procedure=lambda n: procedure, sizes=(procedure.draws,)
    )
