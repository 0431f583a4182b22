"""How far a policy can be from the optimum: bounds by duality if they exist, else enumeration.

Two facts, proved in docs/maths.md, cover the procedures in common use:

- H convex (best-of-n): the win rate is concave in the policy's density f.
- G concave (the opponent is sampled, or selects its worst): the win rate is concave in the policy's
  quantile function V = F⁻¹, and so is −KL. This covers worst-of-n against itself.

Each of them bounds the whole objective W − β KL by its value at one policy and a closed form.
Otherwise every stationary point is a root of a function of one number, which is scanned.
"""

import numpy as np

from infalign.errors import SolveError

from ._interface import AbstractProcedure, RankProcedure
from ._policies import Curve
from ._soft_procedures import Rewind
from ._solvers.point import Optimum
from ._solvers.rank import Path
from ._solvers.rewind import rewind_objective
from ._solvers.starts import Start

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
        return np.nan, "no certificate: the optimum was followed from weak to strong tilts"
    if mixture_concave(procedure):
        return mixture_gap(optimum), "duality: the win rate is concave in the policy's density"
    if displacement_concave(against):
        return (
            displacement_gap(optimum, procedure, against),
            "duality: the win rate is concave in the policy's quantile function",
        )
    points = stationary_points(procedure, against, optimum.beta)
    gain = max([objective(p, optimum.beta) for p in points], default=np.nan)
    gain -= objective(optimum, optimum.beta)
    if not gain >= -1e-9:  # the scan missed the point to be certified
        return np.nan, "no certificate: the stationary points could not all be followed"
    return (
        max(gain, 0.0),
        f"enumeration: {len(points)} stationary point{'s'[: len(points) > 1]} in a scan of shots",
    )


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


def stationary_points(
    procedure: RankProcedure, against: AbstractProcedure, beta: float, shots: int = 160
) -> list[Optimum]:
    """Every policy with y' = h(F) g / β, found by shooting from v = 1 with each log f(1).

    log f(1) lies between 0, since f increases, and log(M / (1 − e^-M)) with M = max h · max g / β,
    since f cannot fall faster than e^{-M (1 - v)} and has mass 1. A shot is a root if it uses up
    all mass exactly at v = 0, so roots lie between neighboring shots of opposite sign. Two roots
    between the same two shots would be missed.
    """
    top = procedure.density(SHAPE_POINTS).max() * against.density(SHAPE_POINTS).max() / beta
    ceiling = np.log(top / -np.expm1(-top)) if top > 0 else 0.0
    starts = np.linspace(0, ceiling, shots)
    left = _shoot(procedure, against, beta, starts)[-1][1]
    points: list[Optimum] = []
    for i in np.flatnonzero(np.diff(np.sign(left)) != 0):
        share = left[i] / (left[i] - left[i + 1])
        middle = starts[i] + share * (starts[i + 1] - starts[i])
        path = np.array(_shoot(procedure, against, beta, np.array([middle])))[:, :, 0]
        point = _polish(procedure, against, beta, path)
        if point is not None and not any(abs(point.kl - p.kl) < 1e-6 for p in points):
            points.append(point)
    return points


def _polish(
    procedure: RankProcedure, against: AbstractProcedure, beta: float, path: np.ndarray
) -> Optimum | None:
    """The stationary point nearest to a shot's path of (1 − v, s, y)."""
    away, rank = path[:, 0], path[:, 1]
    live = (away > 1e-12) & (away < 1 - 1e-9) & (rank > 1e-9) & (rank < 1 - 1e-12)
    if live.sum() < 3:  # the shot leaves the axis at once
        return None
    order = np.argsort(-away[live])
    at = np.log1p(-away[live][order]) - np.log(away[live][order])
    logit_rank = np.log(rank[live][order]) - np.log1p(-rank[live][order])
    try:
        return Path(procedure, against).near(Start(at, logit_rank, float(np.log(beta))))
    except SolveError:
        return None


def _shoot(
    procedure: RankProcedure, against: AbstractProcedure, beta: float, log_top: np.ndarray
) -> list[np.ndarray]:
    """(1 − v, s, y) along shots from v = s = 1, y = log f(1) = `log_top`, by fourth-order steps.

    The parameter is x = (1 − v) + (1 − s), in which neither flat nor steep densities are stiff:
    dv/dx = −1 / (1 + f), ds/dx = −f / (1 + f).
    """
    # The first steps are as fine as the steepest density requires; later steps grow with the
    # distance.
    finest = 1e-3 * np.exp(-log_top.max())
    growing = finest * np.cumprod(np.full(int(np.log(0.3 / finest) / 0.02) + 1, np.exp(0.02)))
    steps = np.concatenate([[0], growing[growing < 0.2], np.linspace(0.2, 2, 700)])
    state = np.array([np.zeros_like(log_top), np.ones_like(log_top), log_top])
    path = [state]
    for width in np.diff(steps):
        k1 = _slope(procedure, against, beta, state)
        k2 = _slope(procedure, against, beta, state + width / 2 * k1)
        k3 = _slope(procedure, against, beta, state + width / 2 * k2)
        k4 = _slope(procedure, against, beta, state + width * k3)
        state = state + width / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        path.append(state)
    return path


def _slope(
    procedure: RankProcedure, against: AbstractProcedure, beta: float, state: np.ndarray
) -> np.ndarray:
    away, rank, y = state
    slow = 1 / (1 + np.exp(np.minimum(y, 700.0)))
    # Shots that miss leave the unit square; how far they go does not matter.
    law = procedure.density(np.clip(rank, 0, 1)) * against.density(np.clip(1 - away, 0, 1))
    return np.array([slow, slow - 1, -law / beta * slow])
