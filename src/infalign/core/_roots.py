"""Roots of functions of one number: a bracket that grows from a guess, then Brent's method."""

import math
from collections.abc import Callable

MOST_STEPS = 200
"""Number of Newton steps, most of which may be bisections, before a search is given up."""


ROUNDING = 1e-6
"""Newton step below which a step that is not much shorter than the last one is rounding."""


class NoRoot(Exception):
    """The bracket reached its limit without a change of sign; `at` is where it stopped."""

    def __init__(self, at: float) -> None:
        super().__init__(f"no change of sign up to {at:g}")
        self.at = at


def falling_root(
    function: Callable[[float], float],
    start: float,
    *,
    step: float = 1.0,
    growth: float = 1.0,
    low: float = -float("inf"),
    high: float = float("inf"),
    xtol: float,
    rtol: float = 1e-14,
) -> float:
    """The root of a falling function, such as log KL(β) − log budget in log β.

    - `start`: a guess; the bracket grows from it toward the root.
    - `step`: width of the first bracket; each further bracket is `growth` times as wide.
    - `low`, `high`: limits of the bracket. Raises NoRoot beyond them, or if the function is nan.

    The function is called once at each point; solvers that start from their last result rely on
    this.
    """
    known: dict[float, float] = {}

    def value(x: float) -> float:
        if x not in known:
            known[x] = function(x)
        return known[x]

    if value(start) == 0:
        return start
    towards = 1.0 if value(start) > 0 else -1.0
    near = start
    while True:
        far = min(max(near + towards * step, low), high)
        if far == near or math.isnan(value(near)):
            raise NoRoot(near)
        if value(far) * towards <= 0:
            break
        near, step = far, step * growth
    return bracketed_root(value, min(near, far), max(near, far), xtol=xtol, rtol=rtol)


def falling_root_by_slope(
    function: Callable[[float], tuple[float, float]],
    start: float,
    *,
    longest: float = 3.0,
    low: float = -float("inf"),
    xtol: float,
) -> float:
    """The root of a falling function by Newton's method, kept inside the bracket that it learns.

    - `function`: returns its value and its slope.
    - `longest`: the longest step.
    - `low`: lower limit. Raises NoRoot beyond it, or if the function is nan.
    """
    x, left, right, last = start, -float("inf"), float("inf"), float("inf")
    for _ in range(MOST_STEPS):
        value, slope = function(x)
        if math.isnan(value):
            raise NoRoot(x)
        left, right = (max(left, x), right) if value > 0 else (left, min(right, x))
        step = -value / slope if slope < 0 else math.copysign(longest, value)
        following = x + min(max(step, -longest), longest)
        size = abs(following - x)
        # Steps that no longer shrink are rounding.
        if value == 0 or size <= xtol or last / 4 < size < ROUNDING:
            return following
        last = size
        if not left < following < right:
            following = (left + right) / 2
            if right - left <= xtol:
                return following
        if following < low and x <= low:
            raise NoRoot(x)
        x = max(following, low)
    raise NoRoot(x)


def bracketed_root(
    function: Callable[[float], float], low: float, high: float, *, xtol: float, rtol: float = 1e-14
) -> float:
    """The root between two ends of opposite sign, by Brent's method; NoRoot where the function is
    nan."""
    from scipy.optimize import brentq  # slow to import, and `import infalign` should not be

    def value(x: float) -> float:
        result = function(x)
        if math.isnan(result):
            raise NoRoot(x)
        return result

    return float(brentq(value, low, high, xtol=xtol, rtol=rtol))
