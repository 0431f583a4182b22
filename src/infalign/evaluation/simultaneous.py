"""Intervals for several means over the same prompts, all of which hold at the same time.

A curve over n, or all pairs of policies, is many statements. If each holds with 95 %, some one of
them is wrong far more often. The statements share their prompts, so they err together, and the
intervals need only be as wide as the largest error of them all: the sup-t band. Multipliers that
are normal turn the P prompts into errors with exactly the correlation of the sample; divided by the
spread that P − 1 degrees of freedom leave, the largest one follows the law of max |t|. Its 95 %
quantile says at which level each interval must hold. The interval itself is the one of every other
estimate, at that level.

Source of the multiplier bootstrap: Chernozhukov, Chetverikov and Kato, Gaussian approximations and
multiplier bootstrap for maxima of sums of high-dimensional random vectors, arXiv:1212.6906.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtr, stdtrit

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError

from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["Simultaneous", "holm", "p_value", "simultaneous"]

DRAWS = 40_000
"""Simulated largest errors. The quantile at 95 % has an error of about 0.005."""

BLOCK = 2**22
"""Numbers held in memory at once."""

HALVINGS = 30
"""Bisection steps for a p-value, on the scale of its logarithm."""

SMALLEST = 1e-12
"""p-values below this one are 0."""


@dataclass(frozen=True, eq=False)
class Simultaneous(Shown):
    """Several means over the same prompts, with intervals that hold one by one, and wider ones that
    all hold at the same time."""

    pointwise: tuple[Estimate, ...]
    """Each mean with its own interval at `level`."""

    joint: tuple[Estimate, ...]
    """The same means; at `level` all of these intervals contain their truths together."""

    level: float

    level_each: float
    """Level of each of the joint intervals, at least `level`."""

    largest: np.ndarray = field(repr=False)
    """Simulated largest errors in standard errors, max |t|, in increasing order."""

    def adjusted(self, p: float) -> float:
        """The p-value of one mean among all of them: the chance that the largest of their errors is
        as large as one whose own p-value is `p`. At most Bonferroni's, which needs no simulation.
        """
        degrees = len(self.pointwise[0].per_prompt) - 1
        t = float(stdtrit(degrees, 1 - p / 2))
        above = self.largest.size - int(np.searchsorted(self.largest, t, side="left"))
        simulated = (above + 1) / (self.largest.size + 1)
        return min(max(p, simulated), p * len(self.joint))


def simultaneous(
    per_prompt,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    interval: AbstractInterval = EITHER_WAY,
    seed: int = 0,
) -> Simultaneous:
    """Means of several columns of per-prompt values, with pointwise and simultaneous intervals.

    - `per_prompt`: shape (prompts, means), finite: row by row the values of one prompt.
    - `level`, `bounds`, `interval`: as for `over_prompts`.
    - `seed`: of the simulation that turns `level` into the level of each interval.

    Intervals are nan with a single prompt. Raises ArgumentError for other shapes or values.

    >>> values = np.random.default_rng(0).normal(size=(50, 8))
    >>> together = simultaneous(values)
    >>> round(together.level_each, 3)  # eight independent means: about 1 - .05 / 8
    0.993
    """
    values = _check.finite_matrix("per_prompt", per_prompt)
    _check.seed("seed", seed)
    columns = [np.ascontiguousarray(column) for column in values.T]
    pointwise = tuple(
        over_prompts(c, level=level, bounds=bounds, interval=interval) for c in columns
    )
    if len(values) < 2:
        return Simultaneous(pointwise, pointwise, level, level, np.zeros(0))
    largest = _largest(values, np.random.default_rng(seed))
    if len(columns) == 1:  # without the error of the simulation
        return Simultaneous(pointwise, pointwise, level, level, largest)
    critical = float(np.quantile(largest, level))
    each = max(level, float(2 * stdtr(len(values) - 1, critical) - 1))
    joint = tuple(over_prompts(c, level=each, bounds=bounds, interval=interval) for c in columns)
    return Simultaneous(pointwise, joint, level, each, largest)


def _largest(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of max |t| over the columns, in increasing order.

    The sum over prompts of a normal multiplier times the standardized deviation is normal with the
    correlation matrix of the columns. Its square root is drawn from, so that the cost does not grow
    with the number of prompts.
    """
    prompts = len(values)
    deviations = values - values.mean(0)
    # A column without spread, up to the rounding of its mean, has no error.
    scale = np.sqrt((deviations**2).sum(0))
    known = scale > 1e-12 * np.abs(values).max(0) * np.sqrt(prompts)
    if not known.any():
        return np.sort(np.abs(rng.standard_t(prompts - 1, DRAWS)))
    _, spread, axes = np.linalg.svd(deviations[:, known] / scale[known], full_matrices=False)
    root = spread[:, None] * axes  # (rank, means); its Gram matrix is the correlation
    rows = max(1, BLOCK // root.shape[1])
    parts = [
        np.abs(rng.standard_normal((min(rows, DRAWS - start), len(root))) @ root).max(1)
        for start in range(0, DRAWS, rows)
    ]
    degrees = prompts - 1
    return np.sort(np.concatenate(parts) / np.sqrt(rng.chisquare(degrees, DRAWS) / degrees))


def p_value(
    per_prompt,
    null: float = 0.0,
    *,
    bounds: tuple[float, float] | None = None,
    interval: AbstractInterval = EITHER_WAY,
) -> float:
    """The largest 1 − level at which the interval of the mean excludes `null`, in [0, 1].

    The p-value of the test that rejects where the interval of `over_prompts` excludes `null`; it is
    nan where there is no interval. `per_prompt`, `bounds`, `interval` as for `over_prompts`.

    >>> values = np.random.default_rng(0).normal(0.3, size=50)
    >>> p = p_value(values)
    >>> print(f"{over_prompts(values, level=1 - p).low:.6f}")
    0.000000
    """
    _check.real("null", null)

    def excluded(p: float) -> bool:
        estimate = over_prompts(per_prompt, level=1 - p, bounds=bounds, interval=interval)
        return not estimate.low <= null <= estimate.high

    estimate = over_prompts(per_prompt, bounds=bounds, interval=interval)
    if np.isnan(estimate.low):
        return float("nan")
    low, high = np.log(SMALLEST), 0.0
    if excluded(SMALLEST):
        return 0.0
    if not excluded(1 - 1e-9):
        return 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if excluded(float(np.exp(middle))) else (middle, high)
    return float(np.exp(high))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, adjusted by Holm's method: below α with a chance of at most α for
    any true null hypothesis, however the tests depend on each other.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    p = _check.numbers("p_values", p_values)
    if p.ndim != 1 or not p.size or not ((p >= 0) & (p <= 1)).all():
        raise ArgumentError(
            "p_values", f"must be a list of numbers in [0, 1]; got {_check.short(p_values)}."
        )
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1))
    adjusted = np.empty(p.size)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()
