"""Argument checks: each returns the clean value, or says what to do instead."""

import math
from numbers import Integral, Real

import numpy as np


def count(name: str, value, *, at_least: int = 1) -> int:
    """`value` as an int of at least `at_least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"`{name}` must be a whole number of at least {at_least}; got {value!r}.")
    return int(value)


def positive(name: str, value) -> float:
    """`value` as a finite float above zero."""
    value = real(name, value)
    if value <= 0:
        raise ValueError(f"`{name}` must be above 0; got {value:g}.")
    return value


def real(name: str, value) -> float:
    """`value` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a finite number; got {value!r}.")
    return float(value)


def unit_interval(name: str, value) -> np.ndarray:
    """`value` as a float array, every entry in [0, 1]. NaN counts as outside."""
    value = np.asarray(value, dtype=float)
    outside = ~((value >= 0) & (value <= 1))
    if outside.any():
        raise ValueError(
            f"`{name}` must lie in [0, 1]; got {value[outside].flat[0]:g} "
            f"({outside.sum()} of {value.size} entries are outside). "
            "Raw rewards become quantiles with `infalign.quantiles`."
        )
    return value


def open_unit_interval(name: str, value, why: str) -> np.ndarray:
    """`value` in (0, 1), for functions that are infinite at the ends; `why` says which."""
    value = unit_interval(name, value)
    ends = (value == 0) | (value == 1)
    if ends.any():
        raise ValueError(
            f"`{name}` must lie strictly inside (0, 1) because {why}; got "
            f"{value[ends].flat[0]:g} ({ends.sum()} of {value.size} entries). "
            'Calibrate with smoothing="add-half", or choose a bounded transform.'
        )
    return value


def finite_rewards(name: str, value, *, missing: bool = False) -> np.ndarray:
    """`value` as a (prompts, samples) float array of finite rewards.

    With `missing`, nan marks a sample that was not drawn (ragged rows); infinities never pass.
    """
    value = np.asarray(value, dtype=float)
    if value.ndim != 2 or value.size == 0:
        raise ValueError(
            f"`{name}` must be a non-empty array of shape (prompts, samples); "
            f"got shape {value.shape}."
        )
    bad = np.isinf(value) if missing else ~np.isfinite(value)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"`{name}` must hold finite rewards; got {value[row, column]:g} at prompt {row}, "
            f"sample {column} ({bad.sum()} of {value.size} entries). "
            "Score those samples again, or leave their prompts out on purpose."
        )
    return value


def enough_samples(name: str, available: np.ndarray, needed: int, procedure) -> None:
    """Every prompt must have as many samples as the procedure draws."""
    short = np.flatnonzero(available < needed)
    if short.size:
        raise ValueError(
            f"`{procedure}` needs at least {needed} samples per prompt in `{name}`; prompt "
            f"{short[0]} has {available[short[0]]} ({short.size} of {available.size} prompts are "
            "short). Draw more samples, or use a smaller n."
        )
