"""Transforms, tilted policies, and quantiles by counting."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm

import infalign as ia
from infalign.calibration import Counting

from .check import Errors, Family
from .procedures import Pair, by_rank
from .quadrature import Tilt


@dataclass(frozen=True)
class Question:
    """A transform, a strength, and rewards of one prompt with ties."""

    transform: ia.core.AbstractTransform
    beta: float
    procedure: Pair
    against: Pair
    rewards: list[float]
    reference: list[float]

    def __repr__(self) -> str:
        return (
            f"TiltedPolicy({self.transform}, {self.beta}), {self.procedure} against "
            f"{self.against}; quantiles({self.rewards}, {self.reference})"
        )


INSIDE = np.linspace(0.001, 0.999, 999)


def formula(transform: ia.core.AbstractTransform, u: np.ndarray) -> np.ndarray | None:
    """The transform's definition; None for a table."""
    match transform:
        case ia.Identity():
            return u
        case ia.Log():
            return np.log(u)
        case ia.Probit():
            return norm.ppf(u)
        case ia.Power():
            return u**transform.a
        case ia.Exponential():
            return np.expm1(transform.t * u) / np.expm1(transform.t)
    return None


def draw(rng: np.random.Generator) -> Question:
    kind = rng.integers(6)
    if kind < 3:
        transform = (ia.Identity(), ia.Log(), ia.Probit())[kind]
    elif kind == 3:
        transform = ia.Exponential(float(round(rng.normal() * rng.choice([1e-3, 1, 10, 40]), 6)))
    elif kind == 4:
        transform = ia.Power(float(round(np.exp(rng.normal()), 3)))
    else:
        inside = np.unique(np.round(rng.uniform(0.01, 0.99, size=5), 4))
        heights = np.sort(rng.normal(size=inside.size + 2))
        transform = ia.Tabulated((0.0, *inside.tolist(), 1.0), tuple(heights.tolist()))
    levels = int(rng.choice([2, 4, 50]))
    rewards, reference = (
        [float(r) for r in rng.integers(0, levels, size=int(rng.integers(1, 12)))] for _ in "ab"
    )
    # At a smaller β, a probit puts mass where doubles near 1 are too far apart to integrate over.
    least = 0.6 if isinstance(transform, ia.Probit) else 0.03
    beta = float(f"{np.exp(rng.uniform(np.log(least), np.log(3))):.3g}")
    return Question(transform, beta, by_rank(rng, 32), by_rank(rng, 32), rewards, reference)


def answer(q: Question) -> dict[str, object]:
    policy = ia.TiltedPolicy(q.transform, q.beta)
    at = np.linspace(0.01, 0.99, 9)
    fitted = Counting().fit([q.reference])
    rows = np.zeros(len(q.rewards), int)
    return {
        "values": q.transform(INSIDE),
        "average": q.transform.average(at[:-1], at[1:]),
        "kl": policy.kl,
        "win rate": policy.win_rate(q.procedure.procedure, q.against.procedure),
        "cdf": policy.cdf(at),
        "density": policy.density(at),
        "quantiles": ia.quantiles([q.rewards], [q.reference])[0],
        "smoothed": ia.quantiles([q.rewards], [q.reference], smoothing="add-half")[0],
        "calibrated": fitted.quantiles(rows, q.rewards),
        "shaped": fitted.shaped(rows, q.rewards, q.transform) if q.transform.bounded else None,
    }


def judge(q: Question, answers: dict[str, object]) -> Errors:
    last = np.nextafter(1, 0)  # where a probit is still finite
    tilt = Tilt.of(
        lambda u: q.transform(np.minimum(u, last)) / q.beta,
        q.against.law,
        ends=_knots(q.transform, 0, 1) or [],
    )
    defined = formula(q.transform, INSIDE)
    at = np.linspace(0.01, 0.99, 9)
    values = lambda u: float(q.transform(np.array(u)))  # noqa: E731
    average = [
        quad(values, a, b, epsabs=1e-12, points=_knots(q.transform, a, b))[0] / (b - a)
        for a, b in pairwise(at)
    ]
    counted = [
        (sum(r < x for r in q.reference), sum(r == x for r in q.reference)) for x in q.rewards
    ]
    size = len(q.reference)
    middle = np.array([(below + tied / 2) / size for below, tied in counted])
    errors = {
        "values, relative": 0.0
        if defined is None
        else _most(answers["values"] / np.where(defined == 0, 1, defined), np.sign(defined**2)),
        "falls": max(float(-np.diff(answers["values"]).min()), 0.0),
        "average over an interval": _most(answers["average"], np.array(average)),
        "KL, relative": abs(answers["kl"] - tilt.kl) / max(tilt.kl, 1),
        "win rate": abs(answers["win rate"] - 1 + tilt.loss(q.procedure.law, q.against.law)),
        "density, relative": _most(answers["density"] / tilt.density_at(at), 1.0),
        "CDF": _most(answers["cdf"], tilt.cdf_at(at)),
        "quantiles": _most(answers["quantiles"], middle),
        "smoothed quantiles": _most(answers["smoothed"], (middle * size + 0.5) / (size + 1)),
        "calibrated quantiles": _most(answers["calibrated"], middle),
    }
    if isinstance(q.transform, ia.Probit):  # a normal reward moves by 1/β standard deviations
        errors["KL, relative"] = abs(answers["kl"] * 2 * q.beta**2 - 1)
    if answers["shaped"] is not None:
        shaped = [
            quad(
                values,
                below / size,
                (below + tied) / size,
                epsabs=1e-12,
                points=_knots(q.transform, below / size, (below + tied) / size),
            )[0]
            * size
            / tied
            if tied
            else values(below / size)
            for below, tied in counted
        ]
        errors["shaped rewards of ties"] = _most(answers["shaped"], np.array(shaped))
    return errors


def _knots(transform: ia.core.AbstractTransform, low: float, high: float) -> list[float] | None:
    """Points of a table between two numbers, where its derivatives jump."""
    inside = [u for u in getattr(transform, "u", ()) if low < u < high]
    return inside or None


def _most(one: object, other: object) -> float:
    return float(np.max(np.abs(np.asarray(one) - other), initial=0.0))


TRANSFORMS = Family(
    "transforms and quantiles",
    "Each transform: its values by its definition, that it rises, its average over an interval, "
    "and its tilted policy (KL, density, CDF, and win rates of procedures of up to 32 draws), by "
    "adaptive quadrature. Quantiles of rewards with ties, plain and smoothed, and the training "
    "rewards of `Counting`, by counting and by quadrature over the quantiles that ties share.",
    draw,
    answer,
    judge,
    {
        "values, relative": 1e-12,
        "falls": 0,
        "average over an interval": 1e-9,
        "KL, relative": 1e-8,
        "win rate": 1e-8,
        "density, relative": 1e-8,
        "CDF": 1e-8,
        "quantiles": 1e-15,
        "smoothed quantiles": 1e-15,
        "calibrated quantiles": 1e-15,
        "shaped rewards of ties": 1e-9,
    },
    share=0.3,
)
