"""The prompts, and samples per prompt, that are needed to show a difference in win rate.

A win rate is a mean over P prompts, so its variance is (between + within) / P:

- within: sampling noise of one prompt's estimate. `variance` computes it exactly on the quantile
  axis for the procedure and the sample sizes. More samples per prompt reduce it.
- between: how much the true effect differs from prompt to prompt. Only more prompts reduce its
  contribution. It is unknown beforehand: `pilot.components` estimates it from a pilot, and
  `BETWEEN` is a measured default.

Assumptions: rewards without ties, prompts drawn independently, policies that are tilts of a given
KL on every prompt, and Student's intervals. The correction for skewness moves the intervals' ends
only a little with a few dozen prompts or more. Ties reduce the noise. A policy that wastes KL is
nearer the reference, where the noise is larger. Plan with the KL of its quantiles (`marginal_kl`),
which is half to three quarters of its sequence KL in our demonstration, or with a small KL to be
safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtrit

from infalign import _check
from infalign._look import Shown
from infalign.core import (
    AbstractProcedure,
    Probit,
    TiltedPolicy,
    at_kl,
    design,
    falling_root,
    require_by_rank,
)
from infalign.errors import ArgumentError

from .variance import NO_THEORY, difference_variance, win_rate_variance

__all__ = [
    "EvaluationPlan",
    "chance_to_see",
    "detectable",
    "half_width",
    "needed",
    "table",
]

BETWEEN = 0.06**2
"""Variance of the true win rate, or of a true difference, between prompts: a standard deviation of
6 points. The demonstration (128 prompts, 32 samples) has 4 to 7 points, with a standard error of 1
to 2, both for win rates and for differences, under sampling, best-of-2 to 8 and worst-of-2 to 4.
Prompts of one kind vary less and a mixture of tasks varies more, so measure your own in a pilot."""


@dataclass(frozen=True)
class EvaluationPlan(Shown):
    """The size of an evaluation that shows a difference, and its assumptions."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    difference: float
    """True difference in win rate to be shown, as a fraction: 0.03 is 3 points."""

    prompts: int
    samples: int
    """Per prompt and policy."""

    reference_samples: int
    """Per prompt, shared by both policies."""

    between: float
    """Variance of the true difference between prompts."""

    within: float
    """Sampling variance of one prompt's estimate."""

    power: float
    """Chance that the interval of the difference lies above 0."""

    level: float
    """Confidence level of the interval."""

    @property
    def stderr(self) -> float:
        """Standard error of the estimated difference."""
        return float(np.sqrt((self.between + self.within) / self.prompts))

    @property
    def half_width(self) -> float:
        """Half the width of the difference's interval."""
        return float(stdtrit(self.prompts - 1, (1 + self.level) / 2)) * self.stderr

    @property
    def responses(self) -> int:
        """Total number of responses to draw and score, for two policies and the reference."""
        return self.prompts * (2 * self.samples + self.reference_samples)

    @property
    def sampling_share(self) -> float:
        """Share of the variance that more samples could remove; below about a fifth, only more
        prompts help."""
        return self.within / (self.between + self.within)


def needed(
    procedure: AbstractProcedure,
    difference: float,
    *,
    kl: float,
    samples: int,
    reference_samples: int | None = None,
    against: AbstractProcedure | None = None,
    between: float = BETWEEN,
    power: float = 0.8,
    level: float = 0.95,
) -> EvaluationPlan:
    """The smallest number of prompts that shows a difference in win rate.

    The difference is shown if the `level` interval of `win_rate_difference`, paired by prompt, lies
    above 0; this must happen with probability `power`. The noise is computed for two policies at
    `kl` nats: the optimum, and one trained on normally distributed raw rewards.

    - `procedure`, `against`: how policy and reference are decoded; they must select by rank.
      Default of `against`: `procedure`.
    - `difference`: true difference in win rate; in (0, 1).
    - `kl`: KL in nats of both policies' quantiles; > 0.
    - `samples`, `reference_samples`: per prompt, for each policy and for the reference; at least as
      many as the procedure draws. Default of `reference_samples`: `samples`.
    - `between`: variance of the true difference between prompts, such as a pilot's; ≥ 0.

    >>> from infalign import BestOfN
    >>> plan = needed(BestOfN(4), 0.03, kl=0.25, samples=16)
    >>> plan.prompts, round(plan.half_width, 3), round(plan.sampling_share, 2)
    (228, 0.021, 0.86)
    """
    if not 0 < _check.real("difference", difference) < 1:
        raise ArgumentError(
            "difference", f"must lie in (0, 1); got {difference:g}. Three points are 0.03."
        )
    _check_chances(power, level)
    pair = _pair(procedure, against, kl)
    within = _within(procedure, pair, samples, reference_samples, against)
    variance = within + _between(between)

    def enough(prompts: int) -> bool:
        return chance_to_see(prompts, difference, variance, level) >= power

    low, high = 1, 2  # the answer is above `low` and at most `high`
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return EvaluationPlan(
        procedure=procedure,
        against=against or procedure,
        difference=difference,
        prompts=high,
        samples=samples,
        reference_samples=samples if reference_samples is None else reference_samples,
        between=between,
        within=within,
        power=power,
        level=level,
    )


