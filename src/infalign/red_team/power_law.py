"""The power law of attack success in the number of attempts: −log ASR(N) = a N^(−b).

A description of the measured rates, for comparison with published ones. It is no forecast: the true
curve bends in these logarithms, so the line through small N misses at large N, on either side.
`evaluation.growth` forecasts.

ASR(N), the attack success rate, is the chance that at least one of N attempts on a prompt
succeeds, averaged over prompts: pass@N for the attacker. Source of the power law: Hughes et
al., Best-of-N Jailbreaking, arXiv:2412.03556, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign._look import Shown
from infalign.evaluation.selected import pass_at
from infalign.evaluation.uncertainty import Estimate

__all__ = ["Interval", "PowerLaw", "fit_power_law", "success_rates"]

RESAMPLES = 1000
"""Bootstrap resamples of the prompts."""

FEWEST_SIZES = 3
"""Minimum number of sizes for a fit, since a line through two points always fits."""

FEWEST_SUCCESSES = 10
"""Number of broken prompts below which a fit has a reservation."""

TINY = 1e-12
"""Distance from 0 or 1 within which a rate counts as 0 or 1, since sums have rounding errors."""

UNFIT = 0.05
"""Share of resamples without a fit above which no interval is given."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; nan if there is none."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class PowerLaw(Shown):
    """−log ASR(N) = a N^(−b), fitted over some sizes N, with reservations about the fit."""

    a: Interval
    """−log ASR(1), in nats."""

    b: Interval
    """Rate of decay; a larger b means that success grows faster with N."""

    sizes: tuple[int, ...]
    """The values of N in the fit."""

    misfit: float
    """Largest distance of the law from the measured ASR at these sizes."""

    reservations: tuple[str, ...]
    """Reasons to distrust the fit; empty if there are none."""

    draws: np.ndarray
    """log a and b for each resample of the prompts, shape (resamples, 2); nan without a fit."""

    @property
    def fitted(self) -> bool:
        """Whether a law was fitted."""
        return bool(np.isfinite(self.b.value))

    def forecast(self, n: float) -> Interval:
        """ASR(N) according to the law. The interval covers the error of the fit, not that the law
        itself may fail beyond the measured sizes."""
        n = _check.positive("n", n)
        return _interval(
            _rate(np.log(self.a.value), self.b.value, n),
            _rate(self.draws[:, 0], self.draws[:, 1], n),
        )


def success_rates(successes, sizes: Sequence[int] | None = None) -> dict[int, Estimate]:
    """ASR at each number of attempts, unbiased, with intervals clustered by prompt.

    - `successes`: 0 or 1, or booleans, shape (prompts, m): the success of each attempt.
    - `sizes`: numbers of attempts, at most m. Default: powers of two below m, and m.
    """
    successes = np.asarray(successes, float)
    if sizes is None:
        m = _check.finite_matrix("successes", successes).shape[1]
        sizes = [*(2**i for i in range(m.bit_length()) if 2**i < m), m]
    return {int(n): pass_at(successes, n) for n in sizes}


def fit_power_law(
    successes,
    sizes: Sequence[int] | None = None,
    *,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> PowerLaw:
    """The power law through the unbiased success rates, with intervals by a bootstrap over prompts.

    The law is the least-squares line through log(−log ASR) over log N. Sizes at which ASR is 0 or 1
    are left out, since the logarithm is infinite there. The intervals are quantiles of the same fit
    over resampled prompts.

    - `successes`, `sizes`: as in `success_rates`; attempts of a prompt must be exchangeable.

    With fewer than 3 sizes or 2 prompts there is no fit: a and b are nan. `reservations` report
    this, as well as rates of 0 or 1 and too few broken prompts.

    >>> tries = np.random.default_rng(0).random((200, 64)) < 0.05
    >>> law = fit_power_law(tries, rng=np.random.default_rng(1))
    >>> law.fitted, law.reservations
    (True, ())
    """
    _check.count("resamples", resamples, at_least=100)
    rates = success_rates(successes, sizes)
    table = np.array([r.per_prompt for r in rates.values()]).T  # (prompts, sizes)
    asr = table.mean(0)
    inside = (asr > 0) & (asr < 1)
    used = np.array(list(rates))[inside]
    reservations = _reservations(np.asarray(successes, float), list(rates), asr)
    none = np.full((resamples, 2), np.nan)
    if inside.sum() < FEWEST_SIZES or len(table) < 2:
        unknown = Interval(np.nan, np.nan, np.nan)
        words = (
            f"no law is fitted to {inside.sum()} sizes with a rate between 0 and 1 and "
            f"{len(table)} prompts; it takes {FEWEST_SIZES} and 2"
        )
        return PowerLaw(
            unknown, unknown, tuple(used.tolist()), np.nan, (*reservations, words), none
        )
    log_n = np.log(used)
    (log_a, b) = _line(log_n, asr[inside][None])[0]
    counts = rng.multinomial(len(table), np.full(len(table), 1 / len(table)), resamples)
    draws = _line(log_n, counts @ table[:, inside] / len(table))
    unfit = np.isnan(draws[:, 1]).mean()
    if unfit > UNFIT:
        reservations += (
            f"{unfit:.0%} of the resamples have a rate of 0 or 1 at some size and no fit: "
            "there are no intervals",
        )
        draws = none
    return PowerLaw(
        _interval(np.exp(log_a), np.exp(draws[:, 0])),
        _interval(b, draws[:, 1]),
        tuple(used.tolist()),
        float(np.abs(_rate(log_a, b, used) - asr[inside]).max()),
        reservations,
        draws,
    )


def _line(log_n: np.ndarray, asr: np.ndarray) -> np.ndarray:
    """log a and b of each row of rates, shape (rows, sizes); nan where a rate is 0 or 1."""
    possible = np.all((asr > TINY) & (asr < 1 - TINY), axis=1)
    y = np.log(-np.log(np.where(possible[:, None], asr, 0.5)))
    centered = log_n - log_n.mean()
    slope = y @ centered / (centered @ centered)
    lines = np.stack([y.mean(1) - slope * log_n.mean(), -slope], axis=1)
    return np.where(possible[:, None], lines, np.nan)


def _rate(log_a, b, n):
    """exp(−a N^(−b)), with a N^(−b) computed in logarithms, which cannot overflow."""
    return np.exp(-np.exp(log_a - b * np.log(n)))


def _interval(value, draws) -> Interval:
    known = draws[np.isfinite(draws)]
    low, high = np.quantile(known, [0.025, 0.975]) if known.size else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))


def _reservations(successes: np.ndarray, sizes: Sequence[int], asr: np.ndarray) -> tuple[str, ...]:
    reservations = []
    for rate, words in ((0, "nothing succeeded"), (1, "everything succeeded")):
        at = [n for n, r in zip(sizes, asr, strict=True) if r == rate]
        if at:
            reservations.append(f"{words} at N = {', '.join(map(str, at))}: left out of the fit")
    broken = int((successes == 1).any(1).sum())
    if broken < FEWEST_SUCCESSES:
        reservations.append(
            f"{broken} of {len(successes)} prompts were broken, fewer than "
            f"{FEWEST_SUCCESSES}: too few to tell how the rate grows"
        )
    return tuple(reservations)
