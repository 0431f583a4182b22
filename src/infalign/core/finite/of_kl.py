"""The best policy of one prompt at a KL, for a procedure that selects by rank, by shooting.

A policy π_b = p_b e^{ψ_b} on levels b = 1 … m is stationary for β if

    ψ_{b+1} − ψ_b = h(F_b) (w_{b+1} − w_b) / β,     F_b = π_1 + … + π_b,     F_m = 1,

with w the chance to beat the opponent. From ψ_m downward, each level follows from those above it,
so ψ_m and β are the only unknowns; F_0 = 0 and the KL are two equations for them. A grid over both,
in which all shots run at once, brackets the solutions, and each bracket is refined.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import root

from infalign.core._interface import RankProcedure
from infalign.core._shapes import Float

__all__ = ["OfKL", "best_of_kl"]

LARGEST_BETA = 400.0
"""Largest β of a solution, in units of a given one."""

LOWER_BETAS = (1e-8, 1e-100)
"""Ends of the two searches, the second of which is for where the first finds nothing: where a
procedure hardly ever selects from the levels between which the mass moves."""

STEP = 0.075
"""Step of log β in the grid."""

COLUMNS = 400
"""Values of ψ_m in the grid."""

FARTHEST = 500.0
"""Largest absolute ψ_m and log β of a shot."""

EXACT = 1e-10
"""Largest miss of F_0 and relative miss of the KL of a solution."""

Levels = Float[np.ndarray, "levels"]
Shots = Float[np.ndarray, "*shots"]


@dataclass(frozen=True)
class OfKL:
    """A stationary policy of the KL."""

    beta: float
    psi: Levels
    """Log-densities."""


@dataclass(frozen=True)
class _Prompt:
    """Levels in increasing order, each with mass in the reference."""

    procedure: RankProcedure
    reference: Levels
    steps: Levels
    """w_{b+1} − w_b, for all levels but the last."""

    def shots(self, top: Shots, beta: Shots) -> tuple[Shots, list[Shots]]:
        """F_0 and the log-densities, from the lowest level, for each ψ_m and β."""
        psi, psis = top, [top]
        above = 1 - self.reference[-1] * np.exp(psi)
        for mass, step in zip(self.reference[-2::-1], self.steps[::-1], strict=True):
            psi = psi - self.procedure.density(np.clip(above, 0, 1)) * step / beta
            above = above - mass * np.exp(psi)
            psis.append(psi)
        return above, psis[::-1]

    def kl(self, psis: list[Shots]) -> Shots:
        return sum(p * np.exp(psi) * psi for p, psi in zip(self.reference, psis, strict=True))


def best_of_kl(
    procedure: RankProcedure, utility: Levels, reference: Levels, kl: float, beta: float
) -> OfKL | None:
    """The stationary policy of the KL with the highest win rate, of those for β from 1e-8 to 400
    times `beta` or, if there is none, from 1e-100 to 1e-8; None if there is none there either."""
    inside = np.flatnonzero(reference > 0)
    prompt = _Prompt(procedure, reference[inside], np.diff(utility[inside]))
    upper = LARGEST_BETA * beta
    for lower in LOWER_BETAS:
        log_betas = np.arange(np.log(lower), np.log(upper), STEP)
        if (best := _highest(prompt, kl, log_betas)) is not None:
            psi = np.zeros_like(reference)  # levels without mass have no log-density of their own
            psi[inside] = best.psi
            return OfKL(best.beta, psi)
        upper = lower
    return None


def _highest(prompt: _Prompt, kl: float, log_betas: Shots) -> OfKL | None:
    """The solution with the highest win rate among those that a grid brackets."""
    most = -np.log(prompt.reference[-1])
    # ψ_m ≤ −log p_m; close to it, all mass is on the highest level.
    share = np.linspace(0, 1, COLUMNS // 2)
    tops = np.unique(np.concatenate([share * most, most - np.geomspace(1e-9, most, COLUMNS // 2)]))
    with np.errstate(under="ignore"):
        miss, psis = prompt.shots(tops[None, :], np.exp(log_betas)[:, None])
        excess = prompt.kl(psis) - kl
    best, highest = None, -np.inf
    for row, column in np.argwhere(_changes(miss) & _changes(excess)):
        guess = (tops[column] + tops[column + 1]) / 2, (log_betas[row] + log_betas[row + 1]) / 2
        here = _refined(prompt, kl, guess)
        if here is not None and (won := _win_rate(prompt, here)) > highest:
            best, highest = here, won
    return best


def _changes(values: Float[np.ndarray, "rows columns"]) -> np.ndarray:
    """The cells of a grid in which a function changes its sign."""
    positive = values > 0
    corners = positive[:-1, :-1], positive[1:, :-1], positive[:-1, 1:], positive[1:, 1:]
    return np.any(corners, axis=0) & ~np.all(corners, axis=0)


def _refined(prompt: _Prompt, kl: float, guess: tuple[float, float]) -> OfKL | None:
    """The solution next to a guess of ψ_m and log β."""

    def misses(at: np.ndarray) -> list[float]:
        if not np.abs(at).max() <= FARTHEST:
            return [FARTHEST, FARTHEST]
        miss, psis = prompt.shots(at[0], np.exp(at[1]))
        return [float(miss), float(prompt.kl(psis)) / kl - 1]

    with np.errstate(under="ignore", over="ignore", invalid="ignore"):
        end = root(misses, guess, tol=1e-15)
        if not np.abs(misses(end.x)).max() <= EXACT:
            return None
        _, psis = prompt.shots(end.x[0], np.exp(end.x[1]))
    return OfKL(float(np.exp(end.x[1])), np.array(psis, dtype=float))


def _win_rate(prompt: _Prompt, policy: OfKL) -> float:
    """W but for a constant: −Σ H(F_b) (w_{b+1} − w_b)."""
    cdf = np.cumsum(prompt.reference * np.exp(policy.psi))[:-1]
    return -float(prompt.procedure.cdf(np.clip(cdf, 0, 1)) @ prompt.steps)
