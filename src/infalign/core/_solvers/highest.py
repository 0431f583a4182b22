"""The best policy where the win rate may have several local maxima: ascents on cells of rank.

Neither theorem of docs/maths.md covers, for example, worst-of-n against best-of-n. Ascents from
several policies (`ascents`) reach the local maxima; those that may be the best are
solved to double precision.
"""

import numpy as np

from infalign import _check
from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.errors import SolveError

from .ascents import maxima, refined
from .point import Optimum
from .rank import Path
from .shots import stationary_points
from .transport import FAR, NEAR, Chain, Goal, Link

UNDECIDED = 0.05
"""Distance from the best of the maxima on cells, in the logarithm of the win rate or of the losses,
within which a maximum may be the best."""

COARSE = 1e-3
"""Error of the value on cells that may be too coarse."""

AWAY = 0.1
"""Fall of the win rate from the cells to the optimum that is more than the error of the cells."""


def highest(
    procedure: RankProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
) -> Optimum:
    """The best of all local maxima that ascents reach, at a KL budget or at a KL strength β.

    For procedures and opponents whose win rate may have several maxima. Raises as `solve` does.
    """
    _check.budget(kl, beta)
    goal = _goal(kl, beta)
    optima: list[Optimum] = []
    for reach in (NEAR, FAR):
        ends = maxima(Chain.over(procedure, against, reach), goal)
        own, led_away = _polished(procedure, against, ends, goal)
        optima += own
        if not optima and goal.kl is not None and reach == NEAR:
            state = Path(procedure, against).on_steep_cells(goal.kl)
            steep = None if state is None else Optimum.of(state)
            if steep is not None and goal.value(steep) > goal.value(ends[0]) - COARSE:
                return steep
        if beta is not None:  # a narrow maximum may attract no ascent, but a shot meets it
            optima += stationary_points(procedure, against, beta, far=reach == FAR)
        if optima and not led_away:
            break
    if optima:
        return max(optima, key=lambda o: o.win_rate - (0 if beta is None else beta * o.kl))
    path = Path(procedure, against, ascended=True)
    if goal.kl is not None:
        return path.at_kl(goal.kl)
    return path.at_beta(_check.positive("beta", beta))


def _polished(
    procedure: RankProcedure, against: AbstractProcedure, ends: list[Link], goal: Goal
) -> tuple[list[Optimum], bool]:
    """The optima next to the maxima on cells that may be the best, and whether one of these maxima
    led to no optimum, or to another one's: these cells were too coarse for its own."""
    path = Path(procedure, against)
    optima: list[Optimum] = []
    led_away = False
    for link in ends:
        if optima and goal.value(link) < goal.value(ends[0]) - UNDECIDED:
            break
        try:
            optimum = path.near(refined(link, goal).start, goal.kl)
        except SolveError:
            led_away = True
            continue
        optima.append(optimum)
        led_away = led_away or optimum.win_rate < link.win_rate - AWAY
    return optima, led_away


def _goal(kl: float | None, beta: float | None) -> Goal:
    if kl is not None:
        return Goal(kl=_check.positive("kl", kl))
    return Goal(log_scale=-float(np.log(_check.positive("beta", beta))))
