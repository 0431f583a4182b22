"""Checks of rewards and quantiles, with the remedies that fit them."""

from typing import Any

import numpy as np

from infalign import _check

from ._shapes import ArrayLike, Float, Real

Quantiles = Real[ArrayLike, "*any"]
"""The argument of elementwise functions on the quantile axis."""

Values = Float[np.ndarray, "*any"]
"""The result of elementwise functions on the quantile axis."""

SCORE_AGAIN = "Score those samples again, or leave their prompts out on purpose."


def finite_rewards(
    name: str, value: Any, *, missing: bool = False
) -> Float[np.ndarray, "prompts k"]:
    """`value` as a non-empty (prompts, samples) float array of finite rewards.

    With `missing`, nan marks a sample that was not drawn (ragged rows); infinities never pass.
    """
    return _check.finite_matrix(name, value, of="rewards", missing=missing, remedy=SCORE_AGAIN)


CALIBRATE = "Raw rewards become quantiles with `infalign.quantiles`."


def quantile(name: str, value: Any) -> Values:
    """`value` as a float array of quantiles in [0, 1]."""
    return _check.unit_interval(name, value, CALIBRATE)


def inner_quantile(name: str, value: Any, why: str) -> Values:
    """`value` as quantiles in (0, 1), for functions that are infinite at the ends."""
    remedy = 'Calibrate with smoothing="add-half", or choose a bounded transform.'
    quantile(name, value)
    return _check.open_unit_interval(name, value, why, remedy)
