"""The laws of procedures, written again from their definitions.

Nothing here imports the package: a law that were wrong there must not be wrong here too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from numpy.polynomial.legendre import leggauss
from scipy.interpolate import PPoly
from scipy.special import comb

Curve = Callable[[np.ndarray], np.ndarray]

DEGREE = 16
"""Degree of the polynomials on panels."""


@dataclass(frozen=True)
class Law:
    """What a procedure makes of a uniform quantile."""

    cdf: Curve
    """H(s): chance that the selected one of independent uniform draws is at most s."""

    density: Curve
    """h = H′."""

    breaks: tuple[float, ...] = ()
    """Where h jumps."""


def best(n: int) -> Law:
    """All n draws are at most s."""
    return Law(lambda s: s**n, lambda s: n * s ** (n - 1))


def worst(n: int) -> Law:
    """Not all n draws are above s."""

    def cdf(s: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            return -np.expm1(n * np.log1p(-s))

    return Law(cdf, lambda s: n * (1 - s) ** (n - 1))


def place(n: int, k: int) -> Law:
    """The k-th best of n: at least n − k + 1 draws are at most s, a sum of binomial chances."""
    j = np.arange(n - k + 1, n + 1)
    ways = comb(n, j)
    factor = n * comb(n - 1, k - 1)

    def cdf(s: np.ndarray) -> np.ndarray:
        s = np.asarray(s, float)[..., None]
        return (ways * s**j * (1 - s) ** (n - j)).sum(-1)

    return Law(cdf, lambda s: factor * s ** (n - k) * (1 - s) ** (k - 1))


def poisson(mu: float) -> Law:
    """The best of one draw and a Poisson number of others, all of which are at most s with chance
    E[s^number] = e^{−μ (1 − s)}."""
    return Law(lambda s: s * np.exp(-mu * (1 - s)), lambda s: (1 + mu * s) * np.exp(-mu * (1 - s)))


def mixture(weights: Sequence[float], parts: Sequence[Law]) -> Law:
    """One of several, chosen at random."""

    def mean(curves: list[Curve], s: np.ndarray) -> np.ndarray:
        return sum(w * curve(s) for w, curve in zip(weights, curves, strict=True))

    cdfs, densities = [p.cdf for p in parts], [p.density for p in parts]
    breaks = tuple(sorted({b for p in parts for b in p.breaks}))
    return Law(lambda s: mean(cdfs, s), lambda s: mean(densities, s), breaks)


def rewind(threshold: float, tries: int) -> Law:
    """Draw again below the threshold: the last of at most `tries` draws."""
    again = threshold ** np.arange(tries)  # chance that a draw is made
    low, high = again[-1], again.sum()

    def density(s: np.ndarray) -> np.ndarray:
        return np.where(s < threshold, low, high)

    return Law(
        lambda s: low * np.minimum(s, threshold) + high * np.maximum(s - threshold, 0),
        density,
        (threshold,),
    )


def soft_best(n: int, temperature: float) -> Law:
    """One of n draws with chance ∝ e^{u/T}.

    h(u) = n E[1 / (1 + Σ e^{(v − u)/T})] over n − 1 others v. With 1/y = ∫ e^{-xy} dx it is n ∫
    e^{-x} E[e^{-x e^{(v − u)/T}}]^(n−1) dx: the trapezoidal rule in log x, Gauss's rule in v. Both
    curves are polynomials through Chebyshev's points, then on panels, which are read faster.
    """
    v, weights = leggauss(400)
    log_x = np.linspace(-45, 4, 400)
    step, x = log_x[1] - log_x[0], np.exp(log_x)

    def exact(s: np.ndarray) -> np.ndarray:
        others = np.exp(((v + 1) / 2 - s[..., None]) / temperature)
        mean = np.array([np.exp(-x[:, None] * row) @ (weights / 2) for row in others])
        return n * step * (x * np.exp(-x) * mean ** (n - 1)).sum(-1)

    whole = Chebyshev.interpolate(exact, int(40 + 8 / temperature), domain=[0, 1])
    edges = np.linspace(0, 1, int(8 + 4 / temperature))
    width = edges[1]
    parts = [
        Chebyshev.interpolate(lambda t, low=low: whole(low + width * t), DEGREE, domain=[0, 1])
        for low in edges[:-1]
    ]
    powers = np.array(
        [p.convert(kind=Polynomial, domain=[0, 1], window=[0, 1]).coef for p in parts]
    )
    density = PPoly((powers / width ** np.arange(DEGREE + 1)).T[::-1], edges)
    return Law(density.antiderivative(), density)
