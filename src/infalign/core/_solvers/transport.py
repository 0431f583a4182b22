"""Stationary policies by their quantile function, on cells of rank: good starts from anywhere.

In V = F⁻¹ the win rate ∫ G(V(s)) dH(s) and the KL −∫ log V′ ds are *local*: the density f = 1/V′
obeys f′(s) = h(s) g(V(s)) / β (docs/maths.md, section 12). On cells of rank with widths Δs,
Newton's system is tridiagonal, and the ranks resolve the policy wherever its mass lies. The
accuracy is that of a few hundred cells; `point.solve_near` continues from here to double precision.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit

from infalign.core._interface import AbstractProcedure, RankProcedure
from infalign.core._roots import NoRoot, falling_root_by_slope
from infalign.core._shapes import Float

from .point import Optimum
from .starts import Start

NEAR, FAR = 18.0, 36.0
"""Largest logits of an edge. Less mass than e⁻¹⁸ at either end moves no policy; where the win rate
is next to 0 or 1, such ranks decide it."""

GRID = np.linspace(-FAR, FAR, 2401)
"""Logits at which laws are read."""

CELLS = 240
"""Number of cells of a start."""

STEEP_CELLS = 960
"""Number of cells that resolve log h as well."""

DEPTHS = (100.0, 300.0)
"""How far below 0 log h may fall, in nats, where they resolve it. The shallower, the finer."""

STEEPEST = 0.5
"""Change of log h between neighbors of `GRID` above which it counts no more."""

BOLD = 1.0, 3
"""Residual up to which Newton's method may rise in its first steps on such cells, and the number of
these steps: along a front one step corrects what the last one left."""

TOP = 1e-8
"""Distance from 1 below which the slope of an opponent's density is a quotient of differences."""

APART = 1e-5
"""Half the distance between the two points of such a difference, relative to their distance from
1."""

BLUR = 1e-3
"""Half the width over which an opponent's density is averaged, if the opponent has no slope."""

STEPS = 25
"""Maximum number of Newton steps."""

TOLERANCE = 1e-8
"""Largest residual of a solution."""

LONGEST = 2.0
"""Largest change of a log-density or of log β in one step."""

SHORTEST = 0.02
"""Shortest fraction of a Newton step that the line search tries."""

LOWEST = 700.0
"""Largest size of the log of f's lowest value, relative to its rise."""

MATTER = 1e-3
"""Ranks below which the error of a density counts less."""

HELD = 1e-13
"""Cells with less mass do not limit a step."""

SMALL = 0.05
"""A budget in nats up to which a tilt of the reference is a good start."""

FARTHEST = 30.0
"""Longest step in the search for the lowest density."""

GROWTH = 4.0
"""Largest ratio of two budgets in a row when a budget is approached."""

SLOWEST = 1.02
"""Smallest such ratio before the branch counts as ended."""

_POINTS = 0.25 + 0.25 * np.array([-1, 1]) / np.sqrt(3)
HALVES = np.concatenate([_POINTS, 0.5 + _POINTS])
"""Two Gauss points in each half of a cell of width 1."""

BY_HALF = np.kron(np.eye(2), [[0.25], [0.25]])
"""Their weights in the integrals over both halves."""

Edges = Float[np.ndarray, "edges"]
Cells = Float[np.ndarray, "cells"]
OnGrid = Float[np.ndarray, "grid"]


