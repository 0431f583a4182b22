"""Standard errors and intervals, clustered by prompt.

Samples of one prompt share its difficulty, so the prompt is the unit: the estimate is a mean over
prompts, and its error comes from the spread between prompts. One rule gives every interval:

- the wider of Student's interval and one corrected for skewness, on each side. Per-prompt values
  are skewed when win rates are high (most near 1, a few far below), and with tens of prompts
  Student's interval then misses too often, always on the same side; at the null, where values are
  not skewed, the correction alone misses too often;
- for values with bounds, at least what P prompts cannot exclude: that a share ε = 1 − 0.05^(1/P) of
  all prompts, about 3/P, has values at either bound and was not drawn. Where most prompts are at a
  bound, the spread between the drawn ones says nothing about the others.

docs/benchmarks.md lists the simulated coverage.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np
from scipy.special import stdtrit

from infalign import _check
from infalign._look import Pictured, Shown, label
from infalign.errors import ArgumentError

__all__ = [
    "AbstractInterval",
    "Bootstrap",
    "Bounds",
    "Estimate",
    "SkewCorrected",
    "Student",
    "Widest",
    "over_prompts",
]

ROUNDING = 1e-13
"""Deviations from the mean below this share of the values' range count as rounding."""

CHUNK = 2**22
"""Numbers that a bootstrap holds in memory at once."""


@dataclass(frozen=True)
class Estimate(Shown, Pictured):
    """A mean over prompts with its interval, at a level of 95 % by default."""

    value: float
    stderr: float
    """Standard error of `value`; nan with a single prompt."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""

    per_prompt: np.ndarray = field(repr=False)
    """The estimate of each prompt, shape (prompts,)."""

    def figures(self) -> dict[str, float | None]:
        """The four numbers as plain values; those that are not finite are None."""
        ends = {name: getattr(self, name) for name in ("value", "stderr", "low", "high")}
        return {name: float(end) if np.isfinite(end) else None for name, end in ends.items()}

    def _facts(self):
        return {
            "value": self.value,
            "stderr": self.stderr,
            "low": self.low,
            "high": self.high,
            "prompts": len(self.per_prompt),
        }

    def _columns(self):
        return {"prompt": np.arange(len(self.per_prompt)), "value": self.per_prompt}

    def _draw(self, axes):
        axes.hist(self.per_prompt[np.isfinite(self.per_prompt)], bins=30, alpha=0.6)
        if np.isfinite([self.low, self.high]).all():
            axes.axvspan(self.low, self.high, color="tab:orange", alpha=0.3, lw=0)
        axes.axvline(self.value, color="tab:orange")
        label(axes, x="estimate of a prompt", y="prompts", title=f"mean {self}")

    def __str__(self):
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True)
class Bounds(Estimate):
    """Where a quantity lies that the data do not identify: an interval without an estimate."""

    @classmethod
    def between(cls, low: float, high: float, prompts: int) -> "Bounds":
        """Bounds from `prompts` prompts, none of which has a value of its own."""
        nan = float("nan")
        return cls(nan, nan, low, high, np.full(prompts, nan))

    def __str__(self):
        return f"between {self.low:.4f} and {self.high:.4f}"


class AbstractInterval(ABC):
    """A method that computes the interval of a mean from independent values."""

    @abstractmethod
    def reach(self, values: np.ndarray, level: float) -> tuple[float, float]:
        """Distances of the interval's ends below and above the mean, in standard errors.

        - `values`: two or more, not all equal.
        """


def _interval(name: str, value) -> AbstractInterval:
    return _check.instance(name, value, AbstractInterval, "an interval such as Student()")


@dataclass(frozen=True)
class Student(AbstractInterval):
    """Student's t with P − 1 degrees of freedom: exact for normally distributed values."""

    def reach(self, values, level):
        t = float(stdtrit(values.size - 1, (1 + level) / 2))
        return t, t


@dataclass(frozen=True)
class SkewCorrected(AbstractInterval):
    """Student's t after a cubic map that removes the skewness γ of T = (mean − μ)/error.

    g(T) = T + γ/√P (T²/3 + 1/6) + γ²/P T³/27 is increasing, has symmetric tails to order 1/P, and
    is solved for T at ±t. Source: Hall, On the removal of skewness by transformation, Journal of
    the Royal Statistical Society B 54 (1992). The squared sample skewness is first reduced by 6/P,
    its expectation for normally distributed values.
    """

    def reach(self, values, level):
        prompts = values.size
        t, _ = Student().reach(values, level)
        skewness = _skewness(values) if prompts > 2 else 0.0  # two values have no skewness
        if skewness**2 <= 6 / prompts:
            return t, t
        c = (skewness - 6 / prompts / skewness) / np.sqrt(prompts)
        if abs(c) < 1e-6:  # the map is the identity up to rounding
            return t, t
        below, above = (3 / c * (np.cbrt(1 + c * (x - c / 6)) - 1) for x in (t, -t))
        return float(below), float(-above)


