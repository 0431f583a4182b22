"""Which of several responses a procedure keeps.

The laws of `infalign.procedures` and `infalign.softened`, and majority vote, on values in hand. The
contract tests hold every procedure's choice to its law.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from infalign import _check
from infalign.core import PROCEDURES, AbstractProcedure, Rewind, procedure_forms
from infalign.errors import DataError

from .answers import Answers, numeric_answer

FORMS = procedure_forms("majority-vote:N")
"""What `parse_decoder` reads."""


@dataclass(frozen=True)
class MajorityVote:
    """Draw `n` responses, find the most frequent answer, keep a random response that gives it.

    Ties between answers break uniformly at random. Responses without an answer do not vote; if
    none has one, any of the responses is kept, which is plain sampling. Its exact law on a finite
    outcome set is `infalign.finite.MajorityVote`. Source: Wang et al., Self-consistency improves
    chain of thought reasoning, arXiv:2203.11171.
    """

    n: int
    """Responses drawn; 1 and 2 are plain sampling where all have answers."""

    answer: Answers = numeric_answer
    """Response text to its answer, anything hashable; None or nan where it gives none."""

    def __post_init__(self):
        _check.count("n", self.n)

    @property
    def draws(self) -> int:
        return self.n

    @property
    def spec(self) -> str:
        return f"majority-vote:{self.n}"


Decoder = AbstractProcedure | MajorityVote
"""Whatever keeps one of several responses."""

Reads = Literal["nothing", "rewards", "quantiles", "answers"]


def reads(procedure: Decoder) -> Reads:
    """What of each response a procedure looks at.

    Raises ValueError for a procedure of another kind: one that keeps by rank needs no more than to
    be a `RankProcedure`.
    """
    if isinstance(procedure, MajorityVote):
        return "answers"
    if isinstance(procedure, AbstractProcedure) and procedure.reads is not None:
        return procedure.reads
    raise ValueError(
        f"`procedure` must keep by rank or be SoftBestOfN, Rewind or MajorityVote to be run; got "
        f"{procedure!r}. Subclass `infalign.RankProcedure`."
    )


def settle(procedure: Decoder, *, rng: np.random.Generator) -> Decoder:
    """The procedure with what is random about its number of draws decided.

    A mixture becomes one of its parts, best-of-Poisson the best of a drawn number.
    """
    return procedure if isinstance(procedure, MajorityVote) else procedure.settled(rng)


def select(procedure: Decoder, values: Sequence, *, rng: np.random.Generator) -> int:
    """Place among `values` of the response that `procedure` keeps; ties break uniformly at random.

    - `values`: what the procedure `reads` of each response, one prompt's, as drawn: rewards, or
      the calibrated rewards for SoftBestOfN and Rewind, or answers for MajorityVote. Where there
      are more than it draws, a random subset of as many.

    Raises ValueError for fewer values than the procedure draws (for Rewind: unless one of them
    passes), and for values out of range.

    >>> from infalign import BestOfN
    >>> select(BestOfN(3), [1.0, 5.0, 2.0], rng=np.random.default_rng(0))
    1
    """
    reading = reads(procedure)
    if reading == "quantiles":
        values = _check.unit_interval("values", values)
    elif reading == "rewards":
        values = _check.finite_matrix("values", [values])[0]
    procedure = settle(procedure, rng=rng)
    if isinstance(procedure, Rewind):
        return _first_to_pass(procedure, values)
    if len(values) < procedure.draws:
        raise _too_few(procedure, len(values))
    order = rng.permutation(len(values))[: procedure.draws]
    return int(order[_choose(procedure, [values[i] for i in order], rng)])


def parse_decoder(text: str, answer: Answers = numeric_answer) -> Decoder:
    """What `infalign.parse_procedure` reads, and `majority-vote:N` over answers by `answer`.

    Raises ValueError for anything else.

    >>> parse_decoder("majority-vote:8").spec, parse_decoder("best-of-n:8")
    ('majority-vote:8', BestOfN(n=8))
    """
    name, _, n = text.partition(":")
    if name == "majority-vote" and n.isdecimal():
        return MajorityVote(int(n), answer)
    return PROCEDURES.parse(text, "majority-vote:N")


def _first_to_pass(procedure: Rewind, quantiles) -> int:
    passed = any(procedure.passes(u) for u in quantiles[: procedure.max_tries])
    if not passed and len(quantiles) < procedure.max_tries:
        raise _too_few(procedure, len(quantiles))
    return procedure.choose(quantiles, None)


def _choose(procedure: Decoder, values, rng) -> int:
    """Of exactly as many values as it draws, in random order."""
    if isinstance(procedure, MajorityVote):
        return _vote(values, rng)
    return procedure.choose(values, rng)


def _vote(answers, rng) -> int:
    try:
        votes = Counter(a for a in answers if a is not None and a == a)  # nan is no answer either
    except TypeError as error:
        raise DataError(
            f"An answer must be hashable, such as a number or a text; got one that is not "
            f"({error}). Return another type from the function that finds it."
        ) from None
    if not votes:
        return int(rng.integers(len(answers)))
    most = max(votes.values())
    winners = [a for a, count in votes.items() if count == most]
    winner = winners[rng.integers(len(winners))]
    places = [i for i, a in enumerate(answers) if a == winner]
    return places[rng.integers(len(places))]


def _too_few(procedure, given: int) -> ValueError:
    return ValueError(
        f"`{procedure}` needs at least {procedure.draws} values; got {given}. Draw more "
        "responses, or use a smaller n."
    )
