"""Whether a calibration can be trusted, and whether it has samples enough.

A calibration claims that the quantile of a reference sample is uniform, that its reward is the one
in use, and that K samples resolve what is trained on them. Each claim can be checked.
"""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.core import AbstractProcedure, design, finite_rewards, quantiles, samples_needed
from infalign.errors import SolveError

from .expected import AbstractExpected, Counted

CELLS = 2**24
"""Numbers that a permutation test holds at once."""

SURE = 0.01
"""p-value below which a check speaks up."""


@dataclass(frozen=True)
class Uniformity:
    """How fresh reference samples fall among stored ones."""

    deviation: float
    """Largest distance of the distribution of their quantiles from the uniform one, in [0, 1]."""

    shift: float
    """Mean quantile less ½: above 0, fresh samples are better than the stored ones."""

    p_deviation: float
    p_shift: float
    """Chance of as large a deviation, or shift to either side, if both are the same population."""

    prompts: int
    samples: int
    """Fresh samples of each prompt."""


def uniformity(fresh, stored, *, rng: np.random.Generator, permutations: int = 999) -> Uniformity:
    """Test whether fresh reference samples come from what the stored ones came from.

    Quantiles among K samples are no independent draws: all fresh samples of a prompt share the
    errors of its K, so tests that take them as independent reject sound calibrations. Under the
    claim the fresh and the stored samples of a prompt can be exchanged, so both are pooled and
    dealt out anew, prompt by prompt: p-values are exact for any K, with ties, and for prompts that
    differ in any way.

    Samples of the store itself, dealt at random, would pass whatever they are. Use samples drawn
    at another time, or the last of each prompt against its first ones, which finds what changed
    while a store was collected.

    - `fresh`, `stored`: rewards, shapes (prompts, m) and (prompts, K), finite, any scale.
    - `permutations`: p-values are multiples of 1 / (permutations + 1).

    >>> rng = np.random.default_rng(0)
    >>> uniformity(rng.normal(size=(50, 4)), rng.normal(size=(50, 16)), rng=rng).p_shift > 0.01
    True
    """
    fresh = finite_rewards("fresh", fresh)
    stored = finite_rewards("stored", stored)
    _check.count("permutations", permutations, at_least=99)
    _check.paired_rows(fresh=fresh, stored=stored)
    prompts, m = fresh.shape
    pooled = np.concatenate([fresh, stored], axis=1)
    # Ties in random order: no sample is then more likely than another to stand anywhere.
    order = np.lexsort((rng.random(pooled.shape), pooled), axis=1)
    place = np.argsort(order, axis=1)
    observed = _statistics(place[None, :, :m], pooled.shape[1])
    larger = np.zeros(2, int)
    block = max(1, CELLS // pooled.size)
    for start in range(0, permutations, block):
        shape = (min(block, permutations - start), *pooled.shape)
        dealt = rng.permuted(np.broadcast_to(np.arange(shape[2]), shape), axis=2)[..., :m]
        # Rounding must not make of an equal permutation a smaller one.
        found = np.abs(_statistics(dealt, shape[2])) >= np.abs(observed) - 1e-12
        larger += found.sum(1)
    p_deviation, p_shift = (1 + larger) / (1 + permutations)
    deviation, shift = observed[:, 0]
    return Uniformity(
        float(deviation), float(shift), float(p_deviation), float(p_shift), prompts, m
    )


def _statistics(place, of: int) -> np.ndarray:
    """Deviation and shift, shape (2, deals), of fresh samples that stand at the given places.

    - `place`: shape (deals, prompts, m), from 0, among all `of` samples of a prompt.
    """
    deals, _, m = place.shape
    below = np.sort(place, axis=2) - np.arange(m)  # stored samples below each fresh one
    cells = of - m + 1
    counts = np.zeros((deals, cells))
    for deal, row in enumerate(below.reshape(deals, -1)):
        counts[deal] = np.bincount(row, minlength=cells)
    cdf = np.cumsum(counts, axis=1) / counts.sum(1, keepdims=True)
    deviation = np.abs(cdf - np.arange(1, cells + 1) / cells).max(1)
    shift = (below + 0.5).mean((1, 2)) / cells - 0.5
    return np.stack([deviation, shift])


@dataclass(frozen=True)
class Drift:
    """What a second scoring of stored responses says of the reward."""

    changed: float
    """Share of responses whose reward is not what is stored, beyond rounding."""

    largest: float
    """Largest change, in standard deviations of the stored rewards."""

    swapped: float
    """Share of pairs of one prompt's responses that changed their order: what calibration sees."""

    responses: int


def drift(stored, again, *, tolerance: float = 1e-3) -> Drift:
    """Compare stored rewards with those that the reward in use gives to the same responses.

    - `stored`, `again`: shape (prompts, samples), any scale; nan marks what was not scored again.
    - `tolerance`: change that counts as rounding, in standard deviations of the stored rewards;
      batches of other shapes change the last digits.

    >>> drift([[1.0, 2.0, 3.0]], [[1.0, 3.0, 2.0]]).swapped  # one pair of three
    0.3333333333333333
    """
    stored = finite_rewards("stored", stored, missing=True)
    again = finite_rewards("again", again, missing=True)
    if stored.shape != again.shape:
        raise ValueError(
            f"`again` must have the shape of `stored`, {stored.shape}; got {again.shape}."
        )
    known = ~(np.isnan(stored) | np.isnan(again))
    if not known.any():
        raise ValueError("`again` must hold some rewards that are stored; got none.")
    scale = float(stored[known].std()) or 1.0
    change = np.abs(again - stored)[known] / scale
    swapped = pairs = 0
    for a, b, k in zip(stored, again, known, strict=True):
        before, after = (np.sign(x[k][:, None] - x[k]) for x in (a, b))
        swapped += (before * after < 0).sum() // 2
        pairs += k.sum() * (k.sum() - 1) // 2
    return Drift(
        float((change > tolerance).mean()),
        float(change.max()),
        float(swapped / pairs) if pairs else 0.0,
        int(known.sum()),
    )


@dataclass(frozen=True)
class Saturation:
    """How many of a policy's rewards its calibration cannot tell apart."""

    above: float
    """Share above the highest reference sample of their prompt."""

    below: float
    """Share below the lowest."""

    expected: float
    """Share to either side that the reference itself has: 1 / (K + 1)."""


def saturation(rewards, reference_rewards) -> Saturation:
    """Share of a policy's rewards beyond all reference samples of their prompt.

    There the calibrated reward is flat, and training has no more reason to improve.

    - `rewards`, `reference_rewards`: shape (prompts, m) and (prompts, K), finite.

    >>> saturation([[5.0, 0.5, -1.0, 2.0]], [[0.0, 1.0, 2.0]])
    Saturation(above=0.25, below=0.25, expected=0.25)
    """
    u = quantiles(rewards, reference_rewards)
    k = np.shape(reference_rewards)[1]
    return Saturation(float(np.mean(u == 1)), float(np.mean(u == 0)), 1 / (k + 1))


@dataclass(frozen=True)
class Resolution:
    """What K reference samples leave of a procedure's best transform at a KL budget."""

    procedure: AbstractProcedure
    kl: float
    samples: int
    exact: float
    """Best win rate with exact quantiles."""

    reached: float
    """Expected win rate with K samples: nan where they cannot express that much KL."""

    needed: int | None
    """Samples with which ranks come within `within` of `exact`; None if no number up to 4,096
    does."""

    within: float
    calibrator: str = "ecdf"
    """Its name, for the advice."""

    @property
    def loss(self) -> float:
        """Win rate that too few samples cost."""
        return self.exact - self.reached

    @property
    def advice(self) -> str:
        """What to do about it, in a sentence or two."""
        what = f"{self.procedure.spec} at {self.kl:.3g} nats"
        more = (
            "no K up to 4,096 comes"
            if self.needed is None
            else f"ranks among {self.needed} samples come"
        )
        points = f"{100 * self.within:.3g} point{'' if self.within == 0.01 else 's'}"
        remedy = f"{more} within {points} of it"
        if np.isnan(self.reached):
            return f"K = {self.samples} cannot express {what}: draw more samples; {remedy}."
        told = (
            f"{100 * self.loss:.1f} points of expected win rate lost with {self.calibrator} "
            f"({100 * self.reached:.1f} of the {100 * self.exact:.1f} % of exact quantiles)"
        )
        if self.loss <= self.within:
            return f"K = {self.samples} is enough for {what}: {told}."
        return f"K = {self.samples} is few for {what}: {told}; {remedy}."


def resolution(
    procedure: AbstractProcedure,
    kl: float,
    samples: int,
    *,
    against: AbstractProcedure | None = None,
    within: float = 0.01,
    outlook: AbstractExpected | None = None,
    calibrator: str = "ecdf",
) -> Resolution:
    """What `samples` reference samples per prompt cost, by theory, for continuous rewards.

    - `outlook`: what is expected of the calibrator in use (`calibrators.expected`), and
      `calibrator` its name; of the plain rank unless given.
    """
    against, exact = against or procedure, design(procedure, kl=kl, against=against)
    outlook = outlook or Counted(samples)
    try:
        table = outlook.best(procedure, against, kl=kl)
        reached = outlook.achieved(table, procedure, against, kl=kl).win_rate
    except SolveError:
        reached = float("nan")
    try:
        needed = samples_needed(
            procedure, exact.transform, kl=kl, loss=within, exact=exact.win_rate, against=against
        )
    except SolveError:
        needed = None
    return Resolution(procedure, kl, samples, exact.win_rate, reached, needed, within, calibrator)


def ties(rewards) -> float:
    """Chance that two samples of a prompt have the same reward; rows may end in nan.

    >>> ties([[1.0, 1.0, 2.0], [1.0, 2.0, 3.0]])  # one pair of three, and none
    0.16666666666666666
    """
    rewards = finite_rewards("rewards", rewards, missing=True)
    shares = []
    for row in rewards:
        _, counts = np.unique(row[~np.isnan(row)], return_counts=True)
        drawn = counts.sum()
        shares.append((counts * (counts - 1)).sum() / max(drawn * (drawn - 1), 1))
    return float(np.mean(shares))