@dataclass(frozen=True)
class Widest(Shown, AbstractInterval):
    """The smallest interval that contains several intervals for the same mean.

    With SkewCorrected and Student it covers values that may be skewed in either direction, for
    which a few outliers look like skewness.
    """

    intervals: tuple[AbstractInterval, ...]

    def __post_init__(self):
        methods = [_interval("intervals", i) for i in _check.entries("intervals", self.intervals)]
        object.__setattr__(self, "intervals", tuple(methods))
        if not methods:
            raise ArgumentError("intervals", "must hold at least one interval; got none.")

    def reach(self, values, level):
        below, above = zip(*(i.reach(values, level) for i in self.intervals), strict=True)
        return max(below), max(above)


@dataclass(frozen=True)
class Bootstrap(AbstractInterval):
    """The studentized bootstrap over prompts: quantiles of T over resamples replace those of t.

    Its coverage is as good as that of the skewness correction, but its intervals are wider with few
    prompts. T is infinite for resamples of equal values, so the interval may be infinite too, up to
    the bounds of the estimate.
    """

    seed: int
    resamples: int = 2000

    def __post_init__(self):
        _check.seed("seed", self.seed)
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
            # Equal values have no spread, up to the rounding of their mean.
            errors = np.where(np.ptp(drawn, axis=1) > 0, spreads, 0) / np.sqrt(prompts)
            # If the spread is 0, T is 0 for a mean of 0 and infinite for any other mean.
            means[np.abs(means) <= ROUNDING * np.ptp(values)] = 0
            with np.errstate(divide="ignore", invalid="ignore"):
                T.append(np.where(means == 0, 0, means / errors))
        ends = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.quantile(np.concatenate(T), ends, method="inverted_cdf")
        return float(high), float(-low)


EITHER_WAY = Widest((SkewCorrected(), Student()))
"""The default of every estimate."""


def over_prompts(
    per_prompt: np.ndarray,
    *,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
    interval: AbstractInterval = EITHER_WAY,
) -> Estimate:
    """Mean of independent per-prompt values, with an interval for the mean over all prompts.

    - `level`: chance that the interval contains the truth, strictly between 0 and 1.
    - `bounds`: least and greatest possible value of a prompt, if any. The interval lies within
      them. It extends at least to the means that would result if a share ε = 1 − (1 − level)^(1/P)
      of all prompts lay at either bound: P prompts all miss such a share with a probability of
      1 − level.
    - `interval`: the method; also `SkewCorrected()`, `Student()` and `Bootstrap(seed)`.

    Error and interval are nan for a single prompt, which has no spread, and for values that are not
    finite. Without `bounds`, values that are all equal have an interval without width.

    >>> str(over_prompts(np.ones(20), bounds=(0, 1)))
    '1.0000 [0.8609, 1.0000]'
    """
    per_prompt = _check.numbers("per_prompt", per_prompt)
    if per_prompt.ndim != 1 or not per_prompt.size:
        raise ArgumentError(
            "per_prompt", f"must be a list of at least one number; got shape {per_prompt.shape}."
        )
    _interval("interval", interval)
    if bounds is not None:
        ends = [_check.real("bounds", end) for end in _check.entries("bounds", bounds)]
        if len(ends) != 2 or ends[0] > ends[1]:
            raise ArgumentError("bounds", f"must be (least, greatest); got {_check.short(bounds)}.")
        bounds = ends[0], ends[1]
    if not 0 < _check.real("level", level) < 1:
        raise ArgumentError(
            "level", f"must lie between 0 and 1; got {level:g}. Pass 0.95 for 95 %."
        )
    prompts = per_prompt.size
    value = float(per_prompt.mean())
    if prompts < 2 or not np.isfinite(per_prompt).all():
        return Estimate(value, float("nan"), float("nan"), float("nan"), per_prompt)
    size = float(np.abs(per_prompt).max())
    # Squares of tiny values underflow; those of values over the largest one do not.
    spread = float((per_prompt / size).std(ddof=1)) * size if size > 0 else 0.0
    low = high = value
    stderr = 0.0
    if np.ptp(per_prompt) > ROUNDING * size:
        stderr = spread / np.sqrt(prompts)
        below, above = interval.reach(per_prompt / size, level)
        low, high = value - below * stderr, value + above * stderr
    if bounds is not None:
        least, most = bounds
        unseen = -float(np.expm1(np.log1p(-level) / prompts))
        low = max(min(low, value + unseen * (least - value)), least)
        high = min(max(high, value + unseen * (most - value)), most)
    return Estimate(value, stderr, low, high, per_prompt)


def _skewness(values: np.ndarray) -> float:
    """Skewness of the sample, with an unbiased third moment."""
    prompts = values.size
    z = (values - values.mean()) / values.std(ddof=1)
    cubes = np.mean(z * z * z)
    return float(cubes * prompts**2 / ((prompts - 1) * (prompts - 2)))