def table(
    procedure: AbstractProcedure,
    difference: float,
    *,
    kl: float,
    samples: Sequence[int] | None = None,
    **options,
) -> tuple[EvaluationPlan, ...]:
    """`needed` at several numbers of samples.

    `samples` defaults to 1, 2, 4, 8 and 16 times the number that the procedure draws.

    Compare their `prompts`, and their `responses` where drawing is expensive. With exactly as many
    samples as the procedure draws there is only one subset per prompt: best-of-4 then needs nine
    times the prompts, and twice the responses, that it needs with 16 samples. The total number of
    responses is smallest at 4 to 8 times the number drawn. From 16 times on, `between` is about
    half of the variance, and more samples hardly help.
    """
    most = max(p.draws for p in (procedure, options.get("against") or procedure))
    samples = samples or [most * k for k in (1, 2, 4, 8, 16)]
    return tuple(needed(procedure, difference, kl=kl, samples=m, **options) for m in samples)


def detectable(
    procedure: AbstractProcedure,
    prompts: int,
    samples: int,
    *,
    kl: float,
    reference_samples: int | None = None,
    against: AbstractProcedure | None = None,
    between: float = BETWEEN,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """The smallest difference in win rate that `prompts` prompts can show; arguments as for
    `needed`.

    A value above 1 means that no difference is large enough.
    """
    _check.count("prompts", prompts, at_least=2)
    _check_chances(power, level)
    pair = _pair(procedure, against, kl)
    variance = _within(procedure, pair, samples, reference_samples, against) + _between(between)
    stderr = np.sqrt(variance / prompts)

    def lack(ratio: float) -> float:
        return power - chance_to_see(prompts, ratio * stderr, variance, level)

    ratio = falling_root(lack, 1.0, growth=2.0, low=0.0, xtol=1e-12, rtol=1e-12)
    return float(ratio * stderr)


def half_width(
    procedure: AbstractProcedure,
    prompts: int,
    samples: int,
    *,
    kl: float,
    reference_samples: int | None = None,
    against: AbstractProcedure | None = None,
    between: float = BETWEEN,
    level: float = 0.95,
) -> float:
    """Half the width of the interval of one policy's win rate; arguments as for `needed`.

    The policy is the optimum at `kl` nats; `between` is the variance of its true win rate between
    prompts.
    """
    _check.count("prompts", prompts, at_least=2)
    _check_chances(0.8, level)
    policy = _pair(procedure, against, kl)[0]
    within = win_rate_variance(
        policy,
        procedure,
        samples=samples,
        reference_samples=samples if reference_samples is None else reference_samples,
        against=against,
    )
    stderr = np.sqrt((_between(between) + within) / prompts)
    return float(stdtrit(prompts - 1, (1 + level) / 2) * stderr)


def chance_to_see(prompts: int, difference: float, variance: float, level: float = 0.95) -> float:
    """Chance that the interval of a mean over prompts lies above 0, by the noncentral t law.

    - `difference`: the true mean.
    - `variance`: of one prompt's estimate, between and within together. The mean over prompts is
      taken to be normal, which is a good approximation from a few dozen prompts on.
    """
    reach = stdtrit(prompts - 1, (1 + level) / 2)
    return float(1 - nctdtr(prompts - 1, difference / np.sqrt(variance / prompts), reach))


def _pair(
    procedure: AbstractProcedure, against: AbstractProcedure | None, kl: float
) -> tuple[TiltedPolicy, TiltedPolicy]:
    """The two policies of the planned comparison: the optimum, and plain RLHF at the same KL."""
    require_by_rank("procedure", procedure, NO_THEORY)
    if against is not None:
        require_by_rank("against", against, NO_THEORY)
    plain = at_kl(Probit(), kl)
    return design(procedure, kl=kl, against=against).policy, plain


def _within(
    procedure: AbstractProcedure,
    pair: tuple[TiltedPolicy, TiltedPolicy],
    samples: int,
    reference_samples: int | None,
    against: AbstractProcedure | None,
) -> float:
    return difference_variance(
        *pair,
        procedure,
        samples=samples,
        reference_samples=samples if reference_samples is None else reference_samples,
        against=against,
    )


def _between(value: float) -> float:
    if _check.real("between", value) < 0:
        raise ArgumentError(
            "between",
            f"must be at least 0; got {value:g}. If a pilot's estimate is below 0, "
            "use 0, or the estimate plus two standard errors.",
        )
    return float(value)


def _check_chances(power: float, level: float) -> None:
    if not 0 < _check.real("level", level) < 1:
        raise ArgumentError("level", f"must lie in (0, 1); got {level:g}.")
    chance = (1 - level) / 2
    if not chance < _check.real("power", power) < 1:
        raise ArgumentError(
            "power",
            f"must lie in ({chance:g}, 1): even a difference of 0 reaches the lower end; "
            f"got {power:g}.",
        )
