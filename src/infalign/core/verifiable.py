"""Verifiable rewards: an answer passes or fails, with nothing in between.

With two rewards there is no real quantile axis, but the inference-time problem has a single
unknown, the policy's pass rate p. For a reference that passes with chance p₀,

    W = ½ + ½ [G(1 − p₀) − H(1 − p)],     KL = p log(p/p₀) + (1 − p) log((1 − p)/(1 − p₀)).

With best-of-n, W exceeds one half by ½ [(1 − p₀)ⁿ − (1 − p)ⁿ]: InfAlign is then pass@n training
(docs/maths.md, section 14).
"""

from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit, logit, rel_entr

from infalign import _check
from infalign.errors import ArgumentError, SolveError

from ._interface import AbstractProcedure, RankProcedure, require_by_rank, require_procedure
from ._roots import NoRoot, bracketed_root, falling_root
from ._shapes import ArrayLike, Float, Real

__all__ = ["VerifiableOptimum", "solve", "win_rate"]

CHANGES = np.linspace(-40, 40, 1601)
"""Changes of the log-odds that bracket the search for maxima."""

LOG_BETAS = (-60.0, 60.0)
"""Limits of the search for a KL budget."""


@dataclass(frozen=True)
class VerifiableOptimum:
    """The best policy for a reward that passes or fails, prompt by prompt."""

    pass_rate: Float[np.ndarray, "prompts"] = field(repr=False)
    """p."""

    reward_gap: Float[np.ndarray, "prompts"] = field(repr=False)
    """Training reward for a pass minus that for a failure, in units of win rate, ½ h(1 − p): with
    this reward and `beta`, KL-regularized RL solves the inference-time problem."""

    win_rate: float
    """Mean over prompts; ties count one half."""

    kl: float
    """Mean over prompts, in nats."""

    beta: float


def win_rate(
    pass_rate: Real[ArrayLike, "*any"],
    reference: Real[ArrayLike, "*any"],
    procedure: RankProcedure,
    against: AbstractProcedure | None = None,
) -> Float[np.ndarray, "*any"]:
    """Chance to beat the reference, elementwise; ties count one half.

    - `pass_rate`, `reference`: chance that the policy, and the reference, passes; in [0, 1].
    - `against`: how the reference is decoded. Default: `procedure`.

    >>> from infalign import BestOfN
    >>> round(float(win_rate(0.5, 0.2, BestOfN(4))), 5)      # ½ + ½ (.8⁴ - .5⁴)
    0.67355
    """
    procedure, against = _laws(procedure, against)
    failing = 1 - _check.unit_interval("pass_rate", pass_rate)
    reference_failing = 1 - _check.unit_interval("reference", reference)
    shapes = failing.shape, reference_failing.shape
    if shapes[0] != shapes[1] and () not in shapes:
        raise ValueError(
            "`pass_rate` and `reference` must have the same shape, or one must be a number; got "
            f"{shapes[0]} and {shapes[1]}."
        )
    return 0.5 + 0.5 * (against.cdf(reference_failing) - procedure.cdf(failing))


