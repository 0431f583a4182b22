"""KL budgets over which the optimum jumps.

As β falls, the maximum of W − β KL may move from one hill to another of a larger KL. A budget
between the two still has a best policy. It is stationary for some β but no maximum of W − β KL. It
is a maximum of W − c(KL) for a convex cost c, whose price c′ rises with the KL.
"""

from dataclasses import dataclass

import numpy as np

from infalign.core._roots import NoRoot, falling_root

from .ascent import Ascent, Climber, Columns
from .problem import Problem

SPENT = 1e-9
"""Relative error of the KL below which a budget counts as spent."""

STIFF = 10.0
"""Stiffness of the first cost, per width of the jump; it doubles until the budget is spent."""

DOUBLINGS = 6

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
    above, and one of them within it. None if the rounds do not reach one.

    - `lower`, `upper`: the maxima on both sides of the jump, at `beta`.
    """
    psi, kl, row = _one_between(budget, lower, upper)
    others = np.arange(len(kl)) != row
    for _ in range(ROUNDS):
        own = float(budget * len(kl) - kl[others].sum())
        starts = [lower.psi[row], upper.psi[row], psi[row]]
        partial = _at_kl(problem, row, own, beta, float(upper.kl[row] - lower.kl[row]), starts)
        if partial is None:
            return None
        psi[row] = partial.psi[0]
        before, beta = beta, float(partial.price[0])
        if not others.any() or abs(beta / before - 1) <= SPENT:
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


def _at_kl(
    problem: Problem, row: int, kl: float, beta: float, width: float, starts: list[np.ndarray]
) -> Climber | None:
    """The best policy of one prompt at a KL; its `price` is the β for which it is stationary."""
    one = Problem(problem.world, problem.map, problem.utility[[row]], problem.reference[[row]])
    for doubling in range(DOUBLINGS):
        stiffness = STIFF * 2**doubling / width
        reached: dict[float, Climber] = {}

        def excess(
            log_beta: float,
            stiffness: float = stiffness,
            reached: dict[float, Climber] = reached,
        ) -> float:
            ascent = Ascent(one, float(np.exp(log_beta)), target=kl, stiffness=stiffness)
            near = [climber.psi[0] for climber in list(reached.values())[-1:]]
            tops = [ascent.climb(start[None]) for start in (*starts, *near)]
            reached[log_beta] = max(tops, key=lambda top: float(top.objective[0]))
            return float(reached[log_beta].kl[0] / kl - 1)

        try:
            log_beta = falling_root(excess, float(np.log(beta)), step=0.1, growth=2.0, xtol=1e-12)
        except NoRoot:
            continue
        if abs(reached[log_beta].kl[0] / kl - 1) <= SPENT:
            return reached[log_beta]
    return None
