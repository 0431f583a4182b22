"""The win rate between responses of equal length, from pairs and their length differences.

A logistic regression of the outcomes on the length difference predicts it at equal length, where
the pairs identify it; elsewhere there are bounds over all plausible slopes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import expit

from infalign import _check
from infalign._look import Shown
from infalign.errors import ArgumentError

from .uncertainty import Bounds, Estimate, over_prompts

__all__ = ["LengthControl", "Pairs", "at_equal_length", "pair_control"]

NORMAL = 1.96
"""Reach of a 95 % interval, in standard deviations of a normal distribution."""

ROUNDING = 1e-9
"""Difference of shares that is rounding."""

PRIOR_SD = 10.0
"""Standard deviation, in log-odds, of the normal prior of both coefficients. It keeps estimates
finite if length decides every outcome; otherwise it is negligible with a dozen prompts or more."""

ENOUGH = 0.2
"""Least share of pairs on each side of equal length, or at it, for a win rate at equal length that
the data identify."""

NEAR = 0.1
"""Least share of pairs whose lengths differ by at most half of the scale, for the same."""

SLOPES = (0.0, 3.0)
"""Slopes that the bounds always allow for: from no preference for length to log-odds of 3, or 95
wins in 100, by length alone. The slopes that AlpacaEval 2 has published, of more than 150 models,
lie between 0.2 and 3.0, most of them between 1 and 2."""


@dataclass(frozen=True)
class LengthControl(Shown):
    """A win rate, and the win rate predicted between responses of equal length.

    The prediction is identified where pairs lie on both sides of equal length and close to it: at
    least a fifth of the pairs are not longer, a fifth are not shorter, and a tenth differ by at
    most half of `scale`. Elsewhere there is no figure: `controlled` and `explained` are `Bounds`,
    and `warning` says why.
    """

    win_rate: Estimate
    controlled: Estimate
    """Predicted win rate of selected responses that are as long as the reference's."""

    explained: Estimate
    """`win_rate` − `controlled`, paired by prompt: the part explained by length."""

    bounds: Bounds
    """The win rates at equal length that are possible if the slope is not the fitted one."""

    slope: float
    """Log-odds of winning per unit of tanh(difference / `scale`)."""

    slopes: tuple[float, float]
    """The slopes that `bounds` allow for: `SLOPES`, and the 95 % interval of `slope`."""

    scale: float
    """Standard deviation of the length difference of selected pairs, in the lengths' unit."""

    longer: float
    """Share of selected pairs in which the policy's response is the longer one."""

    shorter: float
    """Share of selected pairs in which it is the shorter one."""

    near: float
    """Share of selected pairs whose lengths differ by at most half of `scale`."""

    @property
    def overlap(self) -> float:
        """Share of pairs that are not on the more frequent side of equal length, 0 to 1."""
        return 1 - max(self.longer, self.shorter)

    @property
    def identified(self) -> bool:
        """Whether enough pairs lie on both sides of equal length, and close to it."""
        return self.overlap >= ENOUGH - ROUNDING and self.near >= NEAR - ROUNDING

    @property
    def warning(self) -> str | None:
        """Why there is no win rate at equal length, but bounds; None if there is one."""
        if self.identified:
            return None
        if self.overlap < ENOUGH - ROUNDING:
            share, side = max((self.longer, "longer"), (self.shorter, "shorter"))
            why = f"in {100 * share:.3g} % of them the policy's response is the {side} one"
        else:
            why = f"only {100 * self.near:.3g} % of them have about equal lengths"
        return (
            "The selected pairs do not identify the win rate at equal length, but bounds: " + why
        ) + "."

    def figures(self) -> dict[str, Any]:
        """The win rate at equal length and what to read beside it, as plain values."""
        return {
            **self.controlled.figures(),
            "longer": self.longer,
            "shorter": self.shorter,
            "overlap": self.overlap,
            "identified": self.identified,
            "bounds": [self.bounds.low, self.bounds.high],
            "warning": self.warning,
        }

    def __str__(self) -> str:
        return (
            f"{self.controlled} at equal length (overlap {100 * self.overlap:.3g} %), "
            f"{self.win_rate} as selected"
        )


def pair_control(outcomes, differences, *, prompts: Sequence | None = None) -> LengthControl:
    """`length_controlled` for judged pairs, such as the annotations of AlpacaEval.

    - `outcomes`: chance or share of wins of the policy, 0 to 1, shape (pairs,).
    - `differences`: length of the policy's response minus that of the other one, in any unit.
    - `prompts`: id of each pair's prompt; every prompt has the same weight, and is the unit of the
      intervals. Default: one pair per prompt.

    >>> rng = np.random.default_rng(0)
    >>> longer = rng.normal(size=400)
    >>> control = pair_control(rng.random(400) < expit(2 * longer), longer)
    >>> control.identified, round(control.controlled.value, 1)
    (True, 0.5)
    """
    won = _check.numbers("outcomes", outcomes)
    d = _check.numbers("differences", differences)
    if won.ndim != 1 or d.shape != won.shape or not won.size:
        raise ArgumentError(
            "differences",
            "must have one number per outcome, shape (pairs,); got shape "
            f"{d.shape} for outcomes of shape {won.shape}.",
        )
    if not np.isfinite(d).all():
        raise ArgumentError("differences", "must be finite.")
    if not ((won >= 0) & (won <= 1)).all():
        raise ArgumentError("outcomes", "must lie between 0 and 1.")
    own = list(range(won.size)) if prompts is None else list(_check.entries("prompts", prompts))
    if len(own) != won.size:
        raise ArgumentError(
            "prompts", f"must have one id per outcome; got {len(own)} for {won.size} outcomes."
        )
    places: dict = {}
    prompt = np.array([places.setdefault(name, len(places)) for name in own])
    weight = 1 / np.bincount(prompt)[prompt]
    return at_equal_length(Pairs(d, weight, weight * won, prompt, len(places)))


