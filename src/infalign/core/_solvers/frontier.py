"""The optima at many KL budgets, each predicted from those at larger budgets.

On the axis of ranks an optimum is f = b (ε + a(s)) (`ranks`), where a changes slowly with the
budget, even where the mass moves by orders of magnitude on the axis of quantiles. Polynomials in
κ + log κ through the last few optima predict the next one so closely that Newton's method needs a
step or two. While there are few, steps of the iteration on ranks improve the prediction. Smaller
budgets need fewer panels, so panels are joined on the way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Rows, label
from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import FROM_LEFT, ORDER, through

from .newton import Budget, Iterate, Problem, State
from .point import Optimum, missed, solve_near
from .rank import solve
from .ranks import CUTS, STEEP, Area, Tilt, between, lowest, on_quantiles
from .starts import RESOLUTION

MOST = 8
"""Largest number of optima through which polynomials are drawn."""

NEAR = 1.0
"""Largest step in time from a single optimum."""

ENOUGH = 5
"""Number of optima from which polynomials predict well; with fewer, steps of the iteration on ranks
improve the prediction."""

UNEVEN = 3.0
"""Largest ratio of the step to the next budget to the steps before it: polynomials do not reach
far."""

MOST_FAILURES = 2
"""Number of failures in a row after which other panels are taken."""

EMPTY = 1e-9
"""Mass below a panel up to which the panels below it count as empty."""

OFTEN = 8
"""Number of optima after which panels that are no longer needed are joined."""

MANY = 25
"""Number of panels up to which joining them is not worth the effort."""

JOINS = 2
"""Number of times that neighboring panels are joined."""

FINELY = RESOLUTION / 5
"""Error of a panel above which it is cut from the start, since another budget's optimum would need
it cut."""

VERY_FINELY = FINELY / 10
"""Error of two neighboring panels as one up to which they are joined."""

CLOSELY = 1e-7
"""Relative error of the KL at which a prediction is accurate enough."""


class Optima(Rows[Optimum]):
    """The optima of a frontier, a list that is shown as a table."""

    __slots__ = ()

    def _columns(self) -> dict[str, list[Any]]:
        names = ("kl", "beta", "win_rate", "losses")
        return {name: [getattr(optimum, name) for optimum in self] for name in names}

    def _draw(self, axes: Any) -> None:
        ordered = sorted(self, key=lambda optimum: optimum.kl)
        axes.plot([o.kl for o in ordered], [o.win_rate for o in ordered], marker="o", markersize=3)
        label(axes, x="KL, nats", y="win rate")


def frontier(
    procedure: RankProcedure, against: AbstractProcedure, kls: Sequence[float]
) -> "Optima":
    """The optimal policy at each of several KL budgets, for a procedure and an opponent with one
    optimum at each."""
    series: Series | None = None
    optima, failures = {}, 0
    # Downward, since the largest budget's optimum needs the finest panels.
    for kl in sorted({_check.positive("kl", kl) for kl in kls}, reverse=True):
        optimum: Optimum | None = None
        if series is not None and series.reaches(kl):
            optimum = series.next(kl)
            failures = failures + 1 if optimum is None else 0
            # More optima may help the polynomials; else the panels do not suit.
            series = None if failures == MOST_FAILURES else series
        if optimum is None:
            optimum = solve(procedure, against, kl=kl)
        if series is None:
            series, failures = Series(procedure, against, optimum), 0
        series.remember(optimum)
        optima[kl] = optimum
    return Optima(optima[kl] for kl in kls)


class Series:
    """The last optima of a sequence of falling budgets, on common panels of ranks."""

    def __init__(
        self, procedure: RankProcedure, against: AbstractProcedure, first: Optimum
    ) -> None:
        """- `first`: the optimum whose panels, as ranks, serve the others."""
        self.procedure, self.against = procedure, against
        curve = _gentle(first)
        rate = procedure.density(curve.cdf) * against.density_on(curve.grid) / first.beta
        rough = curve.grid.unresolved(rate) * curve.cdf_at_edges[1:] > FINELY
        finer = curve.grid.cut(rough)
        curve = Curve(finer, curve.grid.interpolate(curve.log_density, finer))
        problem = Problem(procedure, against, Budget(first.kl))
        iterate = Iterate(
            finer, curve.log_density - curve.log_density.max(), float(np.log(first.beta))
        )
        for start in (0, 1) * JOINS:  # starts leave more panels than are needed
            at = _unneeded(problem, iterate, np.arange(start, len(iterate.grid) - 1, 2))
            iterate = Iterate(*iterate.grid.joined(at, iterate.y), iterate.log_beta)
        curve = Curve(iterate.grid, iterate.y)
        below, above = _cdf(curve)
        empty = int(np.searchsorted(below, EMPTY, "right")) - 1
        self.low = None if not empty else lowest(problem, float(curve.grid.edges[empty]))
        """Edges that cut the first panel of quantiles, as shares of its width, if it is empty."""
        if empty:
            below, above = np.append(0.0, below[empty:]), np.append(1.0, above[empty:])
        self.empty, self.ranks = bool(empty), between(below, above)
        x = -float(curve.log_density[0, 0] + np.log(first.beta))
        self.roots = [(_time(first.kl), float(np.arcsinh(x)))]
        """Times, and arsinh x at them, x = −log ε: x may change by orders of magnitude."""
        self.times: list[float] = []
        self.areas: list[np.ndarray] = []
        """a at the nodes of `ranks`; log a at the end of the first panel; and log A."""

    def reaches(self, kl: float) -> bool:
        """Whether polynomials through the last optima reach this budget."""
        time = _time(kl)
        return len(self._used(time)) > 1 or self.times[-1] - time <= NEAR

    def next(self, kl: float) -> Optimum | None:
        """The optimum at a budget, from its prediction."""
        problem = Problem(self.procedure, self.against, Budget(kl))
        with np.errstate(all="ignore"):  # a start too far off is rejected by its residual
            start = self._predicted(problem, _time(kl))
            state = None if start is None else solve_near(problem, start)
        return None if state is None else Optimum.of(state)

    def remember(self, optimum: Optimum) -> None:
        """Add an optimum below the last one."""
        curve, ranks = _gentle(optimum), self.ranks
        rate = self.procedure.density(curve.cdf) * self.against.density_on(curve.grid)
        areas, edges = curve.grid.cumulate(rate * curve.density)
        below, above = _cdf(curve)
        live = slice(1 if self.empty else 0, None)
        s, from_1 = ranks.nodes[live], ranks.from_1[live]
        low = np.searchsorted(below, s, "right") - 1
        high = len(above) - 1 - np.searchsorted(above[::-1], from_1)
        panel = np.clip(np.where(s < 0.5, low, high), 0, len(curve.grid) - 1)
        mass = (curve.grid.weights * curve.density).sum(1)
        with np.errstate(all="ignore"):  # panels without mass hold no target
            at = 2 * curve.grid.half * (curve.density @ FROM_LEFT.T) / mass[:, None] - 1
            offset = np.where(s < 0.5, s - below[panel], above[panel] - from_1)
            values = through(at, areas / edges[-1], 2 * offset / mass[panel] - 1, panel)
        # a is nearly linear up to the end of the first panel and a little beyond.
        near_0 = np.searchsorted(curve.cdf.ravel(), ranks.edges[1])
        first = ranks.edges[1] * rate.flat[near_0] if self.empty else 1.0
        values = np.append(np.ones(ORDER if self.empty else 0), values)  # not used in the first
        self.times = [*self.times, _time(curve.kl)]
        values = np.append(values, np.log([first / edges[-1], edges[-1]]))
        self.areas = [*self.areas, values][-MOST:]
        if len(self.times) % OFTEN == 0 and len(self.ranks) > MANY:
            self._coarsen(optimum)

    def _coarsen(self, optimum: Optimum) -> None:
        """Join panels that the last optimum does not need, since smaller budgets need fewer."""
        problem = Problem(self.procedure, self.against, Budget(optimum.kl))
        iterate = Iterate(optimum.curve.grid, optimum.exponent, float(np.log(optimum.beta)))
        for start in (0, 1):
            first = len(iterate.grid) - len(self.ranks)
            if first != (0 if self.low is None else len(self.low) - 2):
                return  # cut for this optimum alone
            at = np.arange(first + self.empty + start, len(iterate.grid) - 1, 2)
            at = _unneeded(problem, iterate, at)
            iterate = Iterate(*iterate.grid.joined(at, iterate.y), iterate.log_beta)
            areas = np.array(self.areas)
            a = areas[:, :-2].reshape(len(areas), *self.ranks.nodes.shape)
            ranks, a = self.ranks.joined(at - first, a)
            self.areas = list(np.column_stack([a.reshape(len(areas), -1), areas[:, -2:]]))
            self.ranks = ranks

    def _predicted(self, problem: Problem, time: float) -> Iterate | None:
        values = self._weights(time) @ np.array(self.areas[-len(self._used(time)) :])
        first = float(np.exp(values[-2])) if self.empty else 0.0
        a = np.maximum(values[:-2], first).reshape(self.ranks.nodes.shape)
        area = Area(self.ranks, a, float(np.exp(values[-1])), first)
        x = area.root(problem, float("nan"), self._root(time), CLOSELY)
        tilt = Tilt(area, x, area.scales(x)[0])
        for _ in range(len(self._used(time)), ENOUGH):
            iterated = self._iterated(problem, tilt)
            if iterated is None:
                return None
            area = iterated
            x = area.root(problem, float("nan"), x, CLOSELY)
            tilt = Tilt(area, x, area.scales(x)[0])
        self.roots = [*self.roots[-1:], (time, float(np.arcsinh(x)))]
        start = on_quantiles(problem, tilt, self.low)
        if start is not None and self.low is not None:
            last = len(start.grid) - len(self.ranks) + 1
            self.low = start.grid.edges[: last + 1] / start.grid.edges[last]
        return start

    def _iterated(self, problem: Problem, tilt: Tilt) -> Area | None:
        """The next step of the iteration on ranks; None if the tilt overflows."""
        local, _, below, _ = tilt.quantiles()
        quantiles = np.clip(below[:-1, None] + local, 0, 1)
        if not np.isfinite(quantiles).all():
            return None
        rate = problem.procedure.density(self.ranks.nodes) * problem.against.density(quantiles)
        values, edges = self.ranks.cumulate(rate)
        first = float(edges[1] / edges[-1]) if self.empty else 0.0
        return Area(self.ranks, np.maximum(values / edges[-1], 0), float(edges[-1]), first)

    def _root(self, time: float) -> float:
        """About −log ε at a time."""
        (first, x), (last, end) = self.roots[0], self.roots[-1]
        ahead = (time - last) / (last - first) if last != first else 0.0
        return float(np.sinh(end + ahead * (end - x)))

    def _used(self, time: float) -> list[float]:
        """The times of the optima that help: those with steps between them that are not much
        smaller than the step from the last one to `time`."""
        times, used = self.times[: -MOST - 1 : -1], 1
        while used < len(times) and times[0] - time <= UNEVEN * (times[used] - times[used - 1]):
            used += 1
        return times[:used][::-1]

    def _weights(self, time: float) -> np.ndarray:
        """The weights of the last optima in the polynomial's value at a time."""
        times = np.array(self._used(time))
        apart = times[:, None] - times
        np.fill_diagonal(apart, 1)
        away = np.broadcast_to(time - times, apart.shape).copy()
        np.fill_diagonal(away, 1)
        return (away / apart).prod(1)


