"""KL budgets over which the optimum jumps.

As β falls, the maximum of W − β KL may move from one hill to another of a larger KL. A budget
between the two still has a best policy. It is stationary for some β but no maximum of W − β KL:
`of_kl` enumerates these policies of one prompt.
"""

from dataclasses import dataclass

import numpy as np

from .ascent import Ascent, Climber, Columns
from .maps import Ranked
from .of_kl import best_of_kl
from .problem import Problem

__all__ = ["Within", "within_jump"]

SPENT = 1e-9
"""Relative error of the KL below which a budget counts as spent."""

SMALLEST_BETA = 1e-12
"""Smallest β of a policy: rounding of its coupled reward moves log-densities by 1e-4."""

ROUNDS = 60
"""Maximum number of rounds until all prompts share one β."""


@dataclass(frozen=True)
class Within:
    """A policy within the jump."""

    beta: float
    psi: Columns
    """Log-densities, rows are prompts."""


def within_jump(
    problem: Problem, budget: float, lower: Climber, upper: Climber, beta: float
) -> Within | None:
    """A policy of a mean KL `budget`, stationary for one β: some prompts are below the jump, some
    above, and one of them within it. None if the rounds do not reach one. They end at a β below
    the smallest, of which only the β counts.

    - `lower`, `upper`: the maxima on both sides of the jump, at `beta`.
    """
    assert isinstance(problem.map, Ranked)
    psi, kl, row = _one_between(budget, lower, upper)
    others = np.arange(len(kl)) != row
    for _ in range(ROUNDS):
        own = float(budget * len(kl) - kl[others].sum())
        partial = best_of_kl(
            problem.map.procedure, problem.utility[row], problem.reference[row], own, beta
        )
        if partial is None:
            return None
        psi[row] = partial.psi
        before, beta = beta, partial.beta
        alone = not others.any() or beta < SMALLEST_BETA
        if alone or abs(beta / before - 1) <= SPENT:
            return Within(beta, psi)
        climber = Ascent(problem, beta).climb(psi)
        psi[others], kl = climber.psi[others], climber.kl.copy()
    return None


def _one_between(budget: float, lower: Climber, upper: Climber) -> tuple[Columns, np.ndarray, int]:
    """ψ and KL with as many prompts above the jump as the budget allows, and the next prompt."""
    psi, kl = lower.psi.copy(), lower.kl.copy()
    for row in np.argsort(lower.kl - upper.kl):
        if kl.sum() - kl[row] + upper.kl[row] >= budget * len(kl):
            break
        psi[row], kl[row] = upper.psi[row], upper.kl[row]
    return psi, kl, int(row)
