"""How much of a win rate is explained by the length of the responses, from the same samples."""

from collections.abc import Mapping, Sequence

import numpy as np

from infalign.evaluation.equal_length import LengthControl
from infalign.evaluation.length import length_controlled

from .length_units import unit_words
from .measures import Measure
from .samples import Samples

__all__ = ["MOST_PAIRS", "equal_lengths", "why_not_compared"]

MOST_PAIRS = 3_000_000
"""Largest number of pairs of samples that the length control looks at."""


def equal_lengths(
    policy: Samples,
    reference: Samples,
    measures: Sequence[Measure],
    *,
    sizes: Sequence[int] | None = None,
) -> Mapping[str, LengthControl]:
    """Measure at one n → length control of the win rate, for every measure that is a win rate.

    n is 1, and the largest of a measure or of all samples. Nothing without the lengths of both
    sides in one unit, and for more than `MOST_PAIRS` pairs of samples, which would take minutes.

    - `policy`, `reference`: on the same prompts in the same order, as `match` returns them.
    - `sizes`: values of n, as for `analyze`.
    """
    if policy.lengths is None or reference.lengths is None or why_not_compared(policy, reference):
        return {}
    ours, theirs = (
        (scores, np.where(np.isnan(scores), np.nan, lengths))
        for scores, lengths in (
            (policy.scores, policy.lengths),
            (reference.scores, reference.lengths),
        )
    )
    most = int(min(policy.samples.min(), reference.samples.min()))
    controls = {}
    for measure in measures:
        if measure.procedure is None:
            continue
        ns = sorted(measure.sizes or sizes or (1, most))
        for n in (ns[0], ns[-1]):
            # One draw is the same under every procedure.
            at = f"{measure.name} at n = {n}" if n > 1 else "one sample"
            if at not in controls:
                controls[at] = length_controlled(*ours, *theirs, measure.procedure(n))
    return controls


def why_not_compared(policy: Samples, reference: Samples) -> str | None:
    """Why the lengths of two policies are left out, for the user; None if they are compared, or if
    neither policy has any.

    - `policy`, `reference`: on the same prompts in the same order, as `match` returns them.
    """
    sides = reference, policy
    known = [side.length_unit for side in sides if side.lengths is not None]
    if not known:
        return None
    if len(known) < 2 or len(set(known)) > 1:
        theirs, ours = (
            "unknown" if s.lengths is None else f"in {unit_words(s.length_unit)}" for s in sides
        )
        remedy = (
            "Give both the same `length_unit`."
            if None in known and len(known) == 2
            else "Name a column of lengths, or of responses, that both have: --column length=NAME"
        )
        return (
            f"lengths are left out: those of {reference.name} are {theirs}, those of "
            f"{policy.name} {ours}. {remedy}"
        )
    if (policy.samples * reference.samples).sum() > MOST_PAIRS:
        return f"lengths are left out: more than {MOST_PAIRS:,} pairs of samples"
    return None
