"""Design of the transform to train on, for a procedure and a KL budget, before any training.

The paper's analytical tool (InfAlign, arXiv:2412.19792, section 5): on the quantile axis, win rates
and KLs of every transform are integrals, the same for every model and reward.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Pictured, Shown, label
from infalign.errors import ArgumentError, SolveError

from ._certificates import certificate, displacement_concave, mixture_concave
from ._few_samples import CELLS, ROUGH_CELLS, FewSamples
from ._interface import AbstractProcedure, RankProcedure, require_by_rank, require_procedure
from ._policies import TiltedPolicy
from ._quadrature import Panels
from ._shapes import Float
from ._soft_procedures import SoftenedProcedure
from ._solvers.frontier import frontier
from ._solvers.highest import highest
from ._solvers.newton import Values
from ._solvers.point import Optimum
from ._solvers.rank import solve
from ._solvers.soft import solve_softened
from ._transforms import Tabulated

TABLE_POINTS = 48
"""Points of the tabulated optimum in each panel of the quadrature."""

WIDEST = 0.1
"""Width of a panel of the quadrature above which it counts as two for the table."""

ROUNDING = 1e-16
"""Relative rounding error of a table's values."""

ROUNDED = 1e-8
"""Largest change of Φ/β by rounding, in nats, for a table that starts at 0."""

WEIGHTY = 40.0
"""Nats below its highest value at which a density has no mass."""

NEAR_1 = 1e-6
"""Width of the last panel below which a table has distances from 1."""

POLICY_LIMIT = 1e-4
"""Largest difference between a policy's KL and the design's, relative above one nat."""


@dataclass(frozen=True)
class Design(Shown, Pictured):
    """The optimal transform for a procedure, and the result of training on it.

    With finite calibration (`samples` reference samples per prompt), `win_rate` and `kl` are
    expectations over prompts with random samples.
    """

    procedure: AbstractProcedure
    against: AbstractProcedure
    beta: float
    """KL strength, in units of win rate per nat."""

    win_rate: float
    kl: float
    """KL(policy ‖ reference) in nats."""

    solution: "Exact | Sampled" = field(repr=False, compare=False)
    """The optimum that `transform`, `gap` and `policy` are read from."""

    samples: int | None = None
    """Reference samples per prompt of the calibration, K; None for exact calibration."""

    stderr: float = 0.0
    """Standard error of `win_rate` at this `kl`; above 0 for finite calibration, where `win_rate`
    is a Monte Carlo average. `kl` is exact."""

    def _facts(self) -> dict[str, object]:
        facts: dict[str, object] = {
            "procedure": self.procedure,
            "against": self.against,
            "beta": self.beta,
            "win_rate": self.win_rate,
            "kl": self.kl,
        }
        if self.samples is not None:
            return facts | {"samples": self.samples, "stderr": self.stderr}
        return facts | {"gap": self.gap, "certificate": self.certificate}

    def _columns(self) -> dict[str, list[object]]:
        texts = {"procedure": self.procedure.spec, "against": self.against.spec}
        return {name: [value] for name, value in (self._facts() | texts).items()}

    def _draw(self, axes: Any) -> None:
        self.transform._draw(axes)
        title = f"{self.procedure.spec}: win rate {self.win_rate:.4f} at {self.kl:.3g} nats"
        label(axes, x="quantile u", y="reward Φ(u)", title=title)

    @property
    def transform(self) -> Tabulated:
        """The gradient Φ of the win rate, shifted to start at 0; together with `beta` it defines
        the objective W − β KL. Where β is tiny it is shifted to end at 0 (see `rounding`).

        With finite calibration, the best table: Φ at the K + 1 possible quantiles j/K of a
        response.
        """
        return self.solution.transform

    @property
    def gap(self) -> float:
        """No policy's W − β KL is larger by more than this; nan if no certificate exists."""
        return self.solution.certificate[0]

    @property
    def certificate(self) -> str:
        """The proof of `gap`, in a sentence."""
        return self.solution.certificate[1]

    @property
    def rounding(self) -> float:
        """Largest change of Φ/β, in nats, when `transform` is rounded to double precision, where
        the policy has mass.

        It is large if the win rate is so close to 1 that β is tiny compared with Φ: a value of 1e-6
        here becomes 1e-3 for a trainer with three digits less precision. Above 1e-8, `transform` is
        shifted to end at 0, which makes it exact at high quantiles.
        """
        phi = np.asarray(self.transform.phi)
        matters = phi >= phi[-1] - WEIGHTY * self.beta
        return float(ROUNDING * np.abs(phi[matters]).max() / self.beta)

    @property
    def optimum(self) -> Optimum:
        """The optimal policy at the nodes of a quadrature. Exact calibration only."""
        return self._exact("optimum").optimum

    @cached_property
    def policy(self) -> TiltedPolicy:
        """The optimal policy on the quantile axis, as training on `transform` gives it.

        Raises ValueError for a design with finite calibration, where every prompt has its own
        policy, and SolveError if a table in double precision cannot represent the policy.
        """
        self._exact("policy")
        policy = TiltedPolicy(self.transform, self.beta)
        if not abs(policy.kl - self.kl) <= POLICY_LIMIT * max(self.kl, 1.0):
            raise SolveError(
                f"The policy of `transform` at beta={self.beta:.3g} has a KL of {policy.kl:.6g} "
                f"nats in place of {self.kl:.6g}: a table in double precision cannot represent "
                f"the optimum, whose win rate is within {1 - self.win_rate:.1e} of 1. Ask for a "
                "smaller `kl`."
            )
        return policy

    def _exact(self, asked: str) -> "Exact":
        if isinstance(self.solution, Exact):
            return self.solution
        raise ArgumentError(
            "samples",
            f"must be None for `{asked}`; got {self.samples}: each prompt's policy depends on "
            "where its own samples fall. `win_rate` and `kl` are the expectations over prompts; "
            "for a single policy, call `design` without `samples`.",
        )


