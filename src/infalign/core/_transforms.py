"""Transforms Φ from quantile to training reward: KL-regularized RL on Φ(C) tilts by e^{Φ/β}.

All are increasing, except for tables made for `Rewind`. An affine map of Φ only rescales β, so each
transform is written in the scale in which its formula is shortest; `Exponential` is scaled to [0,
1].
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from inspect import signature
from typing import Any, TypeVar

import numpy as np
from scipy.special import ndtri, xlogy

from infalign import _check
from infalign._look import Pictured, Shown, label

from ._inputs import Quantiles, Values, inner_quantile, quantile
from ._registry import Registry
from ._shapes import Float

STEPS = np.linspace(0, 1, 201)
"""Quantiles of plots and data frames."""


class AbstractTransform(Pictured, ABC):
    """An increasing map from quantile to reward."""

    @abstractmethod
    def __call__(self, u: Quantiles) -> Values:
        """Φ(u), elementwise, for u in [0, 1]."""

    def below_1(self, distance: Quantiles) -> Values:
        """Φ(1 − distance), elementwise; exact near 1, where rounding of 1 − distance would
        matter."""
        return self(1 - _check.unit_interval("distance", distance))

    @property
    def jumps(self) -> tuple[float, ...]:
        """Quantiles at which Φ jumps, for quadrature."""
        return ()

    @property
    def kinks(self) -> tuple[float, ...]:
        """Quantiles between which Φ is smooth, for quadrature."""
        return ()

    @property
    def spec(self) -> str:
        """The text form, as `parse_transform` reads it; the `repr` of an unregistered transform."""
        return TRANSFORMS.spec(self)

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether Φ is finite at 0 and 1, so that plain mid-rank quantiles can be used."""

    @abstractmethod
    def integral(self, u: Quantiles) -> Values:
        """∫₀^u Φ, elementwise, for u in [0, 1]; finite at both ends for every transform here."""

    def average(self, low: Quantiles, high: Quantiles) -> Values:
        """Mean of Φ over [low, high], elementwise; Φ(low) where the two are equal.

        This is the training reward of an atom: responses with tied rewards share the quantiles from
        `low` to `high`, and a policy gains the mean of Φ over these, not its value at the midpoint.
        """
        low, high = np.broadcast_arrays(
            _check.unit_interval("low", low), _check.unit_interval("high", high)
        )
        if (high < low).any():
            raise ValueError(
                f"`high` must not lie below `low`; got [{low[high < low].flat[0]:g}, "
                f"{high[high < low].flat[0]:g}] ({(high < low).sum()} of {low.size} intervals)."
            )
        wide = high > low
        width = np.where(wide, high - low, 1)
        result = (self.integral(high) - self.integral(low)) / width
        if not wide.all():
            result = np.where(wide, result, self(np.where(wide, 0.5, low)))
        return result

    def _columns(self) -> dict[str, np.ndarray]:
        u = STEPS if self.bounded else STEPS[1:-1]
        return {"u": u, "phi": self(u)}

    def _draw(self, axes: Any) -> None:
        columns = self._columns()
        axes.plot(columns["u"], columns["phi"])
        label(axes, x="quantile u", y="reward Φ(u)", title=self.spec)

    def to_json(self) -> dict[str, Any]:
        """The transform as plain JSON values; `transform_from_json` reads it back."""
        names = signature(type(self)).parameters
        return {"kind": type(self).__name__, **{name: getattr(self, name) for name in names}}


TRANSFORMS: Registry[AbstractTransform] = Registry("transform", AbstractTransform)
"""Every transform that text or JSON can name."""

C = TypeVar("C", bound=type[AbstractTransform])


def register_transform(
    name: str,
    *,
    words: str | None = None,
    label: str | None = None,
    example: str | None = None,
    form: str | None = None,
) -> Callable[[C], C]:
    """Class decorator that registers a transform under its name in text and JSON.

    The arguments are those of `register_procedure`. The dataclass's fields must be JSON values.
    """
    return TRANSFORMS.register(name, words=words, label=label, example=example, form=form)


@register_transform("identity")
@dataclass(frozen=True)
class Identity(AbstractTransform):
    """Φ(u) = u: optimal for plain sampling."""

    def __call__(self, u: Quantiles) -> Values:
        return quantile("u", u)

    def integral(self, u: Quantiles) -> Values:
        return quantile("u", u) ** 2 / 2

    @property
    def bounded(self) -> bool:
        return True


