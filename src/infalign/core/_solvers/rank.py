"""The policy with the largest win rate at a KL strength or budget, if selection is by rank.

Newton's method starts from a few steps of an iteration on the axis of ranks, or from the reference
tilted by its own gradient. If it reaches no solution from there, it starts from the solution on
cells of rank (`transport`); and if that fails too, from the optimum at a smaller KL.
"""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from infalign import _check
from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._quadrature import graded
from infalign.errors import SolveError

from .ascents import maxima, refined
from .newton import Budget, Iterate, Problem, State, Strength
from .point import Optimum, solve_near
from .ranks import iterated, suit
from .starts import (
    IMPROVEMENTS,
    LARGEST_LOG_SCALE,
    Start,
    Waypoint,
    at_kl,
    from_quantiles,
    kl_at,
    laws_grid,
    predicted,
    tilted_reference,
    tilted_reference_at,
)
from .transport import DEPTHS, FAR, NEAR, Chain, Goal, Link

FARTHEST = 700.0
"""KL in nats up to which a strength is searched; e⁻⁷⁰⁰ is near the smallest double."""

NO_LOSSES = 1e-290
"""Share of comparisons lost below which the win rate is 1 and β is near the smallest double."""

RARE_LOSSES = 1e-15
"""Share of comparisons lost below which the tilts of the reference are too far from a policy that
selects its worst response."""

NEARLY_ALL = 12
"""Number of halvings of panels toward both ends, for the losses of a simple policy."""

NEARER = 5
"""A walk starts at a budget smaller by this factor; the factor is applied again after each failed
start."""


def solve(
    procedure: RankProcedure,
    against: AbstractProcedure,
    *,
    kl: float | None = None,
    beta: float | None = None,
) -> Optimum:
    """The optimal policy at a KL budget in nats, or at a KL strength β.

    Raises ValueError for arguments out of range, and SolveError if double precision cannot
    represent the optimum.
    """
    _check.budget(kl, beta)
    path = Path(procedure, against)
    if kl is None:
        return path.at_beta(_check.positive("beta", beta))
    return path.at_kl(_check.positive("kl", kl))


def _starts(problem: Problem, kl: float, losses: float = 1.0) -> list[Callable[[], Iterate | None]]:
    """Starts at a budget, the most promising first.

    - `losses`: about 1 − W of the optimum.
    """
    procedure, against = problem.procedure, problem.against
    by_rank = partial(iterated, problem)
    tilts = [partial(tilted_reference, problem, kl, steps) for steps in IMPROVEMENTS]
    if suit(against):
        return [by_rank, *tilts]
    few, undamped, damped = tilts
    concave = procedure.density(np.zeros(1))[0] > procedure.density(np.ones(1))[0]
    if not concave:
        return [damped, few, undamped, by_rank]
    tilts = [undamped, damped, few]
    return [by_rank, *tilts] if losses < RARE_LOSSES else [*tilts, by_rank]