@dataclass(frozen=True, eq=False)
class Pairs(Shown):
    """All pairs: the difference in length, the weight, the weight of wins, and the prompt."""

    d: np.ndarray
    weight: np.ndarray
    won: np.ndarray
    prompt: np.ndarray
    prompts: int

    def share(self, which: np.ndarray) -> float:
        return float(self.weight[which].sum() / self.prompts)

    def influence(self, value: float, moved: np.ndarray) -> np.ndarray:
        """Jackknife pseudo-values, shifted so that their mean is the estimate itself."""
        pseudo = (self.prompts - 1) * (value - moved)
        return pseudo + value - pseudo.mean()


def at_equal_length(pairs: Pairs) -> LengthControl:
    """Length control of weighted pairs; the weights of each prompt sum to 1."""
    d, weight, prompts = pairs.d, pairs.weight, pairs.prompts
    mean = weight @ d / prompts
    scale = float(np.sqrt(weight @ (d - mean) ** 2 / prompts))
    x = np.tanh(d / scale) if scale > 0 else np.sign(d)
    plain = over_prompts(np.bincount(pairs.prompt, pairs.won, prompts), bounds=(0, 1))
    fit = _logistic(np.stack([np.ones_like(x), x]), np.zeros_like(x), pairs)
    slopes = _slopes(fit, pairs)
    controlled = _at_equal(fit, pairs, plain)
    possible = [
        _at_equal(_logistic(np.ones((1, x.size)), c * x, pairs), pairs, plain) for c in slopes
    ]
    bounds, unexplained = (_union([*some]) for some in zip(*possible, strict=True))
    control = LengthControl(
        plain,
        *controlled,
        bounds=bounds,
        slope=float(fit.coefficients[1]),
        slopes=slopes,
        scale=scale,
        longer=pairs.share(d > 0),
        shorter=pairs.share(d < 0),
        near=pairs.share(np.abs(d) <= scale / 2),
    )
    if control.identified:
        return control
    return replace(control, controlled=bounds, explained=unexplained)


def _slopes(fit: "_Fit", pairs: Pairs) -> tuple[float, float]:
    """The interval of the fitted slope, by the wider of two errors, and all of `SLOPES`."""
    slope = float(fit.coefficients[1])
    estimate = over_prompts(pairs.influence(slope, fit.moved[:, 1]))
    reach = NORMAL * fit.sd[1]
    ends = [slope - reach, slope + reach, estimate.low, estimate.high, *SLOPES]
    return float(np.nanmin(ends)), float(np.nanmax(ends))


def _at_equal(fit: "_Fit", pairs: Pairs, plain: Estimate) -> tuple[Estimate, Estimate]:
    """The win rate at equal length, and what of the plain one length explains."""
    influence = pairs.influence(float(expit(fit.coefficients[0])), expit(fit.moved[:, 0]))
    return (
        over_prompts(influence, bounds=(0, 1)),
        over_prompts(plain.per_prompt - influence, bounds=(-1, 1)),
    )


def _union(estimates: list[Estimate]) -> Bounds:
    low, high = min(e.low for e in estimates), max(e.high for e in estimates)
    return Bounds.between(low, high, len(estimates[0].per_prompt))


@dataclass(frozen=True, eq=False)
class _Fit:
    coefficients: np.ndarray
    moved: np.ndarray
    """Coefficients with each prompt left out, shape (prompts, coefficients), each approximated by
    one Newton step."""

    sd: np.ndarray
    """Standard deviations of the coefficients' normal approximation, with one pair per prompt."""


def _logistic(design: np.ndarray, offset: np.ndarray, pairs: Pairs) -> _Fit:
    """Penalized logistic regression of wins.

    - `design`: one row for each coefficient, shape (coefficients, pairs).
    - `offset`: log-odds that are given.
    """
    weight, won, prompt, prompts = pairs.weight, pairs.won, pairs.prompt, pairs.prompts
    prior = np.eye(len(design)) / PRIOR_SD**2

    def loss(c):
        eta = offset + c @ design
        return weight @ np.logaddexp(0, eta) - won @ eta + c @ prior @ c / 2

    def derivatives(c):
        p = expit(offset + c @ design)
        slopes = design * (weight * p - won)
        return p, slopes, (design * (weight * p * (1 - p))) @ design.T + prior

    c = np.zeros(len(design))
    while True:
        p, slopes, curvature = derivatives(c)
        step = np.linalg.solve(curvature, slopes.sum(1) + prior @ c)
        size = 1.0
        while loss(c - size * step) >= loss(c) and size > 1e-3:
            size /= 2
        if size <= 1e-3 or np.abs(step).max() < 1e-12:
            break
        c = c - size * step
    # Leaving a prompt out subtracts its slopes from the gradient, which is 0 at the optimum, and
    # its own matrix Σ w p (1 - p) x xᵀ from the curvature.
    by_prompt = np.stack([np.bincount(prompt, s, prompts) for s in slopes], axis=1)
    inner = weight * p * (1 - p)
    own = np.stack(
        [
            np.stack([np.bincount(prompt, inner * a * b, prompts) for a in design], 1)
            for b in design
        ],
        axis=2,
    )
    moved = c + np.linalg.solve(curvature - own, by_prompt[..., None])[..., 0]
    return _Fit(c, moved, np.sqrt(np.diag(np.linalg.inv(curvature))))
