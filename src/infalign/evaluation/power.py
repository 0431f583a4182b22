"""How many prompts, and how many samples of each, show a difference in win rate.

A win rate is a mean over P prompts, so its variance is (between + within) / P:

- within: sampling noise of one prompt's estimate, exact on the quantile axis for the procedure and
  the numbers of samples (`variance`). More samples per prompt lower it.
- between: how much the true effect differs from prompt to prompt. Only more prompts lower it. It is
  not known beforehand; `pilot.components` finds it in a pilot, and `BETWEEN` is what we saw.

Assumed: rewards without ties, prompts drawn independently, policies that are tilts of a given KL on
every prompt, and Student's intervals; a correction for skewness moves their ends, but hardly from
some dozens of prompts on. Ties lower the noise. A policy that wastes KL is nearer the reference,
where the noise is larger: plan with the KL that its quantiles show (`marginal_kl`), half to three
quarters of that of its sequences in our demonstration, or with a small one to be safe.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import nctdtr, stdtrit

from infalign import _check
from infalign.core import AbstractProcedure, Probit, TiltedPolicy, at_kl, bracketed_root, design

from .variance import check_ranks, difference_variance, win_rate_variance

BETWEEN = 0.06**2
"""Variance of the true win rate, or of a true difference, between prompts: a standard deviation of
6 points. The demonstration (128 prompts, 32 samples) showed 4 to 7 points, both for win rates and
for differences, under sampling, best-of-2 to 8 and worst-of-2 to 4; its standard error is 1 to 2
points. Prompts of one kind will lie below, a mixture of tasks above: find yours in a pilot."""


@dataclass(frozen=True)
class Plan:
    """An evaluation that is large enough, and what it rests on."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    difference: float
    """True difference in win rate that is to be seen: one half is 50 points."""

    prompts: int
    samples: int
    """Of each policy, per prompt."""

    reference_samples: int
    """Per prompt, shared by both policies."""

    between: float
    """Variance of the true difference between prompts."""

    within: float
    """Sampling variance of one prompt's estimate."""

    power: float
    """Chance that the interval of the difference ends above 0."""

    level: float
    """Of the interval."""

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
        """Responses to draw and score in all: two policies and the reference."""
        return self.prompts * (2 * self.samples + self.reference_samples)

    @property
    def sampling_share(self) -> float:
        """Share of the variance that samples could still remove; below a fifth or so, only more
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
) -> Plan:
    """The fewest prompts with which a difference in win rate is seen.

    Seen means that the `level` interval of `win_rate_difference`, paired by prompt, ends above 0,
    with chance `power`. The noise is that of comparing the optimum with a policy trained on
    normally distributed raw rewards, both at `kl` nats.

    - `procedure`, `against`: how policy and reference are decoded; by rank.
    - `difference`: true difference in win rate; in (0, 1).
    - `kl`: KL of both policies in nats, as far as it moves their quantiles; > 0.
    - `samples`, `reference_samples`: per prompt, of each policy and of the reference, at least
      what is drawn; as many for the reference unless given.
    - `between`: variance of the true difference between prompts, such as a pilot's; ≥ 0.

    >>> from infalign import BestOfN
    >>> plan = needed(BestOfN(4), 0.03, kl=0.25, samples=16)
    >>> plan.prompts, round(plan.half_width, 3), round(plan.sampling_share, 2)
    (228, 0.021, 0.86)
    """
    if not 0 < _check.real("difference", difference) < 1:
        raise ValueError(
            f"`difference` must lie in (0, 1); got {difference:g}. Three points are 0.03."
        )
    _check_chances(power, level)
    pair = _pair(procedure, against, kl)
    within = _within(procedure, pair, samples, reference_samples, against)
    variance = within + _between(between)

    def enough(prompts):
        return chance_to_see(prompts, difference, variance, level) >= power

    low, high = 1, 2  # the answer is above `low` and at most `high`
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return Plan(
        procedure,
        against or procedure,
        difference,
        high,
        samples,
        samples if reference_samples is None else reference_samples,
        between,
        within,
        power,
        level,
    )


def table(
    procedure: AbstractProcedure,
    difference: float,
    *,
    kl: float,
    samples: Sequence[int] | None = None,
    **options,
) -> tuple[Plan, ...]:
    """`needed` at several numbers of samples: 1, 2, 4, 8 and 16 times what is drawn unless given.

    Compare their `prompts`, and their `responses` where drawing is what costs. With just what is
    drawn, one subset tells what little it can: best-of-4 needs nine times the prompts, and twice
    the responses, that it needs with 16 samples. The fewest responses lie at 4 to 8 times what is
    drawn; from 16 times on `between` is about half of the variance, and more samples hardly help.
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
    """The smallest difference in win rate that `prompts` prompts show; arguments as for `needed`.

    More than 1 says that no difference is large enough.
    """
    _check.count("prompts", prompts, at_least=2)
    _check_chances(power, level)
    pair = _pair(procedure, against, kl)
    variance = _within(procedure, pair, samples, reference_samples, against) + _between(between)
    stderr = np.sqrt(variance / prompts)

    def excess(ratio):
        return chance_to_see(prompts, ratio * stderr, variance, level) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return float(bracketed_root(excess, 0.0, high, xtol=1e-12, rtol=1e-12) * stderr)


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

    The policy is the optimum at `kl` nats; `between` is the variance of its true win rate.
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
    """Chance that the interval of a mean over prompts ends above 0: noncentral t.

    - `difference`: the true mean.
    - `variance`: of one prompt's estimate, between and within together; its distribution is
      taken as normal, which the mean's is nearly from some dozens of prompts on.
    """
    reach = stdtrit(prompts - 1, (1 + level) / 2)
    return float(1 - nctdtr(prompts - 1, difference / np.sqrt(variance / prompts), reach))


def _pair(procedure, against, kl) -> tuple[TiltedPolicy, TiltedPolicy]:
    """The policies whose noise is planned for: what we train, and plain RLHF at the same KL."""
    check_ranks("procedure", procedure)
    check_ranks("against", against or procedure)
    return design(procedure, kl=kl, against=against).policy, at_kl(Probit(), kl)


def _within(procedure, pair, samples, reference_samples, against) -> float:
    return difference_variance(
        *pair,
        procedure,
        samples=samples,
        reference_samples=samples if reference_samples is None else reference_samples,
        against=against,
    )


def _between(value) -> float:
    if _check.real("between", value) < 0:
        raise ValueError(
            f"`between` must be at least 0; got {value:g}. A pilot whose estimate is below 0 saw "
            "no difference between prompts: use 0, or its estimate plus two standard errors."
        )
    return float(value)


def _check_chances(power, level) -> None:
    if not 0 < _check.real("level", level) < 1:
        raise ValueError(f"`level` must lie in (0, 1); got {level:g}.")
    chance = (1 - level) / 2
    if not chance < _check.real("power", power) < 1:
        raise ValueError(
            f"`power` must lie in ({chance:g}, 1), above what no difference at all reaches; "
            f"got {power:g}."
        )