@register_transform("log")
@dataclass(frozen=True)
class Log(AbstractTransform):
    """Φ(u) = log u: at β = 1/(n − 1) its optimum is exactly the best-of-n distribution."""

    def __call__(self, u: Quantiles) -> Values:
        return np.log(inner_quantile("u", u, "log 0 is −∞"))

    def below_1(self, distance: Quantiles) -> Values:
        return np.log1p(-inner_quantile("distance", distance, "log 0 is −∞"))

    def integral(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        return xlogy(u, u) - u

    @property
    def bounded(self) -> bool:
        return False


@register_transform("probit")
@dataclass(frozen=True)
class Probit(AbstractTransform):
    """Φ(u) = the standard normal quantile: RLHF on a normally distributed raw reward."""

    def __call__(self, u: Quantiles) -> Values:
        return ndtri(inner_quantile("u", u, "the normal quantile is infinite there"))

    def below_1(self, distance: Quantiles) -> Values:
        return -ndtri(inner_quantile("distance", distance, "the normal quantile is infinite there"))

    def integral(self, u: Quantiles) -> Values:
        # d/dz of the normal density is -z times it.
        z = ndtri(quantile("u", u))
        return -np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    @property
    def bounded(self) -> bool:
        return False


@register_transform("exponential", example="exponential:10")
@dataclass(frozen=True)
class Exponential(AbstractTransform):
    """Φ(u) = (e^{tu} − 1)/(e^t − 1): t > 0 for best-of-n, t < 0 for worst-of-n.

    An affine map of the paper's sign(t) e^{tu} (arXiv:2412.19792, section 5) onto [0, 1], so that t
    → 0 is the identity and rewards stay bounded. β is rescaled accordingly; see `paper_beta`.
    """

    t: float
    """Sharpness: e^t is the ratio of Φ' at the two ends of the axis."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "t", _check.real("t", self.t))

    def __call__(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        if (
            abs(self.t) < 1e-14
        ):  # equals u up to rounding; a tinier t would lose all digits of e^{tu} - 1
            return u
        if self.t > 0:  # in powers of e^-t, which cannot overflow
            return np.exp(self.t * (u - 1)) * np.expm1(-self.t * u) / np.expm1(-self.t)
        return np.expm1(self.t * u) / np.expm1(self.t)

    def integral(self, u: Quantiles) -> Values:
        u = quantile("u", u)
        if abs(self.t) < 0.5:  # the closed form cancels; 12 Gauss nodes are exact to rounding
            nodes, weights = np.polynomial.legendre.leggauss(12)
            return self(u[..., None] * (1 + nodes) / 2) @ weights * u / 2
        if self.t > 0:
            scale = -np.expm1(-self.t)
            rise = np.exp(self.t * (u - 1)) - np.exp(-self.t)
            return (rise / self.t - u * np.exp(-self.t)) / scale
        return (np.expm1(self.t * u) / self.t - u) / np.expm1(self.t)

    @property
    def bounded(self) -> bool:
        return True

    def paper_beta(self, beta: float) -> float:
        """The β of the paper's unscaled sign(t) e^{tu} that gives the same policy."""
        return float(_check.positive("beta", beta) * abs(np.expm1(self.t)))


@register_transform("power", example="power:7")
@dataclass(frozen=True)
class Power(AbstractTransform):
    """Φ(u) = u^a. At a = 1 it is the identity; at a = 2n − 1 it is the win-rate gradient of
    best-of-n at the reference."""

    a: float
    """Exponent, > 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "a", _check.positive("a", self.a))

    def __call__(self, u: Quantiles) -> Values:
        return quantile("u", u) ** self.a

    def integral(self, u: Quantiles) -> Values:
        return quantile("u", u) ** (self.a + 1) / (self.a + 1)

    @property
    def bounded(self) -> bool:
        return True


FEW_POINTS = 300
"""Number of points up to which each piece of a table is integrated by itself."""


SHORT = 8
"""Number of points up to which the `repr` of a table shows all of them."""


@register_transform("tabulated", form="")
@dataclass(frozen=True)
class Tabulated(Shown, AbstractTransform):
    """Φ interpolated on a grid by cubics, either monotone or with given slopes.

    The grid must start at 0, end at 1 and increase; the values must not decrease, unless
    `increasing` is False. Φ jumps at a quantile that is listed twice.
    """

    u: tuple[float, ...]
    """Grid of quantiles, from 0 to 1."""

    phi: tuple[float, ...]
    """Φ on that grid."""

    slope: tuple[float, ...] | None = None
    """Φ' on that grid, at least 0. Default: slopes of a monotone cubic."""

    increasing: bool = True
    """Whether falling values are rejected. Only `Rewind` needs falling values, because a response
    just above its threshold is worse than another draw."""

    distance: tuple[float, ...] | None = None
    """1 − u on that grid, which then has no jumps. For policies with mass so near 1 that
    floating-point numbers cannot tell its quantiles apart. Default: 1 − u as computed."""

    def _facts(self) -> dict[str, object]:
        if len(self.u) <= SHORT:
            return super()._facts()
        jumps = {"jumps": self.jumps} if self.jumps else {}
        return {"points": len(self.u), "phi": self.phi, **jumps, "increasing": self.increasing}

    def _columns(self) -> dict[str, np.ndarray]:
        return {"u": np.asarray(self.u), "phi": np.asarray(self.phi)}

    def __post_init__(self) -> None:
        u, phi = _check.numbers("u", self.u), _check.numbers("phi", self.phi)
        if u.ndim != 1 or u.shape != phi.shape or u.size < 2:
            raise ValueError(
                f"`u` and `phi` must be lists of one length, at least 2; got shapes {u.shape} and "
                f"{phi.shape}."
            )
        _check.truth("increasing", self.increasing)
        if self.distance is not None:
            distance = _distances(self.distance, u)
            object.__setattr__(self, "distance", tuple(distance.tolist()))
        twice = np.flatnonzero(np.diff(u) == 0) if self.distance is None else np.zeros(0)
        rising = np.diff(u) >= 0  # False where u is nan
        if u[0] != 0 or u[-1] != 1 or not rising.all() or (np.diff(twice) < 2).any():
            raise ValueError(
                f"`u` must increase from 0 to 1, each quantile at most twice; got {u[0]:g} … "
                f"{u[-1]:g} with {(~rising).sum()} of {rising.size} steps that go down and "
                f"{(np.diff(twice) < 2).sum()} quantiles more than twice."
            )
        falls = (np.diff(phi) < 0) & self.increasing
        if not np.isfinite(phi).all() or falls.any():
            raise ValueError(
                f"`phi` must be finite and must not decrease; {(~np.isfinite(phi)).sum()} values "
                f"are not finite and {falls.sum()} steps go down."
            )
        object.__setattr__(self, "u", tuple(u.tolist()))
        object.__setattr__(self, "phi", tuple(phi.tolist()))
        if self.slope is not None:
            slope = _check.numbers("slope", self.slope)
            if slope.shape != u.shape or not (np.isfinite(slope) & (slope >= 0)).all():
                raise ValueError(
                    f"`slope` must hold {u.size} finite values of at least 0, one per point of "
                    f"`u`; got shape {slope.shape}, least value {slope.min(initial=0):g}."
                )
            object.__setattr__(self, "slope", tuple(slope.tolist()))

    @cached_property
    def _starts(self) -> Float[np.ndarray, "_"]:
        """Quantiles at which a piece starts after a jump."""
        if self.distance is not None:
            return np.zeros(0)
        u = np.asarray(self.u)
        return u[np.flatnonzero(np.diff(u) == 0)]

    @cached_property
    def _curves(self) -> list[Any]:
        """One cubic per piece between jumps."""
        u, phi = np.asarray(self.u), np.asarray(self.phi)
        slope = None if self.slope is None else np.asarray(self.slope)
        if self.distance is not None:
            return [_TwoSided(u, np.asarray(self.distance), phi, slope)]
        pieces = np.split(np.arange(u.size), np.flatnonzero(np.diff(u) == 0) + 1)
        return [_curve(u[i], phi[i], None if slope is None else slope[i]) for i in pieces]

    def below_1(self, distance: Quantiles) -> Values:
        if self.distance is None:
            return super().below_1(distance)
        return self._curves[0].below_1(_check.unit_interval("distance", distance))

    def to_json(self) -> dict[str, Any]:
        data = super().to_json()
        if self.distance is None:  # as it was written before it could be given
            del data["distance"]
        return data

    def _by_piece(self, u: Quantiles, evaluate: Callable[[int, np.ndarray], np.ndarray]) -> Values:
        """`evaluate(number, u)` for the piece, between two jumps, that contains each u."""
        u = quantile("u", u)
        if len(self._curves) == 1:
            return evaluate(0, u)
        piece = np.searchsorted(self._starts, u, "right")
        return np.select(
            [piece == i for i in range(len(self._curves))],
            [evaluate(i, u) for i in range(len(self._curves))],
        )

    def __call__(self, u: Quantiles) -> Values:
        return self._by_piece(u, lambda i, v: self._curves[i](v))

    def integral(self, u: Quantiles) -> Values:
        sums = [curve.antiderivative() for curve in self._curves]
        ends = np.append(self._starts, 1.0)
        before = np.cumsum([0.0, *(float(s(e)) for s, e in zip(sums, ends, strict=True))])
        return self._by_piece(u, lambda i, v: before[i] + sums[i](v))

    @property
    def jumps(self) -> tuple[float, ...]:
        return tuple(self._starts)

    @property
    def kinks(self) -> tuple[float, ...]:
        # A steep piece may lie between two nodes of a quadrature, which then does not notice it.
        # The pieces of a table with many points are as narrow as panels become by themselves.
        return self.u[1:-1] if len(self.u) <= FEW_POINTS else ()

    @property
    def bounded(self) -> bool:
        return True


def _distances(value: object, u: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
    """1 − u at each point, checked."""
    distance = _check.numbers("distance", value)
    if distance.shape != u.shape or not (np.abs(u + distance - 1) <= 1e-15).all():
        raise ValueError(
            f"`distance` must hold 1 − u for each of the {u.size} points of `u`; got shape "
            f"{distance.shape}."
        )
    rising = np.where(u[1:] < 0.5, np.diff(u) > 0, np.diff(distance) < 0)
    if distance[0] != 1 or distance[-1] != 0 or not rising.all():
        raise ValueError(
            f"`distance` must fall from 1 to 0; got {distance[0]:g} … {distance[-1]:g} with "
            f"{(~rising).sum()} of {rising.size} steps that do not."
        )
    return distance


class _TwoSided:
    """A piecewise cubic in u up to the middle of the axis, and in 1 − u above."""

    def __init__(
        self,
        u: np.ndarray,
        distance: np.ndarray,
        phi: np.ndarray,
        slope: np.ndarray | None,
    ) -> None:
        middle = min(int(np.searchsorted(u, 0.5)), u.size - 2)
        self.middle = float(distance[middle])
        low, high = slice(None, middle + 1), slice(None, None if middle == 0 else middle - 1, -1)
        up = None if slope is None else slope[low]
        down = None if slope is None else -slope[high]
        self.low = _curve(u[low], phi[low], up) if middle else None
        self.high = _curve(distance[high], phi[high], down)

    def __call__(self, u: np.ndarray) -> np.ndarray:
        return self._either(u, 1 - u)

    def below_1(self, distance: np.ndarray) -> np.ndarray:
        return self._either(1 - distance, distance)

    def _either(self, u: np.ndarray, distance: np.ndarray) -> np.ndarray:
        high = self.high(np.minimum(distance, self.middle))
        return high if self.low is None else np.where(distance > self.middle, self.low(u), high)

    def antiderivative(self) -> Callable[[np.ndarray], np.ndarray]:
        """∫₀^u, as a function of u."""
        high = self.high.antiderivative()
        low = None if self.low is None else self.low.antiderivative()
        before = 0.0 if low is None else float(low(1 - self.middle))

        def integral(u: np.ndarray) -> np.ndarray:
            above = before + high(self.middle) - high(np.minimum(1 - u, self.middle))
            return above if low is None else np.where(1 - u > self.middle, low(u), above)

        return integral


def _curve(u: np.ndarray, phi: np.ndarray, slope: np.ndarray | None) -> Any:
    """A piecewise cubic through one stretch of a table."""
    from scipy.interpolate import CubicHermiteSpline, PchipInterpolator  # slow to import

    if slope is not None:
        return CubicHermiteSpline(u, phi, slope)
    # The slope at a point is a harmonic mean: 1 / ∞ = 0 beside a step whose inverse overflows.
    with np.errstate(over="ignore"):
        return PchipInterpolator(u, phi)


LATER = {"distance"}
"""Parameters of transforms that older files do not have."""


def transform_from_json(data: Mapping[str, Any]) -> AbstractTransform:
    """The transform that `to_json` wrote; ValueError if `data` is not one."""
    kinds = {entry.kind.__name__: entry.kind for entry in TRANSFORMS.values()}
    kind = kinds.get(str(_check.mapping("data", data).get("kind")))
    parameters = signature(kind).parameters if kind else {}
    names = set(data) - {"kind"}
    # Only a parameter that was added later may be missing.
    if kind is None or not set(parameters) - LATER <= names <= set(parameters):
        raise ValueError(
            f"`data` must be a transform written by `to_json` ({', '.join(sorted(kinds))}); got "
            f"{str(data)[:80]!r}."
        )
    return kind(**{name: data[name] for name in names})