def solve(
    reference: Real[ArrayLike, "prompts"] | float,
    procedure: RankProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
) -> VerifiableOptimum:
    """The pass rates with the largest mean win rate, at a KL budget or at a strength β.

    - `reference`: the reference's chance to pass, one per prompt, in [0, 1]. Training cannot change
      a chance of 0 or 1; no KL is spent on such a prompt.
    - `kl`: budget in nats, as a mean over prompts; it is best spent with a single β.
    - `against`: how the reference, the policy's opponent, is decoded. Default: `procedure`.

    Exact: the best of all solutions of log-odds(p) − log-odds(p₀) = ½ h(1 − p) / β. Raises
    ValueError for arguments out of range and SolveError for a budget that cannot be spent.

    >>> from infalign import BestOfN
    >>> best = solve([0.2], BestOfN(4), beta=0.5)
    >>> [round(float(x), 4) for x in (best.pass_rate[0], best.win_rate, best.kl)]
    [0.3864, 0.6339, 0.0917]
    """
    procedure, against = _laws(procedure, against)
    start = np.atleast_1d(_check.unit_interval("reference", reference))
    if start.ndim != 1 or not start.size:
        raise ArgumentError(
            "reference", f"must be a non-empty list of pass rates; got shape {start.shape}."
        )
    _check.budget(kl, beta)

    def at(log_beta: float) -> VerifiableOptimum:
        return _at_beta(start, procedure, against, float(np.exp(log_beta)))

    if kl is None:
        return _at_beta(start, procedure, against, _check.positive("beta", beta))
    budget = _check.positive("kl", kl)
    low, high = LOG_BETAS
    try:
        log_beta = falling_root(
            lambda log_beta: at(log_beta).kl / budget - 1, 0.0, low=low, high=high, xtol=1e-14
        )
    except NoRoot as end:
        reached = at(end.at).kl
        raise SolveError(
            f"No pass rates cost kl={budget:g} nats on average from these `reference` rates: at "
            f"{reached:.4g} nothing more can be won. Ask for a smaller `kl`."
            if end.at < 0
            else f"No pass rates cost as little as kl={budget:g} nats on average. Ask for a larger "
            "`kl`."
        ) from None
    optimum = at(log_beta)
    if abs(optimum.kl / budget - 1) > 1e-6:
        raise SolveError(
            f"The best pass rates jump over kl={budget:g} nats at beta={optimum.beta:.6g}, where "
            f"two solutions are equally good. Ask for a `kl` outside the jump; {optimum.kl:.4g} is "
            "next to it."
        )
    return optimum


def _at_beta(
    start: np.ndarray, procedure: RankProcedure, against: AbstractProcedure, beta: float
) -> VerifiableOptimum:
    passing = start.copy()
    for i in np.flatnonzero((start > 0) & (start < 1)):
        passing[i] = _best(start[i], procedure, beta)
    return VerifiableOptimum(
        passing,
        reward_gap=0.5 * procedure.density(1 - passing),
        win_rate=float(np.mean(win_rate(passing, start, procedure, against))),
        kl=float(np.mean(_kl(passing, start))),
        beta=beta,
    )


def _best(start: float, procedure: RankProcedure, beta: float) -> float:
    """The pass rate with the largest W − β KL, among those where its derivative vanishes."""
    origin = logit(start)

    def slopes_at(change: Float[np.ndarray, "*any"]) -> Float[np.ndarray, "*any"]:
        """dJ/dp over β: ½ h(1 − p)/β minus the change of the log-odds."""
        return 0.5 * procedure.density(expit(-origin - change)) / beta - change

    def slope(change: float) -> float:
        return float(slopes_at(np.asarray(change)))

    slopes = slopes_at(CHANGES)
    tops = np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0))
    if tops.size == 0:  # the odds change by more than e⁴⁰
        return 1.0
    changes = [bracketed_root(slope, CHANGES[i], CHANGES[i + 1], xtol=1e-15) for i in tops]
    rates = expit(origin + np.array(changes))
    objectives = -0.5 * procedure.cdf(1 - rates) - beta * _kl(rates, start)
    return float(rates[np.argmax(objectives)])


def _kl(p: np.ndarray, q: np.ndarray | float) -> np.ndarray:
    return rel_entr(p, q) + rel_entr(1 - p, 1 - q)


def _laws(
    procedure: RankProcedure, against: AbstractProcedure | None
) -> tuple[RankProcedure, AbstractProcedure]:
    """Both procedures, after a check."""
    remedy = "For other procedures, build the world with `infalign.finite`."
    procedure = require_by_rank("procedure", procedure, remedy)
    return procedure, procedure if against is None else require_procedure("against", against)