class Chain:
    """The policies that are uniform on each of the cells between given ranks."""

    def __init__(
        self,
        procedure: RankProcedure,
        against: AbstractProcedure,
        logits: Edges,
        log_law: tuple[OnGrid, OnGrid] | None = None,
    ):
        """- `logits`: logits of the inner edges, increasing.
        - `log_law`: the opponent's, from another chain.
        """
        if log_law is not None:
            self.log_law = log_law
        self.procedure, self.against, self.logits = procedure, against, logits
        low = np.concatenate([[0.0], expit(logits), [1.0]])
        high = np.concatenate([[1.0], expit(-logits), [0.0]])
        self.widths = np.where(low[1:] < 0.5, np.diff(low), -np.diff(high))
        # H's rise around each inner edge, from the middle of one cell to the middle of the next, by
        # Gauss points in each half: a difference of H itself would be lost where H is next to 1.
        halves = procedure.density(low[:-1, None] + self.widths[:, None] * HALVES) @ BY_HALF
        self.rises = self.widths[:-1] * halves[:-1, 1] + self.widths[1:] * halves[1:, 0]
        # A density's relative error at ranks next to 0 or 1 changes neither W nor the KL.
        self.matter = np.minimum(low[1:-1] * high[1:-1] / MATTER, 1.0)
        slope: Callable[[Edges], Edges] | None = getattr(against, "slope", None)
        self._slope = slope

    @classmethod
    def over(
        cls,
        procedure: RankProcedure,
        against: AbstractProcedure,
        reach: float = NEAR,
        *,
        depth: float | None = None,
    ) -> "Chain":
        """Cells that resolve the law H, and ranks up to a logit of `reach`.

        - `depth`: if given, they resolve log h above −`depth` too, which log f follows where the
          win rate is next to its limit.
        """
        grid = GRID[np.abs(GRID) <= reach + 1e-9]
        law = procedure.cdf(expit(grid))
        share = np.linspace(0, 1, grid.size) + (law - law[0]) / (law[-1] - law[0])
        if depth is not None:
            density = np.where(
                grid < 0, procedure.density(expit(grid)), procedure.density_below_1(expit(-grid))
            )
            log_density = np.log(np.maximum(density, np.exp(-depth)))
            rises = np.minimum(np.abs(np.diff(log_density)), STEEPEST)
            share[1:] += 2 * np.cumsum(rises) / max(rises.sum(), 1e-300)
        count = CELLS if depth is None else STEEP_CELLS
        places = np.arange(1, count) * share[-1] / count
        return cls(procedure, against, np.interp(places, share, grid))

    def opponent(self, at: Edges, above: Edges) -> tuple[Edges, Edges]:
        """g and g′ at quantiles. If g′ is unknown or g jumps, both are averages over ±BLUR.

        - `above`: 1 − `at`, to full precision.
        """
        if self._slope is not None:
            slope = self._slope(at)
            top = (above > 0) & (above < TOP)
            if top.any():  # V itself is rounded to 1 there
                ends = np.multiply.outer([1 - APART, 1 + APART], above[top])
                fall = np.diff(self.against.density_below_1(ends), axis=0)[0]
                slope[top] = -fall / (2 * APART * above[top])
            return self.density(at, above), slope
        low, high = np.maximum(at - BLUR, 0), np.minimum(at + BLUR, 1)
        width = high - low
        g = np.diff(self.against.cdf(np.array([low, high])), axis=0)[0] / width
        return g, np.diff(self.against.density(np.array([low, high])), axis=0)[0] / width

    def density(self, at: Edges, above: Edges) -> Edges:
        """g at quantiles, for `above` = 1 − `at`."""
        return np.where(at < 0.5, self.against.density(at), self.against.density_below_1(above))

    @cached_property
    def log_law(self) -> tuple[OnGrid, OnGrid]:
        """log G and log (1 − G) at `GRID`, each to full relative precision."""
        # du = u (1 − u) d logit u
        at, above = expit(GRID), expit(-GRID)
        density = self.density(at, above) * at * above
        steps = (density[1:] + density[:-1]) * (GRID[1] - GRID[0]) / 2
        low = density[0] + np.concatenate([[0.0], np.cumsum(steps)])
        high = density[-1] + np.concatenate([np.cumsum(steps[::-1])[::-1], [0.0]])
        with np.errstate(divide="ignore"):
            return np.maximum(np.log(low), -LOWEST), np.maximum(np.log(high), -LOWEST)

    def area(self, at: Edges, above: Edges) -> Cells:
        """∫₀^s g(V) dH in each cell, for a policy with quantiles `at` at the inner edges."""
        return np.concatenate([[0.0], np.cumsum(self.rises * self.opponent(at, above)[0])])

    def coupled(self, area: Cells, goal: "Goal", near: float = 0.0) -> "Link":
        """The policy f = c + λ `area` that meets a goal, or the nearest in double precision.

        It maximizes the win rate's tangent in V at the policy that `area` belongs to.

        - `near`: a guess of log c over λ times the last value of `area`.
        """
        top = area[-1] if area[-1] > 0 else 1.0  # 0 where the opponent's law underflows
        shape = area / top
        known = None if goal.log_scale is None else float(np.exp(goal.log_scale)) * top

        def excess(log_c: float) -> tuple[float, float]:
            low = np.exp(log_c)
            density = low + shape
            shares = self.widths / density
            covered = float(shares.sum())
            shrinks = -float(shares @ (low / density)) / covered  # d log `covered` / d log c
            if known is not None:
                return float(np.log(covered / known)), shrinks
            kl = max(float(self.widths @ np.log(density)) + np.log(covered), 1e-300)
            return float(np.log(kl / goal.kl)), (low * covered + shrinks) / kl

        try:
            log_c = falling_root_by_slope(excess, near, longest=FARTHEST, low=-LOWEST, xtol=1e-3)
        except NoRoot as end:
            log_c = end.at
        density = np.exp(log_c) + shape
        scale = float(self.widths @ (1 / density)) if known is None else known
        return Link(self, np.log(density * scale), float(np.log(scale / top)))

    def at_budget(self, kl: float, *, bold: bool = False) -> "Link | None":
        """A stationary policy with a KL of `kl` nats, followed from a small KL if necessary.

        - `bold`: whether residuals may rise on the way.
        """
        near, area = kl, self.area(expit(self.logits), expit(-self.logits))
        while near > 1e-12:
            goal = Goal(near)
            link = self.coupled(area, goal).solved(goal)
            if link is not None:
                return link.followed(kl, bold=bold)
            near = min(near, 5 * SMALL) / 5
        return None

    def finer(self, link: "Link", times: int = 1) -> "Chain":
        """Cells, `times` as many, that also resolve the density of a policy and its quantiles."""
        logits, at = self.logits, link.at
        moves = np.abs(np.diff(link.log_density[1:], prepend=link.log_density[0]))[: logits.size]
        path = [
            logits,
            np.cumsum(moves),
            np.maximum.accumulate(at),
            self.procedure.cdf(expit(logits)),
        ]
        share = np.zeros(logits.size)
        for part in path:
            part = part - part[0]
            share += part / max(part[-1], 1e-300)
        # An increasing share needs no two equal neighbors: the first part increases.
        count = len(self.widths) * times
        places = np.arange(1, count) / count * share[-1]
        return Chain(self.procedure, self.against, np.interp(places, share, logits), self.log_law)