@dataclass(frozen=True)
class Exact(Shown):
    """The optimum for exact calibration."""

    procedure: AbstractProcedure
    against: AbstractProcedure
    optimum: Optimum

    @cached_property
    def transform(self) -> Tabulated:
        return _table(self.optimum, self.procedure, self.against)

    @cached_property
    def certificate(self) -> tuple[float, str]:
        return certificate(self.procedure, self.against, self.optimum)


@dataclass(frozen=True)
class Sampled(Shown):
    """The best table for finite calibration."""

    transform: Tabulated
    certificate = (
        float("nan"),
        "no certificate: one table serves all prompts, and J is not concave in it",
    )


def design(
    procedure: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
    against: AbstractProcedure | None = None,
    samples: int | None = None,
) -> Design:
    """The transform whose KL-regularized optimum has the highest win rate under `procedure`.

    - `procedure`: how the policy will be decoded.
    - `kl`: budget in nats per sequence; or `beta`: the strength in W − β KL. Give exactly one.
    - `against`: how the reference is decoded. Default: `procedure`.
    - `samples`: reference samples per prompt of the calibration, K. Default: exact calibration.
      With it, `kl` and `win_rate` are expectations over prompts.

    Raises ValueError for arguments out of range and SolveError if double precision cannot represent
    the optimum.

    >>> from infalign import BestOfN
    >>> round(design(BestOfN(8), kl=0.5).win_rate, 4)
    0.9299
    """
    require_procedure("procedure", procedure)
    against = procedure if against is None else require_procedure("against", against)
    _check.budget(kl, beta)
    if samples is not None:
        return _sampled(procedure, against, kl, beta, _check.count("samples", samples))
    return _exact(procedure, against, _optimum(procedure, against, kl, beta))


def roughly(best: Design, samples: int) -> Design:
    """The optimum at a design's KL with K calibration samples, to a tenth of a point of win rate:
    in half the time that `design(..., samples=K)` takes."""
    samples = _check.count("samples", samples)
    return _sampled(best.procedure, best.against, best.kl, None, samples, best)


