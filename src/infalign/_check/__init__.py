"""Argument checks: each returns the clean value, or an error that names the argument, value and
index.

They know numbers and shapes only. The caller states in `remedy` what its user can do about an
error.
"""

import math
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from numbers import Integral, Real
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from infalign.errors import ArgumentError

from . import arrays
from .shown import nearest as nearest
from .shown import short as short
from .shown import visible as visible

T = TypeVar("T")


MOST = 10**9
"""Largest count of anything, and largest length of a list."""


def count(name: str, value: Any, *, at_least: int = 1) -> int:
    """`value` as an int of at least `at_least` and at most `MOST`."""
    number = _whole(name, value, at_least)
    if number > MOST:
        raise ArgumentError(name, f"must be at most {MOST:,}; got {short(value)}.")
    return number


def seed(name: str, value: Any) -> int:
    """`value` as an int of at least 0. Derived seeds are larger than any count."""
    return _whole(name, value, 0)


def _whole(name: str, value: Any, at_least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ArgumentError(
            name, f"must be a whole number of at least {at_least}; got {short(value)}."
        )
    return int(value)


def positive(name: str, value: Any) -> float:
    """`value` as a finite float above zero."""
    number = real(name, value)
    if number <= 0:
        raise ArgumentError(name, f"must be above 0; got {number:g}.")
    return number


def real(name: str, value: Any) -> float:
    """`value` as a finite float."""
    try:
        if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:  # an integer or a fraction beyond the floats
        pass
    raise ArgumentError(name, f"must be a finite number; got {short(value)}.")


def instance(name: str, value: Any, kind: type[T], such_as: str, remedy: str = "") -> T:
    """`value`, which must be a `kind`; `such_as` names an example of one."""
    if not isinstance(value, kind):
        raise ArgumentError(name, f"must be {such_as}; got {short(value)}." + _after(remedy))
    return value


def one_of(name: str, value: Any, options: Sequence[str]) -> str:
    """`value`, which must be one of the `options`."""
    if not isinstance(value, str) or value not in options:
        raise ArgumentError(name, f"must be one of {', '.join(options)}; got {short(value)}.")
    return value


def text(name: str, value: Any) -> str:
    """`value`, which must be a string."""
    return instance(name, value, str, "a string")


def path(name: str, value: Any, such_as: str) -> Path:
    """`value` as a path; `such_as` names an example for the message."""
    if not isinstance(value, str | PathLike):
        raise ArgumentError(name, f"must be {such_as}; got {short(value)}.")
    return Path(value)


def truth(name: str, value: Any) -> bool:
    """`value`, which must be True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ArgumentError(name, f"must be True or False; got {short(value)}.")
    return bool(value)


def function(name: str, value: Any) -> Any:
    """`value`, which must be a function or another callable that is not a class."""
    if isinstance(value, type) or not callable(value):
        raise ArgumentError(name, f"must be a function; got {short(value)}.")
    return value


def texts(name: str, value: Any) -> list[str]:
    """`value` as a list of strings."""
    items = entries(name, value)
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise ArgumentError(name, f"must hold strings; got {short(item)} at index {place}.")
    return items


def entries(name: str, value: Any) -> list[Any]:
    """`value` as a list. It may be anything with an order and a length, except a string or a
    mapping; an iterator may have no end."""
    refused = isinstance(value, str | bytes | bytearray | Mapping | Set)
    if not refused and isinstance(value, Iterable) and isinstance(value, Sized):
        try:
            if len(value) <= MOST:
                return list(value)
        except Exception:  # a zero-dimensional array, or a class that only looks iterable
            pass
    raise ArgumentError(name, f"must be a list; got {short(value)}.")


def mapping(name: str, value: Any) -> Mapping[Any, Any]:
    """`value`, which must be a mapping such as a dictionary."""
    return instance(name, value, Mapping, "a mapping")


def budget(kl: Any, beta: Any) -> None:
    """Checks that exactly one of the KL budget and the KL strength is given, and is above zero."""
    if (kl is None) == (beta is None):
        raise ValueError(
            "Give exactly one of `kl` (nats) and `beta` (the KL strength); got "
            f"kl={kl!r}, beta={beta!r}."
        )
    positive("beta", beta) if kl is None else positive("kl", kl)


def numbers(name: str, value: Any, *, padded: bool = False) -> np.ndarray:
    """`value` as a float array of any shape: lists, and the arrays of NumPy, torch, pandas, Arrow
    and others. None, `pandas.NA` and masked entries are nan.

    - `padded`: shorter rows are filled with nan, which marks samples that were not drawn.
    """
    try:
        return arrays.read(value, padded=padded)
    except arrays.NotNumbers as error:
        raise ArgumentError(name, f"must be an array of numbers; got {error}.") from None
    except arrays.Ragged as ragged:
        raise ArgumentError(
            name,
            f"must have rows of one length, but it is ragged: row {ragged.place[-1]} has "
            f"{ragged.length} entries and row 0 has {ragged.others}. Where samples are missing, "
            "fill the row with nan, if this argument may hold nan.",
        ) from None


def unit_interval(name: str, value: Any, remedy: str = "") -> np.ndarray:
    """`value` as a float array with every entry in [0, 1]. NaN counts as outside."""
    array = numbers(name, value)
    if array.size and not (array.min() >= 0 and array.max() <= 1):
        outside = ~((array >= 0) & (array <= 1))
        raise ArgumentError(
            name,
            f"must lie in [0, 1]; got {array[outside].flat[0]:g} "
            f"({outside.sum()} of {array.size} entries are outside)." + _after(remedy),
        )
    return array


def open_unit_interval(name: str, value: Any, why: str, remedy: str = "") -> np.ndarray:
    """`value` in (0, 1), for functions that are infinite at the ends; `why` gives the reason."""
    array = unit_interval(name, value, remedy)
    ends = (array == 0) | (array == 1)
    if ends.any():
        raise ArgumentError(
            name,
            f"must lie strictly inside (0, 1) because {why}; got "
            f"{array[ends].flat[0]:g} ({ends.sum()} of {array.size} entries)." + _after(remedy),
        )
    return array


def finite_matrix(
    name: str, value: Any, *, of: str = "values", missing: bool = False, remedy: str = ""
) -> np.ndarray:
    """`value` as a non-empty float array of shape (prompts, samples) with finite entries.

    - `of`: what the entries are, for the message.
    - `missing`: nan marks a sample that was not drawn (ragged rows); infinities never pass.
    """
    array = numbers(name, value, padded=missing)
    if array.ndim != 2 or array.size == 0:
        raise ArgumentError(
            name,
            f"must be a non-empty array of shape (prompts, samples); got shape {array.shape}.",
        )
    bad = np.isinf(array) if missing else ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ArgumentError(
            name,
            f"must hold finite {of}; got {array[row, column]:g} at prompt {row}, "
            f"sample {column} ({bad.sum()} of {array.size} entries)." + _after(remedy),
        )
    return array


def paired_rows(**arrays: Any) -> None:
    """Checks that the named arrays have one row per prompt, so that they have equally many rows."""
    rows = [len(array) for array in arrays.values()]
    if len(set(rows)) > 1:
        names = [f"`{name}`" for name in arrays]
        raise ValueError(
            f"{_listed(names)} must have one row per prompt each; "
            f"got {_listed([str(n) for n in rows])} rows."
        )


def enough_samples(
    name: str,
    available: np.ndarray,
    needed: int,
    what: object,
    remedy: str = "Draw more samples, or choose a procedure that draws fewer.",
) -> None:
    """Checks that every row of `name` has as many samples as `what` needs."""
    short_rows = np.flatnonzero(available < needed)
    if short_rows.size:
        raise ValueError(
            f"`{what}` needs at least {needed} samples per prompt in `{name}`; prompt "
            f"{short_rows[0]} has {available[short_rows[0]]} ({short_rows.size} of "
            f"{available.size} prompts are short)." + _after(remedy)
        )


def _listed(words: list[str]) -> str:
    return " and ".join(words) if len(words) < 3 else f"{', '.join(words[:-1])} and {words[-1]}"


def _after(remedy: str) -> str:
    return f" {remedy}" if remedy else ""
