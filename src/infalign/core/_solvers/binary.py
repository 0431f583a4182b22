"""All best pass rates of a reward that passes or fails, by interval arithmetic.

For a reference that passes with chance p₀, write c ≥ 0 for the change of the log-odds and s = 1 − p
for the chance to fail. The stationary points of W − β KL are the roots of

    φ(c) = h(s)/2β − c,      s = 1/(1 + e^{z₀ + c}),      φ′(c) = −s(1 − s) h′(s)/2β − 1,

with z₀ the log-odds of p₀. All of them lie in 0 ≤ c ≤ max h/2β. The interval is halved until φ is
monotone on every part or has no root there, both by bounds on h′, so no root is missed.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, rel_entr

from infalign.core._interface import RankProcedure
from infalign.core._shapes import Float

PerPrompt = Float[np.ndarray, "prompts"]
Parts = Float[np.ndarray, "parts"]

Curve = Callable[[np.ndarray, Parts], Parts]
"""(index of the prompt, change) → φ or φ′."""

FLAT = 800.0
"""A change of the log-odds that leaves no failure that a number can hold."""

NARROW = 1e-14
"""Width, relative to 1 + c, of a part that counts as one point: two roots that nearly coincide."""

SLACK = 1e-12
"""Relative widening of bounds, more than their rounding."""

ROUNDING = 2e-16
"""Relative length of a step at which a root is as exact as numbers are."""

STEPS = 200
"""Maximum number of steps to a root, enough for bisections alone; most need 6."""


@dataclass(frozen=True)
class Maxima:
    """The local maxima of W − β KL, sorted by prompt and then by the change of the log-odds."""

    prompt: np.ndarray
    """Index of the prompt of each maximum; every prompt has one or more."""

    change: Parts
    """c, the change of the log-odds."""

    objective: Parts
    """−½ H(1 − p) − β KL."""

    def best(self) -> PerPrompt:
        """The change at each prompt's highest maximum; the smallest of equal ones."""
        order = np.lexsort((-self.change, self.objective, self.prompt))
        return self.change[order][np.append(np.diff(self.prompt) > 0, True)]

    def nearest(self, to: PerPrompt) -> PerPrompt:
        """The change at the maximum that is nearest to one change for each prompt."""
        order = np.lexsort((-np.abs(self.change - to[self.prompt]), self.prompt))
        return self.change[order][np.append(np.diff(self.prompt) > 0, True)]


def maxima(start: PerPrompt, procedure: RankProcedure, beta: float) -> Maxima:
    """Every local maximum of W − β KL, for references that pass with chances `start` in (0, 1)."""
    origin = logit(start)

    def value(prompt: np.ndarray, change: Parts) -> Parts:
        return 0.5 * procedure.density(expit(-origin[prompt] - change)) / beta - change

    def gradient(prompt: np.ndarray, change: Parts) -> Parts:
        s = expit(-origin[prompt] - change)
        return -0.5 * s * (1 - s) * procedure.slope(s) / beta - 1

    # h is at most the number of draws: it is that many times a chance.
    # Beyond FLAT no failure is left, and φ falls at slope −1: a part of its own.
    end = 0.5 * procedure.draws / beta * (1 + SLACK)
    edges = np.array([0.0, FLAT, end] if end > FLAT else [0.0, end])
    prompt = np.repeat(np.arange(start.size), edges.size - 1)
    low, high = np.tile(edges[:-1], start.size), np.tile(edges[1:], start.size)
    falling: list[tuple[np.ndarray, Parts, Parts]] = []
    while prompt.size:
        least, most = _gradient_range(procedure, beta, origin[prompt], low, high)
        at_low, at_high = value(prompt, low), value(prompt, high)
        falls, rises = most < 0, least > 0
        crosses = falls & (at_low >= 0) & (at_high <= 0)
        middle = low + (high - low) / 2
        with np.errstate(over="ignore"):  # an infinite reach excludes nothing
            reach = np.maximum(np.abs(least), np.abs(most)) * (high - low) / 2 * (1 + SLACK)
        empty = np.abs(value(prompt, middle)) > reach
        narrow = high - low <= NARROW * (1 + low)
        candidate = crosses | (narrow & ~(falls | rises | empty))
        falling.append((prompt[candidate], low[candidate], high[candidate]))
        split = ~(falls | rises | empty | narrow)
        prompt = np.repeat(prompt[split], 2)
        low, high = (
            np.stack([low[split], middle[split]], 1).ravel(),
            np.stack([middle[split], high[split]], 1).ravel(),
        )
    prompt, low, high = (np.concatenate(parts) for parts in zip(*falling, strict=True))
    change = _falling_roots(prompt, low, high, value, gradient)
    order = np.lexsort((change, prompt))
    prompt, change = prompt[order], change[order]
    rate = expit(origin[prompt] + change)
    failing = expit(-origin[prompt] - change)
    objective = -0.5 * procedure.cdf(failing) - beta * _kl_of(start[prompt], rate, failing)
    return Maxima(prompt, change, objective)


def _kl_of(start: Parts, passing: Parts, failing: Parts) -> Parts:
    """KL from both chances, which keeps the small one exact."""
    return rel_entr(passing, start) + rel_entr(failing, 1 - start)


def _gradient_range(
    procedure: RankProcedure, beta: float, origin: Parts, low: Parts, high: Parts
) -> tuple[Parts, Parts]:
    """Bounds on φ′ for changes between `low` and `high`."""
    s_low, s_high = expit(-origin - high), expit(-origin - low)
    least, most = procedure.slope_range(s_low, s_high)
    # s(1 − s) rises to ¼ at ½.
    ends = s_low * expit(origin + high), s_high * expit(origin + low)
    spread = np.where((s_low < 0.5) & (s_high > 0.5), 0.25, np.maximum(*ends))
    corners = np.stack([w * m for w in (np.minimum(*ends), spread) for m in (least, most)])
    steepest, flattest = corners.max(0), corners.min(0)
    widen = SLACK * np.maximum(np.abs(steepest), np.abs(flattest))
    return -0.5 * (steepest + widen) / beta - 1, -0.5 * (flattest - widen) / beta - 1


def _falling_roots(
    prompt: np.ndarray, low: Parts, high: Parts, value: Curve, gradient: Curve
) -> Parts:
    """The root of φ in each part: Newton's method, with a bisection wherever its step leaves the
    bracket or is not half as long as the step before."""
    step = high - low
    at = low + step / 2
    for _ in range(STEPS):
        here = value(prompt, at)
        low, high = np.where(here >= 0, at, low), np.where(here <= 0, at, high)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            newton = at - here / gradient(prompt, at)
        good = (newton >= low) & (newton <= high) & (np.abs(newton - at) <= step / 2)
        after = np.where(good, newton, low + (high - low) / 2)
        step, at = np.abs(after - at), after
        if (step <= ROUNDING * at).all():
            break
    return at