class Path:
    """The optima of one procedure as the KL budget grows; remembers the last two."""

    def __init__(
        self, procedure: RankProcedure, against: AbstractProcedure, *, ascended: bool = False
    ) -> None:
        """- `ascended`: whether starts from ascents on cells have failed already."""
        self.procedure, self.against, self.ascended = procedure, against, ascended
        self.waypoints: list[Waypoint] = []

    def at_kl(self, kl: float) -> Optimum:
        """The optimum at a budget."""
        losses = self.spent_at_the_top(kl)
        if losses < NO_LOSSES:
            raise self._beyond(f"kl={kl:g}", kl)
        first, *others = _starts(self._problem(Budget(kl)), kl, losses)
        state = (
            self._started(kl, [first])
            or self._transported(Goal(kl=kl))
            or self._started(kl, others)
            or self.on_steep_cells(kl)
            or self._walk(lambda last: last.kl >= kl, f"kl={kl:g}", kl).state
        )
        return Optimum.of(state)

    def at_beta(self, beta: float) -> Optimum:
        """The optimum at a KL strength."""
        problem, log_beta = self._problem(Strength()), float(np.log(beta))
        state = None
        with np.errstate(all="ignore"):
            start = iterated(problem, log_beta) if suit(self.against) else None
        if start is not None:
            state = solve_near(problem, start)
        if state is None:
            state = solve_near(problem, tilted_reference_at(problem, log_beta))
        if state is None:
            state = self._transported(Goal(log_scale=-log_beta))
        if state is None:
            last = self._walk(lambda last: last.state.log_beta <= log_beta, f"beta={beta:g}").state
            state = solve_near(problem, Iterate(last.grid, last.y, log_beta))
        if state is None:
            between = self._where(log_beta)
            if between is not None:
                state = solve_near(problem, Iterate(between.grid, between.y, log_beta))
        if state is None:
            raise self._beyond(f"beta={beta:g}")
        return Optimum.of(state)

    def near(self, start: Start, kl: float | None = None) -> Optimum:
        """The stationary point next to a guess: at a budget, or at the guess's own β."""
        state = self._polished(start, kl)
        if state is None:
            raise self._beyond(f"beta={np.exp(start.log_beta):g}" if kl is None else f"kl={kl:g}")
        return Optimum.of(state)

    def _problem(self, condition: Strength | Budget) -> Problem:
        return Problem(self.procedure, self.against, condition)

    def _started(self, kl: float, starts: list[Callable[[], Iterate | None]]) -> State | None:
        """The optimum at a budget, from the first start that leads to it."""
        for start in starts:
            with np.errstate(all="ignore"):  # a start too far off is rejected by its residual
                iterate = start()
            state = None if iterate is None else solve_near(self._problem(Budget(kl)), iterate)
            if state is not None:
                return state
        return None

    def _transported(self, goal: Goal) -> State | None:
        """The optimum, starting from the solution on cells of rank."""
        for reach in (NEAR, FAR):
            for link in self._on_cells(Chain.over(self.procedure, self.against, reach), goal):
                with np.errstate(all="ignore"):  # a win rate next to 1 may overflow on cells
                    start = refined(link, goal).start
                state = self._polished(start, goal.kl)
                if state is not None:
                    return state
        return None

    def on_steep_cells(self, kl: float) -> State | None:
        """The optimum at a budget, starting from cells that resolve log h."""
        for depth in DEPTHS:
            with np.errstate(all="ignore"):  # candidates that overflow are rejected
                chain = Chain.over(self.procedure, self.against, depth=depth)
                link = chain.at_budget(kl, bold=True)
            state = None if link is None else self._polished(link.start, kl)
            if state is not None:
                return state
        return None

    def _on_cells(self, chain: Chain, goal: Goal) -> Iterator[Link]:
        """Solutions on cells, the quickest first."""
        link = chain.at_budget(goal.kl) if goal.kl is not None else None
        if link is not None:
            yield link
        if self.ascended:
            return
        with np.errstate(all="ignore"):
            ends = maxima(chain, goal)
        yield from ends

    def _polished(self, start: Start, kl: float | None) -> State | None:
        problem = self._problem(Strength() if kl is None else Budget(kl))
        grid = laws_grid(self.procedure, self.against)
        with np.errstate(all="ignore"):  # a start too far off is rejected by `solve_near`
            iterate = from_quantiles(problem, grid, start)
            return solve_near(problem, iterate if kl is None else at_kl(iterate, kl))

    def _next(self, kl: float) -> State | None:
        """The optimum at a budget near those of the last two."""
        problem = self._problem(Budget(kl))
        with np.errstate(all="ignore"):  # a start too far off is rejected by `solve_near`
            return solve_near(problem, predicted(self.waypoints, problem, kl))

    def _arrived(self, kl: float, state: State) -> Waypoint:
        self.waypoints = [*self.waypoints[-1:], Waypoint(kl, state)]
        return self.waypoints[-1]

    def _walk(
        self, arrived: Callable[[Waypoint], bool], asked: str, budget: float | None = None
    ) -> Waypoint:
        """Follow the optimum upward from a small KL until it reaches the target."""
        most = FARTHEST if budget is None else budget
        kl = min(most, 1.0) / NEARER
        while not self.waypoints or self.waypoints[-1].kl > most:
            self.waypoints = []
            state = self._started(kl, _starts(self._problem(Budget(kl)), kl))
            if state is None:
                kl /= NEARER
            else:
                self._arrived(kl, state)
            if kl < 1e-9:
                raise self._beyond(asked, budget)
        step = 1.0
        while not arrived(self.waypoints[-1]):
            kl = min(most, kl_at(self.waypoints[-1].time + step))
            state = self._next(kl)
            if state is None:
                step /= 3
                if step < 1e-3:
                    raise self._beyond(asked, budget)
                continue
            self._arrived(kl, state)
            step = min(1.5 * step, 2.0)
            if state.log_beta < -LARGEST_LOG_SCALE:
                raise self._beyond(asked, budget)
        return self.waypoints[-1]

    def _where(self, log_beta: float) -> State | None:
        """The optimum at the budget between the last two where log β crosses `log_beta`."""
        if len(self.waypoints) < 2:
            return None
        start, end = self.waypoints
        share = (log_beta - start.state.log_beta) / (end.state.log_beta - start.state.log_beta)
        log_kl = np.interp(share, [0, 1], np.log([start.kl, end.kl]))
        return self._next(float(np.exp(log_kl)))

    def _beyond(self, asked: str, kl: float | None = None) -> SolveError:
        lost = 1.0 if kl is None else self.spent_at_the_top(kl)
        if kl is not None and lost < NO_LOSSES:
            reason = (
                f"a policy that spends it on the best {np.exp(-kl):.2g} of the responses alone "
                f"already loses less than {NO_LOSSES:g} of the time, so beta exceeds double "
                "precision"
            )
        elif lost < RARE_LOSSES:
            reason = (
                f"the best policy loses less than {lost:.1g} of the time, so its win rate is 1 in "
                "double precision, and starts near it do not converge"
            )
        elif self.waypoints:
            reason = (
                f"a walk from small budgets ended at kl={self.waypoints[-1].kl:.4g}, and starts "
                "near the answer do not converge"
            )
        else:
            reason = "the solver does not converge"
        return SolveError(
            f"No optimum was found for {self.procedure!r} against {self.against!r} with {asked}; "
            f"{reason}. Ask for a smaller `kl` or a larger `beta`."
        )

    def spent_at_the_top(self, kl: float) -> float:
        """1 − W of the reference above the quantile 1 − e^-κ, whose KL is κ: the optimum loses
        less."""
        rank = graded(NEARLY_ALL, NEARLY_ALL)
        at = np.clip(1 - np.exp(-kl) * rank.from_1, 0, 1)
        lost = self.procedure.cdf(np.clip(rank.nodes, 0, 1)) * self.against.density(at)
        return float(np.exp(-kl) * rank.integrate(lost))
