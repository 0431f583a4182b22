"""Which transform to train on, for a procedure and a KL budget, before any training.

The paper's analytical tool (InfAlign, arXiv:2412.19792, section 5): on the quantile axis win rates
and KLs of every transform are integrals, the same for every model and reward.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from infalign import _check
from infalign.errors import SolveError

from ._certificates import certificate, displacement_concave, mixture_concave, rivals
from ._few_samples import FewSamples
from ._policies import TiltedPolicy
from ._procedures import AbstractProcedure, RankProcedure
from ._quadrature import Panels
from ._solvers.point import Optimum
from ._solvers.rank import solve
from ._solvers.soft import solve_softened
from ._transforms import Tabulated

TABLE_POINTS = 48
"""Points of the tabulated optimum in each panel of the quadrature."""

ROUNDING = 1e-16
"""Relative rounding of a table's values."""


@dataclass(frozen=True)
class Design:
    """The optimal transform for a procedure, and what it achieves."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    beta: float
    """KL strength, in units of win rate per nat."""

    win_rate: float
    kl: float
    """KL(policy ‖ reference) in nats."""

    optimum: Optimum = field(repr=False, compare=False)
    """The policy at the nodes of a quadrature."""

    @cached_property
    def transform(self) -> Tabulated:
        """The win rate's own gradient Φ, from 0: with `beta` it states the objective W − β KL."""
        return _table(self.optimum, self.procedure, self.against)

    @cached_property
    def _certificate(self) -> tuple[float, str]:
        return certificate(self.procedure, self.against, self.optimum)

    @property
    def gap(self) -> float:
        """No policy has a larger W − β KL by more than this; nan where no certificate exists."""
        return self._certificate[0]

    @property
    def certificate(self) -> str:
        """How `gap` is known, in a sentence."""
        return self._certificate[1]

    @property
    def rounding(self) -> float:
        """Nats by which rounding `transform` to double precision may move Φ/β.

        Large where the win rate is so close to 1 that β is tiny beside Φ: what is 1e-6 here is
        1e-3 for a trainer that computes in single precision less three digits.
        """
        return ROUNDING * self.transform.phi[-1] / self.beta

    @cached_property
    def policy(self) -> TiltedPolicy:
        """The optimal policy on the quantile axis, as training on `transform` gives it.

        Raises SolveError where a table in double precision cannot state it.
        """
        if self.rounding > 1e-4:
            raise SolveError(
                f"At kl={self.kl:.4g} the win rate is within {1 - self.win_rate:.1e} of 1 and "
                f"beta={self.beta:.1e}: rounding alone moves `transform` / `beta` by "
                f"{self.rounding:.1e} nats. Ask for a smaller `kl`."
            )
        return TiltedPolicy(self.transform, self.beta)


