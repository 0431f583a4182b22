"""Roots of functions of one number."""


def bracketed_root(function, low: float, high: float, *, xtol: float, rtol: float = 1e-14) -> float:
    """The root between two ends of different sign, by Brent's method."""
    from scipy.optimize import brentq  # slow to import, and `import infalign` should not be

    return float(brentq(function, low, high, xtol=xtol, rtol=rtol))