def designs(
    procedure: AbstractProcedure,
    against: AbstractProcedure,
    kls: list[float],
    samples: int | None,
) -> list[Design]:
    """The design at each of several KL budgets; optima start from their neighbors if that is
    safe."""
    if samples is None and isinstance(procedure, RankProcedure) and _certified(procedure, against):
        return [_exact(procedure, against, o) for o in frontier(procedure, against, kls)]
    return [design(procedure, kl=kl, against=against, samples=samples) for kl in kls]


def _exact(procedure: AbstractProcedure, against: AbstractProcedure, optimum: Optimum) -> Design:
    exact = Exact(procedure, against, optimum)
    return Design(procedure, against, optimum.beta, optimum.win_rate, optimum.kl, exact)


def _certified(procedure: RankProcedure, against: AbstractProcedure) -> bool:
    """Whether duality leaves only one stationary point."""
    return mixture_concave(procedure) or displacement_concave(against)


def _optimum(
    procedure: AbstractProcedure,
    against: AbstractProcedure,
    kl: float | None,
    beta: float | None,
) -> Optimum:
    if isinstance(procedure, SoftenedProcedure):
        return solve_softened(procedure, against, kl=kl, beta=beta)
    procedure = require_by_rank(
        "procedure", procedure, "Subclass RankProcedure, or SoftenedProcedure."
    )
    find = solve if _certified(procedure, against) else highest
    return find(procedure, against, kl=kl, beta=beta)


def _table(optimum: Optimum, procedure: AbstractProcedure, against: AbstractProcedure) -> Tabulated:
    """Φ on a grid, with its exact slope. The grid is fine enough that the table's tilt is the
    optimum."""
    curve, grid = optimum.curve, optimum.curve.grid
    if not isinstance(procedure, RankProcedure):
        return _jumping_table(
            grid,
            grid.spread(TABLE_POINTS)[0],
            grid.refine(optimum.gradient, TABLE_POINTS),
            procedure.breaks,
        )
    # The table's cubics are less exact in wide panels than the panels' polynomials.
    narrow = grid.cut(2 * grid.half[:, 0] > WIDEST)
    u, distance = narrow.spread(TABLE_POINTS)
    # Rounding may leave a point an ulp outside the axis or out of order.
    u = np.append(np.clip(np.maximum.accumulate(u), 0, 1), 1.0)
    distance = np.append(np.clip(distance, 0, 1), 0.0)

    def refined(values: Values, end: float) -> Float[np.ndarray, "points"]:
        return np.append(narrow.refine(grid.interpolate(values, narrow), TABLE_POINTS), end)

    # Φ' = h(F) g, from Φ(u) = −∫_u^1 h(F) dG + const; its integral is Φ(1) − Φ(0).
    rate = procedure.density(curve.cdf) * against.density_on(grid)
    total = grid.integrate(rate)
    cdf = np.clip(refined(curve.cdf, 1.0), 0, 1)
    opponent = np.where(u < 0.5, against.density(u), against.density_below_1(distance))
    slope = np.maximum(procedure.density(cdf) * opponent, 0)
    if ROUNDING * total / optimum.beta > ROUNDED:
        phi = _ending_at_0(narrow, np.maximum(grid.interpolate(rate, narrow), 0))
        slope = _gentle(phi, distance, slope)
    else:
        phi = refined(optimum.gradient, total)
        phi[0] = 0
        # Where Φ is flat up to rounding, rounding must not make it fall.
        phi = np.maximum.accumulate(phi)
    near_1 = bool(narrow.distances[-2] < NEAR_1)
    new = np.append(np.diff(u) > 0, True)
    if near_1:  # floating-point numbers near 1 are too coarse
        new = np.where(u < 0.5, new, np.append(np.diff(distance) < 0, True))
    if near_1:
        return Tabulated(
            tuple(u[new]), tuple(phi[new]), tuple(slope[new]), True, tuple(distance[new])
        )
    u, phi, slope, cdf = u[new], phi[new], slope[new], cdf[new]
    # Where g jumps Φ has a kink: a point with the slope on each side.
    at = np.searchsorted(u, against.breaks)
    left = procedure.density(cdf[at]) * against.density(np.nextafter(u[at], 0))
    u, phi, slope = (np.insert(x, at, y) for x, y in ((u, u[at]), (phi, phi[at]), (slope, left)))
    return Tabulated(tuple(u), tuple(phi), tuple(slope))


