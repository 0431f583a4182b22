"""The optima at many KL budgets, each predicted from those at larger budgets.

On the axis of ranks an optimum is f = b (ε + a(s)) (`ranks`), where a changes slowly with the
budget, even where the mass moves by orders of magnitude on the axis of quantiles. Polynomials in
κ + log κ through the last few optima predict the next one so closely that Newton's method needs a
step or two.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from infalign import _check
from infalign._look import Rows, label
from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._policies import Curve
from infalign.core._quadrature import FROM_LEFT, NODES, ORDER, Panels, through

from .newton import Budget, Iterate, Problem, quench
from .point import Optimum, solve_near
from .rank import solve
from .ranks import CUTS, STEEP, Area, Tilt
from .starts import RESOLUTION

FEWEST, MOST = 2, 8
"""Numbers of optima through which polynomials are drawn."""

UNEVEN = 3.0
"""Largest ratio of the step to the next budget to the steps before it: polynomials do not reach
far."""

EMPTY = 1e-9
"""Mass below a panel up to which the panels below it count as empty."""

FINELY = RESOLUTION / 5
"""Error of a panel above which it is cut from the start, since another budget's optimum would need
it cut."""

CLOSELY = 1e-9
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
    optima = {}
    # Downward, since the largest budget's optimum needs the finest panels.
    for kl in sorted({_check.positive("kl", kl) for kl in kls}, reverse=True):
        optimum = None
        if series is not None and series.reaches(kl):
            optimum = series.next(kl)
            series = None if optimum is None else series
        if optimum is None:
            optimum = solve(procedure, against, kl=kl)
        if series is None:
            series = Series(procedure, against, optimum)
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
        below, above = _cdf(curve)
        empty = int(np.searchsorted(below, EMPTY, "right")) - 1
        self.low = curve.grid.edges[: empty + 1] / max(curve.grid.edges[empty], 1e-300)
        """Edges of the empty panels at low quantiles, as shares of the last one. Together they are
        the first panel of ranks."""
        if empty:
            below, above = np.append(0.0, below[empty:]), np.append(1.0, above[empty:])
        self.empty, self.ranks = bool(empty), _panels(below, above)
        self.x = -float(curve.log_density[0, 0] + np.log(first.beta))
        """−log ε of the last optimum, or near it."""
        self.times: list[float] = []
        self.areas: list[np.ndarray] = []
        """a at the nodes of `ranks` and at the end of the first panel; and log A."""

    def reaches(self, kl: float) -> bool:
        """Whether polynomials through the last optima reach this budget."""
        return len(self._used(_time(kl))) >= FEWEST

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
        first = values.flat[0] * ranks.edges[1] / s.flat[0]
        values = np.append(np.ones(ORDER if self.empty else 0), values)  # not used in the first
        self.times = [*self.times, _time(curve.kl)][-MOST:]
        self.areas = [*self.areas, np.append(values, [first, np.log(edges[-1])])][-MOST:]

    def _predicted(self, problem: Problem, time: float) -> Iterate | None:
        values = self._weights(time) @ np.array(self.areas[-len(self._used(time)) :])
        first = float(values[-2]) if self.empty else 0.0
        a = np.maximum(values[:-2], 0).reshape(self.ranks.nodes.shape)
        area = Area(self.ranks, a, float(np.exp(values[-1])), first)
        self.x = area.root(problem, float("nan"), self.x, CLOSELY)
        tilt = Tilt(area, self.x, area.scales(self.x)[0])
        local, shares, below, above = tilt.quantiles()
        at = through(2 * local / shares[:, None] - 1, np.broadcast_to(NODES, local.shape), NODES)
        cdf = self.ranks.edges[:-1, None] + self.ranks.half * (1 + at)
        if self.empty:
            low = self.low[:-1] * below[1]
            below, above = np.append(low, below[1:]), np.append(1 - low, above[1:])
            cdf = np.concatenate([np.zeros((len(low), ORDER)), cdf[1:]])
        above[0] = 1.0
        grid = _panels(below, above)
        if not (np.isfinite(cdf).all() and np.isfinite(grid.nodes).all()):
            return None
        cdf = np.clip(cdf, 0, 1)
        rate = self.procedure.density(cdf) * self.against.density_on(grid)
        rate *= np.exp(-tilt.log_beta)
        quench(grid, rate)
        return Iterate(grid, -grid.cumulate_down(rate)[0], tilt.log_beta)

    def _used(self, time: float) -> list[float]:
        """The times of the optima that help: those with steps between them that are not much
        smaller than the step from the last one to `time`."""
        times, used = self.times[::-1], 1
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


def _cdf(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """F and 1 − F at the edges."""
    return curve.cdf_at_edges, curve.grid.cumulate_down(curve.density)[1]


def _panels(below: np.ndarray, above: np.ndarray) -> Panels:
    """Panels between edges, given by their distances from 0 and from 1, the smaller of which is
    exact."""
    edges = np.where(below < 0.5, below, 1 - above)
    distances = np.where(below < 0.5, 1 - below, above)
    edges[-1] = 1.0
    return Panels(edges, distances)


def _time(kl: float) -> float:
    """The clock in which optima move evenly."""
    return kl + float(np.log(kl))
