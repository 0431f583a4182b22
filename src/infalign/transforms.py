"""Transforms Φ from quantile to training reward: KL-regularised RL on Φ(C) tilts by e^{Φ/β}.

All are increasing. An affine map of Φ only rescales β, so each is written in the scale in which
its formula is shortest; `Exponential` in [0, 1].
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields

import numpy as np
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator
from scipy.special import ndtri

from . import _check


class AbstractTransform(ABC):
    """An increasing map from quantile to reward."""

    @abstractmethod
    def __call__(self, u: np.ndarray) -> np.ndarray:
        """Φ(u), elementwise, for u in [0, 1]."""

    @property
    @abstractmethod
    def spec(self) -> str:
        """The transform in one word, as `parse_transform` and the command line read it."""

    @property
    @abstractmethod
    def bounded(self) -> bool:
        """Whether Φ is finite at 0 and 1, so that plain mid-rank quantiles can be used."""

    def to_json(self) -> dict:
        """The transform as plain JSON values; `transform_from_json` reads it back."""
        return {"kind": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Identity(AbstractTransform):
    """Φ(u) = u: optimal for plain sampling."""

    def __call__(self, u):
        return _check.unit_interval("u", u)

    @property
    def spec(self):
        return "identity"

    @property
    def bounded(self):
        return True


@dataclass(frozen=True)
class Log(AbstractTransform):
    """Φ(u) = log u: at β = 1/(n − 1) its optimum is exactly the best-of-n distribution."""

    def __call__(self, u):
        return np.log(_check.open_unit_interval("u", u, "log 0 is −∞"))

    @property
    def spec(self):
        return "log"

    @property
    def bounded(self):
        return False


@dataclass(frozen=True)
class Probit(AbstractTransform):
    """Φ(u) = the standard normal quantile: what RLHF on normally distributed rewards amounts to."""

    def __call__(self, u):
        return ndtri(_check.open_unit_interval("u", u, "the normal quantile is infinite there"))

    @property
    def spec(self):
        return "probit"

    @property
    def bounded(self):
        return False


@dataclass(frozen=True)
class Exponential(AbstractTransform):
    """Φ(u) = (e^{tu} − 1)/(e^t − 1): t > 0 for best-of-n, t < 0 for worst-of-n.

    An affine map of the paper's sign(t) e^{tu} (arXiv:2412.19792, section 5) onto [0, 1], so that
    t → 0 is the identity and rewards stay bounded; β scales with it, see `paper_beta`.
    """

    t: float
    """Sharpness: e^t is the ratio of Φ' at the two ends of the axis."""

    def __post_init__(self):
        object.__setattr__(self, "t", _check.real("t", self.t))

    def __call__(self, u):
        u = _check.unit_interval("u", u)
        if self.t == 0:
            return u
        if self.t > 0:  # in powers of e^-t, which cannot overflow
            return np.exp(self.t * (u - 1)) * np.expm1(-self.t * u) / np.expm1(-self.t)
        return np.expm1(self.t * u) / np.expm1(self.t)

    @property
    def spec(self):
        return f"exponential:{self.t!r}".removesuffix(".0")

    @property
    def bounded(self):
        return True

    def paper_beta(self, beta: float) -> float:
        """The β of the paper's unscaled sign(t) e^{tu} that gives the same policy."""
        return float(beta * abs(np.expm1(self.t)))


@dataclass(frozen=True)
class Tabulated(AbstractTransform):
    """Φ given by its values on a grid, joined by cubics: monotone ones, or with given slopes.

    The grid must start at 0, end at 1 and increase; the values must not decrease.
    """

    u: tuple[float, ...]
    """Grid of quantiles, from 0 to 1."""

    phi: tuple[float, ...]
    """Φ on that grid."""

    slope: tuple[float, ...] | None = None
    """Φ' on that grid, where it is known; not negative."""

    def __post_init__(self):
        u, phi = np.asarray(self.u, float), np.asarray(self.phi, float)
        if u.ndim != 1 or u.shape != phi.shape or u.size < 2:
            raise ValueError(
                f"`Tabulated(u, phi)` needs two lists of one length, at least 2; "
                f"got shapes {u.shape} and {phi.shape}."
            )
        rising = np.diff(u) > 0  # False where u is nan
        if u[0] != 0 or u[-1] != 1 or not rising.all():
            raise ValueError(
                f"`u` must increase from 0 to 1; got {u[0]:g} … {u[-1]:g} with "
                f"{(~rising).sum()} of {rising.size} steps that do not increase."
            )
        if not np.isfinite(phi).all() or (np.diff(phi) < 0).any():
            raise ValueError(
                f"`phi` must be finite and must not decrease; {(~np.isfinite(phi)).sum()} values "
                f"are not finite and {(np.diff(phi) < 0).sum()} steps go down."
            )
        object.__setattr__(self, "u", tuple(u.tolist()))
        object.__setattr__(self, "phi", tuple(phi.tolist()))
        if self.slope is None:
            curve = PchipInterpolator(u, phi)
        else:
            slope = np.asarray(self.slope, float)
            if slope.shape != u.shape or not (np.isfinite(slope) & (slope >= 0)).all():
                raise ValueError(
                    f"`slope` must hold {u.size} finite values of at least 0, one per point of "
                    f"`u`; got shape {slope.shape}, least value {slope.min(initial=0):g}."
                )
            object.__setattr__(self, "slope", tuple(slope.tolist()))
            curve = CubicHermiteSpline(u, phi, slope)
        object.__setattr__(self, "_curve", curve)

    def __call__(self, u):
        return self._curve(_check.unit_interval("u", u))

    @property
    def spec(self):
        return "tabulated"

    @property
    def bounded(self):
        return True


TRANSFORMS = {c.__name__: c for c in (Identity, Log, Probit, Exponential, Tabulated)}


def transform_from_json(data: dict) -> AbstractTransform:
    """The transform that `to_json` wrote; ValueError if `data` is not one."""
    kind = TRANSFORMS.get(data.get("kind"))
    names = {field.name for field in fields(kind)} if kind else set()
    if kind is None or set(data) != names | {"kind"}:
        raise ValueError(
            f"`data` must be a transform written by `to_json` "
            f"({', '.join(sorted(TRANSFORMS))}); got {str(data)[:80]!r}."
        )
    return kind(**{name: data[name] for name in names})


def parse_transform(text: str) -> AbstractTransform:
    """The transform named by `text`: `identity`, `log`, `probit` or `exponential:T`.

    >>> parse_transform("exponential:10")
    Exponential(t=10.0)
    """
    named = {"identity": Identity, "log": Log, "probit": Probit, "exponential": Exponential}
    name, *arguments = text.split(":")
    try:
        return named[name](*map(float, arguments))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`transform` must be identity, log, probit or exponential:T with a number T; "
            f"got {text!r}."
        ) from error