@dataclass(frozen=True)
class SampledDesign:
    """The best table for K calibration samples per prompt, and what it achieves on average."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    samples: int
    """Reference samples per prompt, K."""

    transform: Tabulated
    """Φ at the K + 1 quantiles j/K that a response can have, from 0."""

    beta: float
    win_rate: float
    """Expected over prompts, whose reference samples fall at random."""

    kl: float
    """Expected over prompts, in nats."""

    stderr: float
    """Standard error of `win_rate`: the expectation is a Monte Carlo one."""

    gap: float = float("nan")
    """nan: one table serves all prompts, and J is not concave in it."""

    certificate: str = "no certificate: one table serves all prompts, and J is not concave in it"


def design(
    procedure: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> Design | SampledDesign:
    """The transform whose KL-regularised optimum wins most under `procedure`.

    - `procedure`: how the policy will be decoded.
    - `kl`: budget in nats per sequence; or `beta`: the strength in W − β KL. Exactly one.
    - `against`: how the reference it must beat is decoded; `procedure` unless given.
    - `samples`: reference samples per prompt of the calibration, K; exact calibration unless
      given. With it `kl` and `win_rate` are expectations over prompts.

    Raises ValueError for arguments out of range and SolveError where double precision cannot hold
    the optimum.

    >>> from infalign import BestOfN
    >>> round(design(BestOfN(8), kl=0.5).win_rate, 4)
    0.9299
    """
    _check_procedure("procedure", procedure)
    against = procedure if against is None else _check_procedure("against", against)
    _check_budget(kl, beta)
    if samples is not None:
        return _sampled(procedure, against, kl, beta, _check.count("samples", samples))
    return _design(procedure, against, _optimum(procedure, against, kl, beta))


def _check_procedure(name, value) -> AbstractProcedure:
    if not isinstance(value, AbstractProcedure):
        raise ValueError(
            f"`{name}` must be a procedure such as BestOfN(4); got {value!r}. "
            "Text becomes one with `infalign.parse_procedure`."
        )
    return value


def _check_budget(kl, beta) -> None:
    if (kl is None) == (beta is None):
        raise ValueError(
            f"Give exactly one of `kl` (nats) and `beta` (win rate per nat); got kl={kl}, "
            f"beta={beta}."
        )
    if kl is None:
        _check.positive("beta", beta)
    else:
        _check.positive("kl", kl)


def _design(procedure, against, found: Optimum) -> Design:
    return Design(procedure, against, found.beta, found.win_rate, found.kl, found)


def _optimum(procedure, against, kl, beta) -> Optimum:
    if not isinstance(procedure, RankProcedure):
        return solve_softened(procedure, against, kl=kl, beta=beta)
    found = solve(procedure, against, kl=kl, beta=beta)
    if mixture_concave(procedure) or displacement_concave(against):
        return found
    return max(
        [found, *rivals(procedure, against, found, kl)],
        key=lambda o: o.win_rate - (0 if beta is None else beta * o.kl),
    )


def _table(found: Optimum, procedure, against) -> Tabulated:
    """Φ on a grid so fine, and with its exact slope, that its tilt is the optimum's."""
    curve, grid = found.curve, found.curve.grid
    u, phi = grid.refine(found.gradient, TABLE_POINTS)
    if not isinstance(procedure, RankProcedure):
        return _jumping_table(grid, u, phi, procedure.breaks)
    _, cdf = grid.refine(curve.cdf, TABLE_POINTS)
    total = grid.integrate(procedure.density(curve.cdf) * against.density(grid.nodes))
    u, cdf, phi = np.append(u, 1.0), np.append(np.clip(cdf, 0, 1), 1.0), np.append(phi, total)
    phi[0] = 0
    slope = procedure.density(cdf) * against.density(u)
    # Panels near 1 may be finer than floating-point numbers there.
    new = np.append(np.diff(u) > 0, True)
    # Where Φ is flat to rounding, rounding must not make it fall.
    return Tabulated(
        tuple(u[new]), tuple(np.maximum.accumulate(phi[new])), tuple(np.maximum(slope[new], 0))
    )


def _jumping_table(grid: Panels, u, phi, breaks) -> Tabulated:
    """Φ with both its values at each jump."""
    panels = phi.reshape(len(grid), TABLE_POINTS)
    ends = 2 * panels[:, -1] - panels[:, -2]
    at = np.searchsorted(grid.edges, breaks)
    u = np.append(np.insert(u, at * TABLE_POINTS, breaks), 1.0)
    phi = np.append(np.insert(phi, at * TABLE_POINTS, ends[at - 1]), ends[-1])
    new = np.append(np.diff(u) > 0, True) | np.isin(u, breaks)
    u, phi = u[new], phi[new] - phi[0]
    return Tabulated(tuple(u), tuple(phi), increasing=bool((np.diff(phi) >= 0).all()))


def _sampled(procedure, against, kl, beta, samples) -> SampledDesign:
    few = FewSamples(samples)
    exact = _optimum(procedure, against, kl, beta)
    curve = exact.curve
    start = few.means(curve.grid.nodes.ravel(), exact.gradient.ravel())
    values, beta = few.best_table(procedure, against, start, exact.beta, kl=kl, beta=beta)
    achieved = few.achieved(values / beta, procedure, against)
    table = Tabulated(tuple(few.quantiles), tuple(np.maximum.accumulate(values - values[0])))
    return SampledDesign(
        procedure,
        against,
        samples,
        table,
        beta,
        achieved.win_rate,
        achieved.kl,
        achieved.stderr,
    )
