"""Transforms side by side: the win rate of each at a KL budget, beside the optimum's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from infalign import _check
from infalign.errors import SolveError

from ._certificates import displacement_concave, mixture_concave
from ._design import _check_procedure, _design, design
from ._few_samples import FewSamples
from ._policies import TiltedPolicy
from ._procedures import AbstractProcedure, RankProcedure
from ._roots import bracketed_root
from ._solvers.rank import frontier
from ._transforms import AbstractTransform, Exponential, Power


@dataclass(frozen=True)
class Candidate:
    """One transform at one KL budget."""

    transform: str
    kl: float
    beta: float
    win_rate: float
    loss: float
    """Win rate short of the optimum at the same budget."""

    stderr: float = 0.0
    """Standard error of `win_rate`; above 0 for a finite number of calibration samples."""


def compare(
    procedure: AbstractProcedure,
    transforms: Sequence[AbstractTransform],
    *,
    kl: float | Sequence[float],
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> list[Candidate]:
    """Win rate of each transform at each KL budget, after the optimum at that budget.

    - `transforms`: transforms, or anything with `spec` and `tilted(beta)` such as `RawRewards`;
      `best_exponential` and `best_power` stand for their best member at each budget.
    - `samples`: calibration samples per prompt, as for `design`.

    >>> from infalign import BestOfN, Identity
    >>> [f"{c.transform} {c.win_rate:.4f}" for c in compare(BestOfN(8), [Identity()], kl=0.5)]
    ['optimal 0.9299', 'identity 0.8036']
    """
    _check_procedure("procedure", procedure)
    against = procedure if against is None else _check_procedure("against", against)
    budgets = [_check.positive("kl", budget) for budget in np.atleast_1d(kl).tolist()]
    rows = []
    for budget, best in zip(budgets, _bests(procedure, against, budgets, samples), strict=True):
        stderr = getattr(best, "stderr", 0.0)
        rows.append(Candidate("optimal", best.kl, best.beta, best.win_rate, 0.0, stderr))
        for candidate in transforms:
            if callable(candidate) and not hasattr(candidate, "spec"):
                candidate = candidate(procedure, budget, against)
            if samples is None:
                policy = at_kl(candidate, budget)
                kl_, win, stderr = policy.kl, policy.win_rate(procedure, against), 0.0
                strength = policy.beta
            else:
                few = FewSamples(samples)
                strength, exponents = few.at_kl(candidate, budget)
                achieved = few.achieved(exponents, procedure, against)
                kl_, win, stderr = achieved.kl, achieved.win_rate, achieved.stderr
            loss = best.win_rate - win
            rows.append(Candidate(candidate.spec, kl_, strength, win, loss, stderr))
    return rows


def _bests(procedure, against, budgets, samples):
    if samples is not None:
        return [design(procedure, kl=b, against=against, samples=samples) for b in budgets]
    certified = isinstance(procedure, RankProcedure) and (
        mixture_concave(procedure) or displacement_concave(against)
    )
    if not certified:
        return [design(procedure, kl=b, against=against) for b in budgets]
    return [_design(procedure, against, o) for o in frontier(procedure, against, budgets)]


def at_kl(transform: AbstractTransform, kl: float) -> TiltedPolicy:
    """The policy trained on `transform` whose KL is `kl` nats; SolveError if it cannot reach it."""
    _check.positive("kl", kl)
    tilted = getattr(transform, "tilted", lambda beta: TiltedPolicy(transform, beta))

    def excess(log_beta):
        return np.log(max(tilted(float(np.exp(log_beta))).kl, 1e-300) / kl)

    # A weak tilt costs Var(Φ)/(2 β²) nats.
    middle = transform(np.linspace(0.005, 0.995, 199)) if callable(transform) else transform.middle
    start = float(np.log(max(np.std(middle), 1e-300)) - 0.5 * np.log(2 * kl))
    low = high = start
    while excess(high) > 0:
        high += 1
    while excess(low) < 0:
        low -= 1
        if low < start - 30:
            raise SolveError(
                f"`{transform.spec}` does not reach kl={kl:g} nats at any β that can be computed. "
                "Ask for a smaller KL or a sharper transform."
            )
    if low == high:
        return tilted(float(np.exp(start)))
    return tilted(float(np.exp(bracketed_root(excess, low, high, xtol=1e-13, rtol=1e-14))))


def best_exponential(
    procedure: AbstractProcedure, kl: float, against: AbstractProcedure | None = None
) -> Exponential:
    """The paper's family at its best t for a procedure and a budget."""
    return _best_member(Exponential, np.arcsinh, np.sinh, procedure, kl, against)


def best_power(
    procedure: AbstractProcedure, kl: float, against: AbstractProcedure | None = None
) -> Power:
    """Φ = u^a at its best a for a procedure and a budget."""
    return _best_member(Power, np.log, np.exp, procedure, kl, against, low=0.02)


def _best_member(
    family: Callable, squeeze, stretch, procedure, kl, against, low: float | None = None
):
    """The member of a one-parameter family that wins most, searched on a squeezed scale."""
    from scipy.optimize import minimize_scalar  # slow to import

    reach = 100.0 * max(procedure.draws, 4)
    ends = squeeze(-reach if low is None else low), squeeze(reach)

    def loss(x):
        try:
            return 1 - at_kl(family(float(stretch(x))), kl).win_rate(procedure, against)
        except SolveError:
            return 1.0

    grid = np.linspace(*ends, 25)
    losses = [loss(x) for x in grid]
    best = int(np.argmin(losses))
    around = grid[max(best - 1, 0)], grid[min(best + 1, 24)]
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    # Four digits say it as well, but for a win rate next to 1, where they may be beyond reach.
    rounded = family(float(f"{stretch(found.x):.4g}"))
    try:
        at_kl(rounded, kl)
    except SolveError:
        return family(float(stretch(found.x)))
    return rounded