def _gentle(optimum: Optimum) -> Curve:
    """The optimum on panels in each of which its density rises by a moderate factor, so that its
    quantiles are smooth in its ranks."""
    curve, y = optimum.curve, optimum.exponent
    for _ in range(CUTS):
        steep = (np.ptp(y, axis=1) > STEEP) & (curve.cdf[:, -1] > EMPTY)
        if not steep.any():
            break
        finer = curve.grid.cut(steep)
        y = curve.grid.interpolate(y, finer)
        curve = Curve(finer, y)
    return curve


def _unneeded(problem: Problem, iterate: Iterate, at: np.ndarray) -> np.ndarray:
    """Those of the panels `at` that need not end where the next one begins."""
    grid, y = iterate.grid.joined(at, iterate.y)
    opponent = problem.against.density_on(grid)
    with np.errstate(all="ignore"):  # panels that overflow are not joined
        state = State(problem, Iterate(grid, y, iterate.log_beta), opponent)
        fine = missed(state) <= VERY_FINELY
        fine &= (np.ptp(y, axis=1) <= STEEP) | (state.curve.cdf[:, -1] <= EMPTY)
    return at[fine[at - np.arange(len(at))]]


def _cdf(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """F and 1 − F at the edges."""
    return curve.cdf_at_edges, curve.grid.cumulate_down(curve.density)[1]


def _time(kl: float) -> float:
    """The clock in which optima move evenly."""
    return kl + float(np.log(kl))