@dataclass(frozen=True)
class Goal:
    """What a policy must meet: a KL in nats, or the scale λ = 1/β."""

    kl: float | None = None
    log_scale: float | None = None

    def value(self, policy: "Link | Optimum") -> float:
        """What is maximized: the logit of W at a budget, else the same for W − β KL."""
        wins, losses = policy.win_rate, policy.losses
        if self.log_scale is not None:
            price = float(np.exp(-self.log_scale)) * policy.kl
            wins, losses = wins - price, losses + price
        # From the smaller one, which has all digits.
        return float(-np.log(losses)) if losses < 0.5 else float(np.log(max(wins, 1e-300)))

    def error(self, link: "Link") -> float:
        """By how much, in relative terms, a policy misses the goal."""
        if self.kl is not None:
            return link.kl / self.kl - 1
        return 0.0 if self.log_scale is None else self.log_scale - link.log_scale


@dataclass(frozen=True)
class Link:
    """A policy on the cells of a chain, with λ = 1/β: a candidate, or a solution."""

    chain: Chain
    log_density: Cells
    log_scale: float
    """log λ."""

    @cached_property
    def shares(self) -> Cells:
        """ΔV, the part of the quantile axis that each cell covers."""
        return self.chain.widths * np.exp(-self.log_density)

    @cached_property
    def covered(self) -> Cells:
        """V at the right edge of each cell; it ends at 1 for a solution."""
        return np.cumsum(self.shares)

    @cached_property
    def left_over(self) -> Cells:
        """1 − V at the left edge of each cell, summed from the right."""
        return np.cumsum(self.shares[::-1])[::-1]

    @cached_property
    def at(self) -> Edges:
        """logit V at the inner edges."""
        with np.errstate(divide="ignore"):
            return np.log(self.covered[:-1]) - np.log(self.left_over[1:])

    @property
    def kl(self) -> float:
        """∫ log f ds, in nats."""
        return float(self.chain.widths @ self.log_density)

    @cached_property
    def opponent(self) -> tuple[Edges, Edges]:
        """g and g′ at the inner edges."""
        return self.chain.opponent(
            np.clip(self.covered[:-1], 0, 1), np.clip(self.left_over[1:], 0, 1)
        )

    @cached_property
    def win_rate(self) -> float:
        """W = ∫ G(V) dH."""
        return self._expected(self.chain.log_law[0])

    @cached_property
    def losses(self) -> float:
        """1 − W = ∫ (1 − G(V)) dH, to full precision."""
        return self._expected(self.chain.log_law[1])

    def _expected(self, log_values: OnGrid) -> float:
        """∫ of a function of the quantile dH, from its logarithms at `GRID`."""
        return float(self.chain.rises @ np.exp(np.interp(self.at, GRID, log_values)))

    @cached_property
    def climbs(self) -> Edges:
        """λ g ΔH, by which f rises at the inner edges of a solution, over f to the right."""
        rises = self.chain.rises * self.opponent[0]
        return rises * np.exp(self.log_scale - self.log_density[1:])

    @cached_property
    def residuals(self) -> Edges:
        """What f rises too much at the inner edges, over f to the right of each."""
        return -np.expm1(self.log_density[:-1] - self.log_density[1:]) - self.climbs

    def error(self, goal: Goal) -> float:
        """The largest residual of the equations and of the goal."""
        missed = abs(goal.error(self))
        worst = np.abs(self.residuals * self.chain.matter).max()
        error = max(worst, abs(self.covered[-1] - 1), missed)
        return float(error) if np.isfinite(error) else np.inf

    def moved(self, change: Cells, by_scale: float) -> "Link":
        return Link(self.chain, self.log_density + change, self.log_scale + by_scale)

    def direction(self) -> tuple[Cells, Cells] | None:
        """Changes of log f that solve the linearized equations, alone and per unit of δ log λ.

        Unknowns δy₀, δV₁, δy₁, δV₂, … with y = log f; equations, for cell j and inner edge i:

            δV_{j+1} − δV_j + ΔV_j δy_j = 0,   δV = 0 at the left end and 1 − V at the right end
            δy_i − (f_{i−1}/f_i) δy_{i−1} − λ ΔH_i (g′/f_i) δV_i = −residual + climb δlog λ
        """
        from scipy.linalg.lapack import dgtsv  # slow to import

        cells = len(self.shares)
        below, main, above = (
            np.zeros(2 * cells - 2),
            np.empty(2 * cells - 1),
            np.ones(2 * cells - 2),
        )
        main[::2] = self.shares
        below[1::2] = -1.0
        weight = self.chain.rises * np.exp(self.log_scale - self.log_density[1:])
        main[1::2] = -weight * self.opponent[1]
        below[::2] = -np.exp(self.log_density[:-1] - self.log_density[1:])
        right = np.zeros((2 * cells - 1, 2))
        # In the upper half g is read at 1 − `left_over`, which differs from V by what is missing.
        excess = np.where(self.covered[:-1] < 0.5, 0.0, self.covered[-1] - 1)
        right[1::2, 0] = -self.residuals - main[1::2] * excess
        right[1::2, 1] = self.climbs
        right[-1, 0] = self.covered[-1] - 1
        *_, solution, failed = dgtsv(below, main, above, right)
        if failed or not np.isfinite(solution).all():
            return None
        return solution[::2, 0], solution[::2, 1]

    def solved(self, goal: Goal, *, bold: bool = False) -> "Link | None":
        """The solution near this candidate, or None if Newton's method does not reach one.

        - `bold`: whether the residual may rise in the first steps.
        """
        link, error = self, self.error(goal)
        widths = self.chain.widths
        with np.errstate(all="ignore"):  # what overflows is rejected by its residual
            for step in range(STEPS):
                if error <= TOLERANCE:
                    return link
                allowed = BOLD[0] if bold and step < BOLD[1] else 0.0
                direction = link.direction()
                if direction is None:
                    return None
                change, by_scale = direction
                if goal.kl is not None:
                    missing = goal.kl - link.kl - widths @ change
                    log_scale = float(missing / (widths @ by_scale))
                else:
                    log_scale = goal.error(link)
                change = change + log_scale * by_scale
                fastest = max(float(np.abs(change[widths > HELD]).max()), abs(log_scale))
                if not np.isfinite(fastest):
                    return None
                length = min(1.0, LONGEST / max(fastest, 1e-300))
                while True:
                    trial = link.moved(length * change, length * log_scale)
                    new = trial.error(goal)
                    if new < max(error * (1 - length / 10), allowed):
                        break
                    length /= 2
                    if length < SHORTEST:
                        return None
                link, error = trial, new
        return None

    def followed(self, kl: float, *, bold: bool = False) -> "Link | None":
        """The solution with a KL of `kl` nats on the branch of this one; None if it ends before."""
        link, growth = self, GROWTH
        while abs(link.kl / kl - 1) > 1e-6:
            ratio = float(np.clip(kl / link.kl, 1 / growth, growth))
            further = link.solved(Goal(link.kl * ratio), bold=bold)
            if further is not None:
                link, growth = further, min(growth**1.5, GROWTH)
                continue
            growth = growth**0.5
            if growth < SLOWEST:
                return None
        return link

    @property
    def lowest(self) -> float:
        """log of f's lowest value relative to its rise, where double precision has one."""
        rise = float(self.log_density[-1] - self.log_density[0])
        return float(-np.log(np.expm1(rise))) if 0 < rise < LOWEST else 0.0

    def balanced(self, goal: Goal) -> "Link":
        """This policy with the λ by which its own area gives its density's whole rise."""
        if goal.kl is None:
            return self
        rise = np.exp(self.log_density[-1]) - np.exp(self.log_density[0])
        log_scale = float(np.log(rise / self.own_area[-1]))
        return Link(self.chain, self.log_density, log_scale)

    def on(self, chain: Chain, goal: Goal) -> "Link":
        """This policy on the cells of another chain, moved to a goal."""
        area = np.interp(middles(chain.logits), middles(self.chain.logits), self.area)
        return chain.coupled(area, goal)

    @property
    def area(self) -> Cells:
        """(f − f₀) / λ, of which a solution is made."""
        rise = np.exp(self.log_density) - np.exp(self.log_density[0])
        return rise * np.exp(-self.log_scale)

    @property
    def own_area(self) -> Cells:
        """∫₀^s g(V) dH for its own quantile function: `area`, if it is a solution."""
        return np.concatenate([[0.0], np.cumsum(self.chain.rises * self.opponent[0])])

    @property
    def start(self) -> Start:
        """The quantile function and β, for `point.solve_near`."""
        at = self.at
        new = np.isfinite(at) & np.append(True, np.diff(np.maximum.accumulate(at)) > 0)
        return Start(at[new], self.chain.logits[new], -self.log_scale)


def middles(logits: Edges) -> Cells:
    """Logits in the middle of each cell; of the outer ones, at their only finite edge."""
    return np.concatenate([logits[:1], (logits[1:] + logits[:-1]) / 2, logits[-1:]])
