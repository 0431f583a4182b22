"""Ascents to the local maxima of the win rate, on cells of rank.

Each step goes toward the policy f = c + λ ∫ g(V) dH, which maximizes the win rate's tangent in the
quantile function V at the last policy. If the opponent's G is convex, as for best-of-n, the tangent
is a lower bound, and no step is damped. Newton's method ends an ascent.
"""

import numpy as np
from scipy.special import expit

from .transport import Chain, Goal, Link, middles

ASCENTS = 7
"""Number of ascents to local maxima."""

SHARES = 6.0
"""Largest logit of the share of responses that an ascent's start leaves near the reference."""

TRIED = (0.1, 1.0)
"""Budgets in nats from which ascents at a given β start."""

ROUNDS = 4
"""Number of times that an ascent may change its cells."""

CLIMBS = 40
"""Largest number of steps of an ascent between two tries of Newton's method."""

LEAST_WEIGHT = 1e-3
"""Smallest weight of a step's goal before an ascent stops."""

SETTLED = 1e-5
"""Gain of a step, in the logarithm of the win rate or of the losses, below which Newton's method
takes over."""

LOST = 1e-2
"""Largest decrease of the value by which Newton's end may lie below the ascent."""

REFINEMENTS = 2
"""Number of times that cells are placed anew around a solution."""

SENSITIVE = 150.0
"""Size of log β that takes another refinement."""

ALIKE = 0.01
"""Relative difference of win rates below which two ends of ascents may be one policy."""


def maxima(chain: Chain, goal: Goal) -> list[Link]:
    """Local maxima of the win rate at a budget, or of W − β KL, each once, the best first.

    The ascents start from policies that leave a share of the responses near the reference and
    move the others up together, for several shares.
    """
    ends: list[Link] = []
    spent = [goal] if goal.kl is not None else [Goal(kl) for kl in TRIED]
    for start in spent:
        for share in np.linspace(-SHARES, SHARES, ASCENTS):
            step = expit(2 * (middles(chain.logits) - share))
            end = ascended(chain.coupled(step, start), goal)
            if not any(_same(end, other) for other in ends):
                ends.append(end)
    return sorted(ends, key=lambda end: -goal.value(end))


def ascended(link: Link, goal: Goal) -> Link:
    """The local maximum above this policy, on cells that resolve it, or a policy next to it if
    Newton's method on the cells does not reach it.

    Each step goes toward the policy that maximizes the win rate's tangent in V. No step lowers
    the win rate (or W − β KL); Newton's method ends the ascent.
    """
    for _ in range(ROUNDS):
        link = climbed(link, goal)
        solution = link.balanced(goal).solved(goal)
        if solution is not None and goal.value(solution) > goal.value(link) - LOST:
            return solution
        link = link.on(link.chain.finer(link), goal)
    return climbed(link, goal).balanced(goal)


def climbed(link: Link, goal: Goal) -> Link:
    """Some steps of the ascent on the same cells."""
    for _ in range(CLIMBS):
        here, there, weight = link.area, link.own_area, 1.0
        if not 0 < there[-1] < np.inf or not 0 < here[-1] < np.inf:
            break  # the opponent's law underflows
        if goal.kl is not None:  # only their shapes matter
            here, there = here / here[-1], there / there[-1]
        value = goal.value(link)
        while weight > LEAST_WEIGHT:
            higher = link.chain.coupled((1 - weight) * here + weight * there, goal, link.lowest)
            if goal.value(higher) > value:
                break
            weight /= 4
        else:
            break
        link = higher
        if goal.value(link) - value < SETTLED:
            break
    return link


def refined(link: Link, goal: Goal, *, climb: bool = True) -> Link:
    """The same solution on cells that resolve it better, where that is possible.

    - `climb`: whether it is a maximum, next to which an ascent leads back to it.
    """
    if not np.isfinite(link.log_scale):
        return link  # the opponent's law underflows on all of its cells
    # A win rate next to 0 or 1 is more sensitive to the policy.
    for _ in range(REFINEMENTS + int(abs(link.log_scale) / SENSITIVE)):
        near = link.on(link.chain.finer(link, 2), goal)
        if not np.isfinite(near.log_density).all():
            return link  # its density falls, by rounding
        near = climbed(near, goal) if climb else near
        finer = near.balanced(goal).solved(goal)
        if finer is None:
            return link
        link = finer
    return link


def _same(one: Link, other: Link) -> bool:
    """Whether two solutions are the same policy, up to the cells' resolution."""
    alike = abs(one.win_rate / other.win_rate - 1) < ALIKE
    return alike and abs(one.log_scale - other.log_scale) < 10 * ALIKE
