"""Standard errors and intervals, clustered by prompt.

Samples of one prompt share its difficulty, so the prompt is the unit: the estimate is a mean over
prompts, its error the spread between them. Per-prompt values are skewed when win rates are high
(most near 1, a few far below), and with tens of prompts Student's interval then misses too often,
all on one side; the defaults here correct for skewness. docs/benchmarks.md has the coverage of each
as simulated.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from infalign import _check

ROUNDING = 1e-13
"""Deviation from the mean, relative to the range of the values, that is rounding."""

CHUNK = 2**22
"""Numbers that a bootstrap holds at once."""


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts with its interval, of 95 % unless another level was asked for."""

    value: float
    stderr: float
    """Standard error of `value`; nan with a single prompt."""

    low: float
    high: float
    per_prompt: np.ndarray = field(repr=False)
    """The estimate of each prompt, shape (prompts,)."""

    def __str__(self):
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


class AbstractInterval(ABC):
    """How an interval for a mean is found from independent values."""

    @abstractmethod
    def reach(self, values: np.ndarray, level: float) -> tuple[float, float]:
        """How far it goes below and above the mean, in standard errors.

        - `values`: two or more, not all equal.
        """


@dataclass(frozen=True)
class Student(AbstractInterval):
    """Student's t with P − 1 degrees of freedom: exact for normally distributed values."""

    def reach(self, values, level):
        t = float(stdtrit(values.size - 1, (1 + level) / 2))
        return t, t


@dataclass(frozen=True)
class SkewCorrected(AbstractInterval):
    """Student's t after a cubic map that takes the skewness γ out of T = (mean − μ)/error.

    g(T) = T + γ/√P (T²/3 + 1/6) + γ²/P T³/27 is increasing, with tails that are alike to order
    1/P, and is solved for T at ±t. Source: Hall, On the removal of skewness by transformation,
    Journal of the Royal Statistical Society B 54 (1992). The square of the sample's skewness is
    first reduced by 6/P, what chance alone gives it for normally distributed values.
    """

    def reach(self, values, level):
        prompts = values.size
        t, _ = Student().reach(values, level)
        skewness = _skewness(values) if prompts > 2 else 0.0  # two values have none
        if skewness**2 <= 6 / prompts:
            return t, t
        c = (skewness - 6 / prompts / skewness) / np.sqrt(prompts)
        if abs(c) < 1e-6:  # the map is the identity to rounding
            return t, t
        below, above = (3 / c * (np.cbrt(1 + c * (x - c / 6)) - 1) for x in (t, -t))
        return float(below), float(-above)


@dataclass(frozen=True)
class Widest(AbstractInterval):
    """The farthest that any of several intervals goes, on either side.

    What SkewCorrected and Student leave of each other's weakness where values are skewed one way
    as easily as the other: a few outliers then pass for skewness.
    """

    intervals: tuple[AbstractInterval, ...]

    def reach(self, values, level):
        below, above = zip(*(i.reach(values, level) for i in self.intervals), strict=True)
        return max(below), max(above)


@dataclass(frozen=True)
class Bootstrap(AbstractInterval):
    """The studentized bootstrap over prompts: quantiles of T over resamples in place of t.

    As sound as the correction for skewness, and wider with few prompts. With resamples of equal
    values T is infinite, and so may the interval be, up to the bounds of what is estimated.
    """

    seed: int
    resamples: int = 2000

    def __post_init__(self):
        _check.count("seed", self.seed, at_least=0)
        _check.count("resamples", self.resamples, at_least=100)

    def reach(self, values, level):
        prompts, rng = values.size, np.random.default_rng(self.seed)
        centered = values - values.mean()
        rows = max(1, CHUNK // prompts)
        T = []
        for start in range(0, self.resamples, rows):
            some = min(rows, self.resamples - start)
            drawn = centered[rng.integers(prompts, size=(some, prompts))]
            means, spreads = drawn.mean(1), drawn.std(1, ddof=1)
            # Equal values have no spread but for the rounding of their mean.
            errors = np.where(np.ptp(drawn, axis=1) > 0, spreads, 0) / np.sqrt(prompts)
            # A resample that equals the mean has no error; one beside it is infinitely far.
            means[np.abs(means) <= ROUNDING * np.ptp(values)] = 0
            with np.errstate(divide="ignore", invalid="ignore"):
                T.append(np.where(means == 0, 0, means / errors))
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(np.concatenate(T), ends, method="inverted_cdf")
        return float(high), float(-low)


SKEWED = SkewCorrected()
"""For rates, which are skewed away from the nearer of their bounds."""

EITHER_WAY = Widest((SkewCorrected(), Student()))
"""For what may be skewed to either side, or has no bounds."""


def over_prompts(
    per_prompt: np.ndarray,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Mean of independent per-prompt values, with an interval for the mean over all prompts.

    - `level`: chance that the interval holds the truth, strictly between 0 and 1.
    - `bounds`: least and greatest value that a prompt can have, where there are such; the interval
      ends there.
    - `interval`: how it is found; also `SkewCorrected()`, `Student()` and `Bootstrap(seed)`.

    A single prompt gives nan for the error and the interval, for one cluster says nothing of
    others, and so do values that are not finite. If all prompts have the same value v there is no
    spread to judge by; but what P prompts have not shown has a chance of at most
    ε = 1 − (1 − level)^(1/P), about 3/P, and with `bounds` the interval is what unseen prompts at
    either bound leave of v.

    >>> str(over_prompts(np.ones(20), bounds=(0, 1)))
    '1.0000 [0.8609, 1.0000]'
    """
    per_prompt = np.asarray(per_prompt, float)
    if not 0 < _check.real("level", level) < 1:
        raise ValueError(f"`level` must lie between 0 and 1; got {level:g}. Pass 0.95 for 95 %.")
    prompts = per_prompt.size
    value = float(per_prompt.mean())
    if prompts < 2 or not np.isfinite(per_prompt).all():
        return Estimate(value, float("nan"), float("nan"), float("nan"), per_prompt)
    stderr = float(per_prompt.std(ddof=1) / np.sqrt(prompts))
    if stderr == 0 or np.ptp(per_prompt) == 0:
        unseen = 0.0 if bounds is None else -float(np.expm1(np.log1p(-level) / prompts))
        least, most = (value, value) if bounds is None else bounds
        ends = (value + unseen * (least - value), value + unseen * (most - value))
        return Estimate(value, 0.0, *ends, per_prompt)
    below, above = interval.reach(per_prompt, level)
    low, high = value - below * stderr, value + above * stderr
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Estimate(value, stderr, low, high, per_prompt)


def _skewness(values) -> float:
    """The sample's, without bias in the third moment."""
    prompts = values.size
    z = (values - values.mean()) / values.std(ddof=1)
    cubes = np.mean(z * z * z)
    return float(cubes * prompts**2 / ((prompts - 1) * (prompts - 2)))
