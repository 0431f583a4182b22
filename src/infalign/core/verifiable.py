"""Verifiable rewards: an answer passes or fails, and nothing lies between.

Two atoms have no quantile axis worth the name; but with them the inference-time problem has one
unknown, the policy's pass rate p. For a reference that passes with chance p₀,

    W = ½ + ½ [G(1 − p₀) − H(1 − p)],     KL = p log(p/p₀) + (1 − p) log((1 − p)/(1 − p₀)):

with best-of-n, ½ [(1 − p₀)ⁿ − (1 − p)ⁿ] above one half. InfAlign is then pass@n training.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit, rel_entr

from infalign import _check
from infalign.errors import SolveError

from ._procedures import AbstractProcedure, RankProcedure
from ._roots import bracketed_root

SCAN = np.linspace(-40, 40, 1601)
"""Changes of the log-odds among which maxima are looked for."""


@dataclass(frozen=True)
class VerifiableOptimum:
    """The best policy for a reward that passes or fails, prompt by prompt."""

    pass_rate: np.ndarray = field(repr=False)
    """p, shape (prompts,)."""

    reward_gap: np.ndarray = field(repr=False)
    """Training reward of passing minus that of failing, per prompt, in units of win rate: with
    `beta` it makes KL-regularised RL solve the inference-time problem. ½ h(1 − p)."""

    win_rate: float
    """Mean over prompts; ties count one half."""

    kl: float
    """Mean over prompts, in nats."""

    beta: float


def win_rate(
    pass_rate, reference, procedure: RankProcedure, against: AbstractProcedure | None = None
) -> np.ndarray:
    """Chance to beat the reference, ties counting one half; one per prompt.

    - `pass_rate`, `reference`: chances to pass of policy and reference, in [0, 1].

    >>> from infalign import BestOfN
    >>> round(float(win_rate(0.5, 0.2, BestOfN(4))), 5)      # ½ + ½ (.8⁴ - .5⁴)
    0.67355
    """
    _by_rank(procedure)
    against = procedure if against is None else against
    failing = 1 - _check.unit_interval("pass_rate", pass_rate)
    reference_failing = 1 - _check.unit_interval("reference", reference)
    return 0.5 + 0.5 * (against.cdf(reference_failing) - procedure.cdf(failing))


def solve(
    reference,
    procedure: RankProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
) -> VerifiableOptimum:
    """The pass rates that win most at a KL budget, on average over prompts, or at a strength β.

    - `reference`: the reference's chance to pass, one per prompt, in [0, 1]. Where it is 0 or 1
      no training changes it, and no KL is spent.
    - `kl`: budget in nats, as a mean over the prompts, of which one β spends it best.

    Exact: log-odds(p) − log-odds(p₀) = ½ h(1 − p) / β, of several solutions the best. Raises
    ValueError for arguments out of range and SolveError for a budget that nothing can be spent on.

    >>> from infalign import BestOfN
    >>> best = solve([0.2], BestOfN(4), beta=0.5)
    >>> [round(float(x), 4) for x in (best.pass_rate[0], best.win_rate, best.kl)]
    [0.3864, 0.6339, 0.0917]
    """
    _by_rank(procedure)
    start = np.atleast_1d(_check.unit_interval("reference", reference))
    if (kl is None) == (beta is None):
        raise ValueError(
            f"Give exactly one of `kl` (nats) and `beta` (win rate per nat); got kl={kl}, "
            f"beta={beta}."
        )
    if beta is not None:
        return _at_beta(start, procedure, against, _check.positive("beta", beta))
    _check.positive("kl", kl)

    def excess(log_beta):
        return _at_beta(start, procedure, against, float(np.exp(log_beta))).kl / kl - 1

    low = high = 0.0
    while excess(high) > 0:
        high += 1
    while excess(low) < 0:
        low -= 1
        if low < -60:
            most = _at_beta(start, procedure, against, float(np.exp(low))).kl
            raise SolveError(
                f"No pass rates cost kl={kl:g} nats on average: at {most:.4g} nothing more can be "
                "won. Ask for a smaller `kl`."
            )
    log_beta = high if low == high else bracketed_root(excess, low, high, xtol=1e-14, rtol=1e-14)
    found = _at_beta(start, procedure, against, float(np.exp(log_beta)))
    if abs(found.kl / kl - 1) > 1e-6:
        raise SolveError(
            f"The best pass rates jump over kl={kl:g} nats at beta={np.exp(log_beta):.6g}, where "
            f"two of them are equally good. Ask for a `kl` outside of the jump; {found.kl:.4g} is "
            "next to it."
        )
    return found


def _at_beta(start, procedure, against, beta) -> VerifiableOptimum:
    passing = start.copy()
    for i in np.flatnonzero((start > 0) & (start < 1)):
        passing[i] = _best(start[i], procedure, beta)
    return VerifiableOptimum(
        passing,
        0.5 * procedure.density(1 - passing),
        float(np.mean(win_rate(passing, start, procedure, against))),
        float(np.mean(_kl(passing, start))),
        beta,
    )


def _best(start: float, procedure, beta: float) -> float:
    """The pass rate with the largest W − β KL, of all where its derivative vanishes."""
    origin = logit(start)

    def slope(change):
        return 0.5 * procedure.density(expit(-origin - change)) / beta - change

    slopes = slope(SCAN)
    tops = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    if tops.size == 0:  # a change of the odds beyond e⁴⁰
        return 1.0
    changes = [bracketed_root(slope, SCAN[i], SCAN[i + 1], xtol=1e-15, rtol=1e-14) for i in tops]
    rates = expit(origin + np.array(changes))
    values = -0.5 * procedure.cdf(1 - rates) - beta * _kl(rates, start)
    return float(rates[np.argmax(values)])


def _kl(p, q):
    return rel_entr(p, q) + rel_entr(1 - p, 1 - q)


def _by_rank(procedure) -> None:
    if not isinstance(procedure, RankProcedure):
        raise ValueError(
            f"`procedure` must keep by rank, such as BestOfN(4); got {procedure!r}. For others "
            "build the world with `infalign.finite`."
        )
