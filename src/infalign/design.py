"""Which transform to train on, for a procedure and a KL budget, before any training.

The paper's analytical tool (InfAlign, arXiv:2412.19792, section 5): on the quantile axis win rates
and KLs of every transform are integrals, the same for every model and reward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from . import _check
from .errors import SolveError
from .policies import TiltedPolicy
from .procedures import AbstractProcedure
from .solve import Optimum, solve
from .transforms import AbstractTransform, Tabulated

TABLE_POINTS = 48
"""Points of the tabulated optimum in each panel of the quadrature."""


@dataclass(frozen=True)
class Design:
    """The optimal transform for a procedure, and what it achieves."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    transform: Tabulated
    """The win rate's own gradient Φ, from 0: with `beta` it states the objective W − β KL."""

    beta: float
    """KL strength, in units of win rate per nat."""

    win_rate: float
    kl: float
    """KL(policy ‖ reference) in nats."""

    gap: float
    """No policy has a larger W − β KL by more than this; nan where no certificate exists."""

    @property
    def policy(self) -> TiltedPolicy:
        """The optimal policy on the quantile axis."""
        return TiltedPolicy(self.transform, self.beta)


@dataclass(frozen=True)
class Candidate:
    """One transform at one KL budget."""

    transform: str
    kl: float
    beta: float
    win_rate: float
    loss: float
    """Win rate short of the optimum at the same budget."""


def design(
    procedure: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
) -> Design:
    """The transform whose KL-regularised optimum wins most under `procedure`.

    - `procedure`: how the policy will be decoded.
    - `kl`: budget in nats per sequence; or `beta`: the strength in W − β KL. Exactly one.
    - `against`: how the reference it must beat is decoded; `procedure` unless given.

    Raises ValueError for arguments out of range and SolveError if the solver stalls.

    >>> from infalign import BestOfN
    >>> round(design(BestOfN(8), kl=0.5).win_rate, 4)
    0.9299
    """
    against = against or procedure
    found = solve(procedure, against, kl=kl, beta=beta)
    return Design(
        procedure,
        against,
        _table(found, procedure, against),
        found.beta,
        found.win_rate,
        found.kl,
        found.gap,
    )


def _table(found: Optimum, procedure, against) -> Tabulated:
    """Φ on a grid so fine, and with its exact slope h(F) g, that its tilt is the optimum's."""
    grid = found.grid
    u, cdf = grid.refine(grid.cumulate(found.density), TABLE_POINTS)
    _, phi = grid.refine(found.gradient, TABLE_POINTS)
    total = grid.integrate(
        procedure.density(np.clip(grid.cumulate(found.density), 0, 1)) * against.density(grid.nodes)
    )
    u, cdf, phi = np.append(u, 1.0), np.append(cdf, 1.0), np.append(phi, total)
    phi[0] = 0
    slope = procedure.density(np.clip(cdf, 0, 1)) * against.density(u)
    # Where Φ is flat to rounding, rounding must not make it fall.
    return Tabulated(tuple(u), tuple(np.maximum.accumulate(phi)), tuple(slope))


def compare(
    procedure: AbstractProcedure,
    transforms: Sequence[AbstractTransform],
    *,
    kl: float | Sequence[float],
    against: AbstractProcedure | None = None,
) -> list[Candidate]:
    """Win rate of each transform at each KL budget, after the optimum at that budget.

    >>> from infalign import BestOfN, Identity
    >>> [f"{c.transform} {c.win_rate:.4f}" for c in compare(BestOfN(8), [Identity()], kl=0.5)]
    ['optimal 0.9299', 'identity 0.8036']
    """
    rows = []
    for budget in np.atleast_1d(kl).tolist():
        best = design(procedure, kl=budget, against=against)
        rows.append(Candidate("optimal", best.kl, best.beta, best.win_rate, 0.0))
        for transform in transforms:
            policy = at_kl(transform, budget)
            win = policy.win_rate(procedure, against)
            rows.append(Candidate(transform.spec, policy.kl, policy.beta, win, best.win_rate - win))
    return rows


def at_kl(transform: AbstractTransform, kl: float) -> TiltedPolicy:
    """The policy trained on `transform` whose KL is `kl` nats; SolveError if it cannot reach it."""
    _check.positive("kl", kl)

    def excess(log_beta):
        return TiltedPolicy(transform, float(np.exp(log_beta))).kl - kl

    # KL falls with β. Walk down in factors of e, from a β at which the tilt is nearly flat.
    inside = transform(np.array([1e-12, 0.5, 1 - 1e-12]))
    start = 6 + float(np.log(max(np.ptp(inside), 1e-300)))
    high = start
    while excess(high) > 0:
        high += 2
    low = high - 1
    while excess(low) < 0:
        low -= 1
        if low < start - 30:
            raise SolveError(
                f"`{transform.spec}` does not reach kl={kl:g} nats at any β that can be computed. "
                "Ask for a smaller KL or a sharper transform."
            )
    root = brentq(excess, low, low + 1, xtol=1e-13)
    return TiltedPolicy(transform, float(np.exp(root)))
