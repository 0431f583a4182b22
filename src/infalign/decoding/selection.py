"""Selection of one of several responses, from their rewards or answers.

The core's procedures choose according to their law; majority vote, which reads answers instead of
rewards, is defined here. The contract tests compare every procedure's choices with its law.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from infalign import _check
from infalign.core import PROCEDURES, AbstractProcedure, Rewind, procedure_forms
from infalign.errors import DataError
from infalign.models.interfaces import FAKE

from .answers import Answers, numeric_answer

__all__ = ["MajorityVote", "parse_decoder", "reads", "select", "try_vote"]

FORMS = procedure_forms("majority-vote:N")
"""The text forms that `parse_decoder` reads."""


@dataclass(frozen=True)
class MajorityVote:
    """Draw `n` responses and select a random one of those with the most frequent answer.

    Ties between answers break uniformly at random. Responses without an answer do not vote; if no
    response has one, any of them is selected, as in plain sampling. The exact law on a finite
    outcome set is `infalign.finite.MajorityVote`. Source: Wang et al., Self-consistency improves
    chain of thought reasoning, arXiv:2203.11171.
    """

    reads: ClassVar[Literal["answers"]] = "answers"

    n: int
    """Number of responses drawn; 1 and 2 are plain sampling if all responses have answers."""

    answer: Answers = numeric_answer
    """Response text → answer, any hashable value; None or nan if there is no answer."""

    def __post_init__(self):
        _check.count("n", self.n)

    @property
    def draws(self) -> int:
        return self.n

    @property
    def spec(self) -> str:
        return f"majority-vote:{self.n}"

    def settled(self, rng: np.random.Generator) -> "MajorityVote":
        """The vote itself, since its number of draws is not random."""
        return self

    def choose(self, values: Sequence[Hashable], rng: np.random.Generator) -> int:
        """Index of a random one of the responses that give the most frequent answer."""
        try:
            votes = Counter(a for a in values if a is not None and a == a)  # nan means no answer
        except TypeError as error:
            raise DataError(
                f"An answer must be hashable, such as a number or a string; got one that is not "
                f"({error}). Return another type from the function that extracts it."
            ) from None
        if not votes:
            return int(rng.integers(len(values)))
        most = max(votes.values())
        winners = [a for a, count in votes.items() if count == most]
        winner = winners[rng.integers(len(winners))]
        places = [i for i, a in enumerate(values) if a == winner]
        return places[rng.integers(len(places))]


Decoder = AbstractProcedure | MajorityVote
"""Anything that selects one of several responses."""

Reads = Literal["nothing", "rewards", "quantiles", "answers"]


def reads(procedure: Decoder) -> Reads:
    """The values of responses that a procedure selects by.

    Raises ValueError for a procedure that cannot be run. To be run, a procedure that selects by
    rank only has to be a `RankProcedure`.
    """
    if isinstance(procedure, AbstractProcedure | MajorityVote) and procedure.reads is not None:
        return procedure.reads
    raise ValueError(
        f"`procedure` must select by rank or be SoftBestOfN, Rewind or MajorityVote to be run; got "
        f"{procedure!r}. Subclass `infalign.RankProcedure`."
    )


def select(procedure: Decoder, values: Sequence, *, rng: np.random.Generator) -> int:
    """Index into `values` of the response that `procedure` selects; ties break at random.

    - `values`: the values of one prompt's responses that the procedure `reads`, in the order
      drawn: rewards, calibrated rewards for SoftBestOfN and Rewind, answers for MajorityVote. If
      there are more than the procedure draws, it selects from a random subset of that size.

    Raises ValueError for fewer values than the procedure draws (for Rewind: unless one of them
    passes), and for values out of range.

    >>> from infalign import BestOfN
    >>> select(BestOfN(3), [1.0, 5.0, 2.0], rng=np.random.default_rng(0))
    1
    """
    reading = reads(procedure)
    if reading == "quantiles":
        values = _check.unit_interval("values", values).tolist()
    elif reading == "rewards":
        values = _check.finite_matrix("values", [values])[0].tolist()
    procedure = procedure.settled(rng)
    if isinstance(procedure, Rewind):
        return _first_to_pass(procedure, values, rng)
    if len(values) < procedure.draws:
        raise _too_few(procedure, len(values))
    order = rng.permutation(len(values))[: procedure.draws]
    return int(order[procedure.choose([values[i] for i in order], rng)])


def parse_decoder(text: str, answer: Answers = numeric_answer) -> Decoder:
    """The procedure that `text` names: as in `infalign.parse_procedure`, or `majority-vote:N`.

    - `answer`: the answer extraction for a majority vote.

    Raises ValueError for any other text.

    >>> parse_decoder("majority-vote:8").spec, parse_decoder("best-of-n:8")
    ('majority-vote:8', BestOfN(n=8))
    """
    name, _, n = text.partition(":")
    if name == "majority-vote" and n.isdecimal():
        return MajorityVote(int(n), answer)
    return PROCEDURES.parse(text, "majority-vote:N")


def try_vote(vote: MajorityVote) -> None:
    """Extract answers from responses that no model wrote, so that what is wrong with the function
    is known before anything is sampled. Raises DataError."""
    vote.choose([vote.answer(text) for text in FAKE], np.random.default_rng(0))


def _first_to_pass(procedure: Rewind, quantiles: Sequence[float], rng: np.random.Generator) -> int:
    passed = any(procedure.passes(u) for u in quantiles[: procedure.max_tries])
    if not passed and len(quantiles) < procedure.max_tries:
        raise _too_few(procedure, len(quantiles))
    return procedure.choose(quantiles, rng)


def _too_few(procedure: Decoder, given: int) -> ValueError:
    return ValueError(
        f"`{procedure}` needs at least {procedure.draws} values; got {given}. Draw more "
        "responses, or use a smaller n."
    )
