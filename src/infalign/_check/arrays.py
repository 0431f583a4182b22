"""Arrays of other libraries and of every kind, read for the numbers that they hold.

The libraries are recognized by the module of the value's type, so none of them is imported.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

from .shown import short

DEEPEST = 32
"""Largest number of dimensions; NumPy has 64."""

EXACT = 2**53
"""Up to here, double precision holds every whole number."""

KINDS = {"c": "complex numbers", "M": "dates", "m": "durations", "V": "records"}
"""What an array holds whose dtype is of this kind, if not numbers."""


class NotNumbers(Exception):
    """The reason why a value is not an array of numbers, in words that follow "must be an array of
    numbers; got"."""


class Ragged(Exception):
    """The value has rows of different lengths."""

    def __init__(self, place: tuple[int, ...], length: int, others: int) -> None:
        super().__init__(place, length, others)
        self.place, self.length, self.others = place, length, others


def read(value: Any, *, padded: bool = False) -> np.ndarray:
    """`value` as a float array; None, `pandas.NA` and masked entries become nan.

    - `padded`: rows of different lengths are filled with nan at their ends.

    Raises NotNumbers, and Ragged unless `padded`.
    """
    if type(value) is np.ndarray and value.dtype == np.float64:  # by far the most frequent
        return value.copy()
    try:
        array = _plain(value)
        return _nested(value, (), padded) if array is None else array
    except (NotNumbers, Ragged):
        raise
    except Exception as error:  # a class of others whose arrays cannot be made
        raise NotNumbers(f"{short(value)} ({type(error).__name__})") from None


def _plain(value: Any) -> np.ndarray | None:
    """The array of a value that is one, or a regular list of numbers; None for what must be read
    entry by entry."""
    if isinstance(value, str | bytes | bytearray | Mapping | set | frozenset):
        raise NotNumbers(short(value))
    if type(value).__module__.partition(".")[0] == "torch" and hasattr(value, "detach"):
        return _tensor(value)
    if isinstance(value, range) and len(value) > 10**9:
        raise NotNumbers(f"a range of {len(value)} entries")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as a deprecated guess of the dtype
            array = np.ma.asarray(value) if np.ma.isMaskedArray(value) else np.asarray(value)
    except Exception:  # other libraries raise what they like; entry by entry it is named
        return None
    if array.dtype.kind not in "biuf":
        return None
    numbers = array.astype(float)
    if array.dtype.kind in "iu":
        _require_exact(array, numbers)
    return np.ma.filled(numbers, np.nan) if np.ma.isMaskedArray(numbers) else numbers


def _tensor(value: Any) -> np.ndarray:
    """The numbers of a torch tensor, of any float type, on any device, with or without gradient."""
    try:
        if value.is_complex():
            raise NotNumbers("a tensor of complex numbers")
        numbers = np.asarray(value.detach().cpu().double().numpy())
        if not value.is_floating_point():
            _require_exact(np.asarray(value.detach().cpu().numpy()), numbers)
        return numbers
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        raise NotNumbers(f"a tensor that is not readable ({short(str(error))})") from None


def _require_exact(integers: np.ndarray, numbers: np.ndarray) -> None:
    """Raise NotNumbers for a whole number that double precision rounds: others would equal it."""
    for place in np.flatnonzero(np.abs(numbers) >= EXACT).tolist():
        _require_held(int(integers.flat[place]), float(numbers.flat[place]))


def _require_held(value: int, number: float) -> None:
    if number != value:
        raise NotNumbers(
            f"{value}, which double precision rounds to {int(number)}. Subtract a constant from "
            "all, or divide them"
        )


def _nested(value: Any, place: tuple[int, ...], padded: bool) -> np.ndarray:
    """An array from its entries, each a number, an array or a list of them; `place` is the index of
    `value`."""
    if len(place) > DEEPEST:
        raise NotNumbers(f"lists nested more than {DEEPEST} deep")
    if _is_missing(value):
        return np.array(np.nan)
    rows = _rows(value)
    if rows is None:
        return np.array(_number(value, place))
    parts = []
    for i, row in enumerate(rows):
        part = None
        if not isinstance(row, str | bytes | bytearray | Mapping | set | frozenset):
            part = _plain(row)
        parts.append(_nested(row, (*place, i), padded) if part is None else part)
    return _stacked(parts, place, padded)


def _rows(value: Any) -> list[Any] | None:
    """The entries of a list or an array; None if it is a single value."""
    if isinstance(value, str | bytes | bytearray | Mapping):
        return None
    if not isinstance(value, Sequence):
        kind = getattr(getattr(value, "dtype", None), "kind", None)
        if kind in KINDS:
            raise NotNumbers(f"an array of {KINDS[kind]}")
        if hasattr(value, "toarray"):
            raise NotNumbers(f"a sparse {type(value).__name__}. Pass its `.toarray()`")
        if not hasattr(value, "__array__") and not hasattr(value, "to_pylist"):
            return None
        if getattr(value, "ndim", 1) == 0:
            return None
    for name in ("tolist", "to_pylist", "to_numpy", "__array__"):  # an array of a library
        if hasattr(value, name) and not isinstance(value, list | tuple):
            value = getattr(value, name)()
            break
    value = value.tolist() if isinstance(value, np.ndarray) else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else None


def _is_missing(value: Any) -> bool:
    return value is None or type(value).__name__ == "NAType" or value is np.ma.masked


def _number(value: Any, place: tuple[int, ...]) -> float:
    at = f" at index {place if len(place) > 1 else place[0]}" if place else ""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, complex | np.complexfloating | str | bytes):
        raise NotNumbers(f"{short(value)}{at}")
    if not isinstance(value, Real | Decimal) and not hasattr(value, "__float__"):
        raise NotNumbers(f"{short(value)}{at}")
    try:
        number = float(value)
    except OverflowError:
        raise NotNumbers(f"{short(value)}{at}, which is beyond the floats (1.8e308)") from None
    except Exception:  # a class of others whose `__float__` does not give one
        raise NotNumbers(f"{short(value)}{at}") from None
    if isinstance(value, int) and math.isfinite(number):
        _require_held(value, number)
    if math.isinf(number) and isinstance(value, Decimal) and value.is_finite():
        raise NotNumbers(f"{short(value)}{at}, which is beyond the floats (1.8e308)")
    return number


def _stacked(parts: list[np.ndarray], place: tuple[int, ...], padded: bool) -> np.ndarray:
    """The parts as one array; rows of numbers are filled with nan if `padded`."""
    if not parts:
        return np.zeros(0)
    shapes = [part.shape for part in parts]
    if len(set(shapes)) == 1:
        return np.stack(parts)
    if padded and {len(shape) for shape in shapes} == {1}:
        rows = np.full((len(parts), max(map(len, parts))), np.nan)
        for row, part in zip(rows, parts, strict=True):
            row[: len(part)] = part
        return rows
    odd = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
    if len({len(shape) for shape in shapes}) > 1:
        shallow = next(i for i, shape in enumerate(shapes) if len(shape) != len(shapes[0]))
        raise NotNumbers(f"lists and numbers side by side (entries 0 and {shallow})")
    raise Ragged((*place, odd), shapes[odd][0], shapes[0][0])