def _ending_at_0(grid: Panels, rate: Values) -> Float[np.ndarray, "points"]:
    """−∫_u^1 of a rate at the points of a table: exact near 1, where the policy has its mass."""
    below, edges = grid.cumulate_down(rate)
    phi = -grid.refine(below, TABLE_POINTS).reshape(len(grid), TABLE_POINTS)
    # Where Φ changes by orders of magnitude within a panel, the density there is 0 and the panel's
    # polynomial overshoots.
    phi = np.clip(phi, -edges[:-1, None], -edges[1:, None])
    return np.maximum.accumulate(np.append(phi.ravel(), 0.0))


def _gentle(
    phi: Float[np.ndarray, "points"],
    distance: Float[np.ndarray, "points"],
    slope: Float[np.ndarray, "points"],
) -> Float[np.ndarray, "points"]:
    """Slopes with which a cubic rises between rising points: at most three times the chords'.

    Source: Fritsch and Carlson, Monotone piecewise cubic interpolation, SIAM Journal on Numerical
    Analysis 17 (1980).
    """
    width = -np.diff(distance)
    chords = np.where(width > 0, np.diff(phi) / np.where(width > 0, width, 1), np.inf)
    return np.minimum(slope, 3 * np.minimum(np.append(chords, np.inf), np.append(np.inf, chords)))


def _jumping_table(
    grid: Panels,
    u: Float[np.ndarray, "points"],
    phi: Float[np.ndarray, "points"],
    breaks: tuple[float, ...],
) -> Tabulated:
    """Φ with both its values at each jump."""
    panels = phi.reshape(len(grid), TABLE_POINTS)
    # Φ at each panel's right edge, which `refine` leaves out, by linear extrapolation.
    ends = 2 * panels[:, -1] - panels[:, -2]
    at = np.searchsorted(grid.edges, breaks)
    u = np.append(np.insert(u, at * TABLE_POINTS, breaks), 1.0)
    phi = np.append(np.insert(phi, at * TABLE_POINTS, ends[at - 1]), ends[-1])
    new = np.append(np.diff(u) > 0, True) | np.isin(u, breaks)
    u, phi = u[new], phi[new] - phi[0]
    return Tabulated(tuple(u), tuple(phi), increasing=bool((np.diff(phi) >= 0).all()))


def _sampled(
    procedure: AbstractProcedure,
    against: AbstractProcedure,
    kl: float | None,
    beta: float | None,
    samples: int,
    best: Design | None = None,
) -> Design:
    """- `best`: a design at this KL, whose optimum the table starts from; then a tenth of a point
    of win rate is enough."""
    if not isinstance(procedure, RankProcedure):
        raise ArgumentError(
            "samples",
            "needs a procedure that selects by rank, since a finite calibration knows ranks only; "
            f"got {procedure!r}. Leave `samples` out.",
        )
    few = FewSamples(samples, CELLS if best is None else ROUGH_CELLS)
    start = _optimum(procedure, against, kl, beta) if best is None else best.optimum
    means = few.means(start.curve.grid.nodes.ravel(), start.gradient.ravel())
    values, beta = few.best_table(procedure, against, means, start.beta, kl=kl, beta=beta)
    achieved = few.achieved(values / beta, procedure, against)
    table = Tabulated(tuple(few.quantiles), tuple(np.maximum.accumulate(values - values[0])))
    return Design(
        procedure,
        against,
        beta,
        achieved.win_rate,
        achieved.kl,
        Sampled(table),
        samples,
        achieved.stderr,
    )
