"""Diagnostics of a calibration: is it valid, and does it have enough samples?

A calibration assumes that quantiles of reference samples are uniform, that its reward is the one in
use, and that K samples are enough for the training reward. Each assumption is checked here.
"""

from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.core import (
    AbstractProcedure,
    RankProcedure,
    design,
    finite_rewards,
    quantiles,
    require_by_rank,
    samples_needed,
)
from infalign.errors import SolveError

from .outlook import AbstractOutlook, RankOutlook

__all__ = [
    "Drift",
    "Resolution",
    "Saturation",
    "Uniformity",
    "drift",
    "resolution",
    "saturation",
    "ties",
    "uniformity",
]

CELLS = 2**24
"""Numbers that a permutation test holds in memory at once."""

ROUNDING = 1e-12
"""Differences between statistics that count as zero."""

SURE = 0.01
"""p-value below which a check reports a problem."""


@dataclass(frozen=True)
class Uniformity(Shown):
    """Fresh reference samples, ranked among stored ones."""

    deviation: float
    """Largest distance between the CDF of their quantiles and the uniform CDF, in [0, 1]."""

    shift: float
    """Mean quantile minus ½: above 0, fresh samples are better than stored ones."""

    p_deviation: float
    p_shift: float
    """Two-sided p-values under the hypothesis that both sets come from one population."""

    prompts: int
    samples: int
    """Number of fresh samples of each prompt."""


def uniformity(fresh, stored, *, rng: np.random.Generator, permutations: int = 999) -> Uniformity:
    """Permutation test of whether fresh and stored reference samples come from one distribution.

    Quantiles among K samples are not independent: all fresh samples of a prompt share the errors of
    its K samples, and tests that assume independence reject sound calibrations. Under the
    hypothesis the fresh and stored samples of a prompt are exchangeable, so both are pooled and
    split again at random, prompt by prompt. The p-values are exact for any K, with ties, and for
    prompts that differ in any way.

    A random split of one store always passes. Use samples drawn at another time, or compare the
    last samples of each prompt with its first ones, which detects changes during a collection.

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
    # Ties are put in random order, so that every sample is equally likely to have any rank.
    order = np.lexsort((rng.random(pooled.shape), pooled), axis=1)
    place = np.argsort(order, axis=1)
    observed = _statistics(place[None, :, :m], pooled.shape[1])
    larger = np.zeros(2, int)
    block = max(1, CELLS // pooled.size)
    for start in range(0, permutations, block):
        shape = (min(block, permutations - start), *pooled.shape)
        dealt = rng.permuted(np.broadcast_to(np.arange(shape[2]), shape), axis=2)[..., :m]
        # The tolerance keeps rounding from making an equal statistic smaller.
        as_large = np.abs(_statistics(dealt, shape[2])) >= np.abs(observed) - ROUNDING
        larger += as_large.sum(1)
    p_deviation, p_shift = (1 + larger) / (1 + permutations)
    deviation, shift = observed[:, 0]
    return Uniformity(
        float(deviation), float(shift), float(p_deviation), float(p_shift), prompts, m
    )


def _statistics(place: np.ndarray, of: int) -> np.ndarray:
    """Deviation and shift of fresh samples at the given ranks, shape (2, deals).

    - `place`: ranks, from 0, among all `of` samples of a prompt, shape (deals, prompts, m).
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
class Drift(Shown):
    """Stored rewards compared with a second scoring of the same responses."""

    changed: float
    """Share of responses whose reward changed by more than rounding."""

    largest: float
    """Largest change, in standard deviations of the stored rewards."""

    swapped: float
    """Share of pairs of responses to one prompt whose order changed. A calibration depends on the
    order only."""

    responses: int


def drift(stored, again, *, tolerance: float = 1e-3) -> Drift:
    """Compare stored rewards with those that the current reward gives the same responses.

    - `stored`, `again`: shape (prompts, samples), any scale; nan where a response was not scored.
    - `tolerance`: largest change that counts as rounding, in standard deviations of the stored
      rewards. A different batch shape changes the last digits.

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
        raise ValueError("`again` must have a reward in common with `stored`; got none.")
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
class Saturation(Shown):
    """Rewards of a policy that lie outside all reference samples, where the calibration cannot
    distinguish them."""

    above: float
    """Share above the highest reference sample of their prompt."""

    below: float
    """Share below the lowest."""

    expected: float
    """Expected share on each side under the reference: 1 / (K + 1)."""


def saturation(rewards, reference_rewards) -> Saturation:
    """Share of a policy's rewards above and below all reference samples of their prompt.

    Outside the reference samples the calibrated reward is flat, so further improvement is not
    rewarded.

    - `rewards`, `reference_rewards`: shape (prompts, m) and (prompts, K), finite.

    >>> saturation([[5.0, 0.5, -1.0, 2.0]], [[0.0, 1.0, 2.0]])
    Saturation(above=0.25, below=0.25, expected=0.25)
    """
    u = quantiles(rewards, reference_rewards)
    k = np.shape(reference_rewards)[1]
    return Saturation(float(np.mean(u == 1)), float(np.mean(u == 0)), 1 / (k + 1))


@dataclass(frozen=True)
class Resolution(Shown):
    """The loss of win rate with K reference samples at a KL budget."""

    procedure: RankProcedure
    kl: float
    samples: int
    exact: float
    """Best win rate with exact quantiles."""

    reached: float
    """Expected win rate with K samples; nan if they cannot express that much KL."""

    needed: int | None
    """Number of samples at which plain ranks come within `within` of `exact`; None if above
    4,096."""

    within: float
    calibrator: str = "ecdf"
    """Name of the calibrator."""

    @property
    def loss(self) -> float:
        """`exact` minus `reached`."""
        return self.exact - self.reached

    @property
    def advice(self) -> str:
        """What the figures mean and what to do, in a few sentences."""
        what = f"{self.procedure.spec} at {self.kl:.3g} nats"
        points = f"{100 * self.within:.3g} point{'' if self.within == 0.01 else 's'}"
        remedy = (
            f"Plain ranks do not come within {points} of exact quantiles at any K up to 4,096."
            if self.needed is None
            else f"Plain ranks need K = {self.needed} to come within {points} of exact quantiles."
        )
        if np.isnan(self.reached):
            return f"K = {self.samples} cannot express {what}: draw more samples. {remedy}"
        verdict = "enough" if self.loss <= self.within else "too few"
        figures = (
            f"K = {self.samples} is {verdict} for {what}: with {self.calibrator} the expected win "
            f"rate is {100 * self.reached:.1f} %, {100 * self.loss:.1f} points below the "
            f"{100 * self.exact:.1f} % of exact quantiles."
        )
        return figures if self.loss <= self.within else f"{figures} {remedy}"


def resolution(
    procedure: RankProcedure,
    kl: float,
    samples: int,
    *,
    against: AbstractProcedure | None = None,
    within: float = 0.01,
    outlook: AbstractOutlook | None = None,
    calibrator: str = "ecdf",
) -> Resolution:
    """The theoretical cost of using only `samples` reference samples per prompt, for continuous
    rewards.

    - `against`: how the reference is decoded. Default: `procedure`.
    - `within`: loss of win rate that is acceptable.
    - `outlook`, `calibrator`: outlook (`infalign.calibration.outlook`) and name of the calibrator
      in use. Default: plain ranks.
    """
    require_by_rank("procedure", procedure)
    against = procedure if against is None else against
    exact = design(procedure, kl=kl, against=against)
    outlook = RankOutlook(samples) if outlook is None else outlook
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
    """Probability that two samples of a prompt have the same reward; rows may end in nan.

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
