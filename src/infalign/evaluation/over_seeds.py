"""Means over prompts *and* training seeds, with intervals that count both.

Every trained policy answers the same prompts, so that prompts and seeds are crossed factors: the
value of prompt p under seed s is mean + prompt_p + seed_s + rest_ps. The interval is about the mean
over all prompts like these and over all seeds: what another team would measure on other prompts
with other seeds.

Its half-width is √(a² + b²): a is the half-width over prompts of the values averaged over seeds,
as in `over_prompts`; b is Student's half-width of the seeds' means, with S − 1 degrees of freedom.
Both variances contain that of the rest, which is so counted twice. For normally distributed values
the interval holds the truth with a probability of *at least* the level, for every number of prompts
and seeds and whatever the variances are: Banerjee, On confidence interval for two-means problem
based on separate estimates of variances and tabulated values of t-table, Sankhyā A 23 (1961). The
proof is one line: P(Z² ≤ x) is concave in x, so it is at least the mean of its values at the two
ends, each of which is the level. Satterthwaite's approximation is narrower and fails where there
are two seeds, whose difference is small by chance in one study of ten.

The price is the width: with 2 seeds, Student's factor is 12.7, with 3 it is 4.3, with 5 it is 2.8.
If several methods can be taken to vary equally between seeds, `pooled` estimates that variance from
all of them, with more degrees of freedom.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from infalign import _check
from infalign.errors import ArgumentError

from .uncertainty import EITHER_WAY, AbstractInterval, Estimate, over_prompts

__all__ = ["SeedEstimate", "SeedVariance", "over_prompts_and_seeds", "pooled"]


@dataclass(frozen=True)
class SeedVariance:
    """The variance of the mean over prompts between seeds."""

    value: float
    degrees: int
    """Degrees of freedom of its estimate; 0 if there is none."""

    def times(self, factor: float) -> "SeedVariance":
        """The variance of a sum of `factor` such means that are independent."""
        return SeedVariance(factor * self.value, self.degrees)


@dataclass(frozen=True)
class SeedEstimate(Estimate):
    """A mean over prompts and seeds with its interval."""

    per_seed: np.ndarray = field(repr=False)
    """The mean over prompts of each seed, shape (seeds,)."""

    def _facts(self):
        return super()._facts() | {"seeds": len(self.per_seed)}


def over_prompts_and_seeds(
    values: np.ndarray,
    *,
    between: SeedVariance | None = None,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    interval: AbstractInterval = EITHER_WAY,
) -> SeedEstimate:
    """Mean of values over seeds and prompts, with an interval for the mean over all of both.

    - `values`: shape (seeds, prompts); every seed has the same prompts.
    - `between`: the variance between seeds. Default: that of the seeds' means, S − 1 degrees of
      freedom.
    - `level`, `bounds`, `interval`: as for `over_prompts`.

    With one seed and no `between`, the interval is about other prompts under the same seed.

    >>> values = np.array([[0.5, 0.7], [0.6, 0.8]])
    >>> e = over_prompts_and_seeds(values)
    >>> round(e.value, 3), e.per_seed.round(3).tolist(), e.per_prompt.round(3).tolist()
    (0.65, [0.6, 0.7], [0.55, 0.75])
    """
    values = _check.numbers("values", values)
    if values.ndim != 2 or not values.size:
        raise ArgumentError("values", f"must have shape (seeds, prompts); got {values.shape}.")
    over = over_prompts(values.mean(0), level=level, bounds=bounds, interval=interval)
    means = values.mean(1)
    seeds = len(means)
    if between is None:
        between = pooled([means])
    if not between.degrees:
        return SeedEstimate(over.value, over.stderr, over.low, over.high, over.per_prompt, means)
    spread = between.value / seeds
    reach = float(stdtrit(between.degrees, (1 + level) / 2)) ** 2 * spread
    low = over.value - np.sqrt((over.value - over.low) ** 2 + reach)
    high = over.value + np.sqrt((over.high - over.value) ** 2 + reach)
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    stderr = float(np.sqrt(over.stderr**2 + spread))
    return SeedEstimate(over.value, stderr, float(low), float(high), over.per_prompt, means)


def pooled(groups: Iterable[np.ndarray]) -> SeedVariance:
    """The variance between seeds that several groups share.

    - `groups`: of each method, the mean over prompts of every seed.

    >>> pooled([np.array([0.5, 0.7]), np.array([0.2, 0.2, 0.2])]).degrees  # 1 and 2
    3
    """
    squares = degrees = 0.0
    for means in groups:
        squares += float(np.square(means - means.mean()).sum())
        degrees += len(means) - 1
    return SeedVariance(squares / degrees if degrees else 0.0, int(degrees))
