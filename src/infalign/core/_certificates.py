"""How far a policy can be from the optimum: bounds by duality if they exist, else enumeration.

Two facts, proved in docs/maths.md, cover the procedures in common use:

- H convex (best-of-n): the win rate is concave in the policy's density f.
- G concave (the opponent is sampled, or selects its worst): the win rate is concave in the policy's
  quantile function V = F⁻¹, and so is −KL. This covers worst-of-n against itself.

Each of them bounds the whole objective W − β KL by its value at one policy and a closed form.
Otherwise every stationary point is a root of a function of one number, which is scanned.
"""

import numpy as np

from ._interface import AbstractProcedure, RankProcedure
from ._policies import Curve
from ._soft_procedures import Rewind
from ._solvers.point import Optimum
from ._solvers.rank import Path
from ._solvers.rewind import rewind_objective
from ._solvers.shots import SAME, stationary_points

MISSED = 1e-9
"""Shortfall of a scan's best W − β KL above which the scan missed the optimum."""

TOP_SHARES = 24
"""Number of quantiles of policies that are the reference above one of them."""

STRONGEST = 30.0
"""Largest KL of such a policy, in nats."""

SHAPE_POINTS = np.sort(
    np.concatenate([0.5 ** np.arange(1, 40), 1 - 0.5 ** np.arange(2, 40), np.linspace(0, 1, 2001)])
)
"""Quantiles at which the sign of a law's slope is checked."""


def mixture_concave(procedure: RankProcedure) -> bool:
    """Whether W is concave in the policy's density: H is convex."""
    return bool((procedure.slope(SHAPE_POINTS) >= 0).all())


def displacement_concave(against: AbstractProcedure) -> bool:
    """Whether W is concave in the policy's quantile function: the opponent's G is concave."""
    return bool((np.diff(against.density(SHAPE_POINTS)) <= 0).all())


def certificate(
    procedure: AbstractProcedure, against: AbstractProcedure, optimum: Optimum
) -> tuple[float, str]:
    """How much larger W − β KL can be for any other policy, and a sentence with the reason."""
    if isinstance(procedure, Rewind):
        return (
            rewind_gap(optimum, procedure, against),
            "enumeration: one number couples the responses, and all its values were tried",
        )
    if not isinstance(procedure, RankProcedure):
        return np.nan, "no certificate: the optimum is the end of one ascent"
    if mixture_concave(procedure):
        return mixture_gap(optimum), "duality: the win rate is concave in the policy's density"
    if displacement_concave(against):
        return (
            displacement_gap(optimum, procedure, against),
            "duality: the win rate is concave in the policy's quantile function",
        )
    witness = of_top_shares(procedure, against, optimum.beta)
    for far in (False, True):
        points = stationary_points(procedure, against, optimum.beta, far=far)
        gain = max([objective(p, optimum.beta) for p in points], default=np.nan)
        missed = witness - gain > MISSED
        gain -= objective(optimum, optimum.beta)
        if gain >= -MISSED and not missed:
            if not any(abs(p.kl - optimum.kl) < SAME * max(1, optimum.kl) for p in points):
                points.append(optimum)
            number = f"{len(points)} stationary point{'s'[: len(points) > 1]}"
            return max(gain, 0.0), f"enumeration: {number} in a scan of shots"
    # The scan missed the point to be certified, or a better one.
    return np.nan, "no certificate: the stationary points could not all be followed"


def of_top_shares(procedure: RankProcedure, against: AbstractProcedure, beta: float) -> float:
    """The largest W − β KL of the policies that are the reference above some quantile.

    It bounds the optimum from below, so a scan whose points are all worse is not complete.
    """
    path, most = Path(procedure, against), min(1 / beta, STRONGEST)
    costs = np.geomspace(1e-3 * most, most, TOP_SHARES)
    return max(1 - path.spent_at_the_top(kl) - beta * kl for kl in costs)


def objective(optimum: Optimum, beta: float) -> float:
    """W − β KL."""
    return optimum.win_rate - beta * optimum.kl


def mixture_gap(optimum: Optimum) -> float:
    """max J − J(f) ≤ β (log ∫ e^{Φ/β} − ∫ f Φ/β + KL(f)), for W concave in f.

    W lies below its tangent at f, whose KL-regularized maximum has a closed form.
    """
    curve, grid = optimum.curve, optimum.curve.grid
    exponent = optimum.exponent
    tilt = Curve(grid, exponent)
    mass = np.where(curve.density > 0, curve.density, 0)
    # log f and Φ/β both fall below −10²⁰ where f is 0.
    short = np.where(mass > 0, curve.log_density - (exponent - tilt.log_partition), 0)
    return max(optimum.beta * grid.integrate(mass * short), 0.0)


def displacement_gap(
    optimum: Optimum, procedure: RankProcedure, against: AbstractProcedure
) -> float:
    """max J − J(f) ≤ μ − β + ∫ A + β ∫ f log(β f / (μ + A)), A(v) = ∫₀^v h(F) f dG, for any μ ≥ 0.

    For W concave in V: maximizing W's tangent over all V, with the exact −KL = ∫ log V', is a
    problem over the density V', and this bound is its dual. At the optimum β f = μ + A.
    """
    curve, grid, beta = optimum.curve, optimum.curve.grid, optimum.beta
    rate = procedure.density(curve.cdf) * against.density_on(grid) * curve.density
    area, _ = grid.cumulate(rate)
    mean = grid.integrate(area)
    mu = max(beta - mean, 0.0)
    live = (beta * curve.density > 0) & (mu + area > 0)
    ratio = np.where(live, beta * curve.density, 1) / np.where(live, mu + area, 1)
    return max(mu - beta + mean + beta * grid.integrate(curve.density * np.log(ratio)), 0.0)


def rewind_gap(optimum: Optimum, procedure: Rewind, against: AbstractProcedure) -> float:
    """max J − J(f), where J is maximized over F(threshold), the only quantity that couples rewind's
    responses."""
    grid = optimum.curve.grid
    best = rewind_objective(procedure, grid, against.cdf(grid.nodes), optimum.beta)
    return max(best - objective(optimum, optimum.beta), 0.0)
