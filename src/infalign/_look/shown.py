"""How results look: in a terminal, on one screen, whatever they hold."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from itertools import islice
from types import FunctionType
from typing import Any

import numpy as np

from infalign import _check

SCREEN = 1_900
"""Largest number of characters of a `repr`."""

LINE = 100
"""Largest number of characters of a `repr` on one line; a longer one has a line for each field."""

LINES = 36
"""Largest number of fields that are shown."""

FEW = 4
"""Number of entries that are shown of a list or an array that is longer."""


class Shown:
    """Base of classes whose `repr` fits on one screen: numbers have six digits, and arrays and long
    lists are summarized. It has the fields of a dataclass, and the attributes of another class.

    A subclass that states other facts than its fields overrides `_facts`.
    """

    __slots__ = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__repr__" not in cls.__dict__:  # before `dataclass` would add its own
            cls.__repr__ = summary  # type: ignore[method-assign]

    def _facts(self) -> dict[str, object]:
        """Names and values that the object is shown by."""
        return _fields(self)


def _fields(value: Any) -> dict[str, object]:
    if not is_dataclass(value):
        return {name: own for name, own in vars(value).items() if not name.startswith("_")}
    # An attribute can be missing while the object is made.
    return {f.name: getattr(value, f.name, None) for f in fields(value) if f.repr}


def facts(value: Any) -> dict[str, str]:
    """What an object is shown by: names, and values as short texts."""
    known = _known(value)
    shown = dict(islice(known.items(), LINES))
    length = min(400, SCREEN // max(len(shown), 1) - 4)
    texts = {name: brief(entry, max(length - len(name), 20)) for name, entry in shown.items()}
    if len(known) > len(shown):
        texts["…"] = f"{len(known) - len(shown)} more"
    return texts


def summary(value: Any) -> str:
    """The `repr` of a dataclass, on one line if it fits there and with a line per field if not."""
    name = type(value).__name__
    parts = [f"{key}={text}" for key, text in facts(value).items()]
    line = f"{name}({', '.join(parts)})"
    if len(line) <= LINE or not parts:
        return line
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def brief(value: Any, length: int = 200) -> str:
    """A value on one line with at most `length` characters.

    >>> brief(2 / 3), brief(np.linspace(0, 1, 500))
    ('0.666667', 'array of 500, from 0 to 1: [0, 0.00200401, 0.00400802, 0.00601202, …]')
    >>> brief({"a": [1.5, 2.5], "b": None})
    "{'a': [1.5, 2.5], 'b': None}"
    """
    text = _brief(value, 3)
    return text if len(text) <= length else text[: length - 1] + "…"


def _brief(value: Any, depth: int) -> str:
    if isinstance(value, bool | np.bool_ | int | np.integer | str | bytes) or value is None:
        return _check.short(value.item() if isinstance(value, np.generic) else value, 100)
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        return _array(value)
    if depth == 0:
        return f"<{type(value).__name__}>"
    if isinstance(value, type | FunctionType):
        return value.__name__
    if is_dataclass(value) or isinstance(value, Shown):
        parts = [f"{k}={_brief(v, depth - 1)}" for k, v in islice(_known(value).items(), LINES)]
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, Mapping):
        items = islice(value.items(), FEW)
        parts = [f"{_check.short(k, 40)}: {_brief(v, depth - 1)}" for k, v in items]
        return "{" + ", ".join(parts) + _rest(len(value)) + "}"
    if isinstance(value, Sequence | Set):
        return _list(value, depth)
    return _check.short(value, 100)


def _known(value: Any) -> dict[str, object]:
    if not (isinstance(value, Shown) or is_dataclass(value)):
        return {type(value).__name__: value}
    try:
        return value._facts() if isinstance(value, Shown) else _fields(value)
    except Exception:  # the class of a user's transform raises, or the object is half made
        return _fields(value)


def _list(value: Any, depth: int) -> str:
    """A list, tuple or set; a long one of numbers is summarized like an array."""
    if len(value) > 2 * FEW and isinstance(value, Sequence):
        first = value[0]
        if isinstance(first, float | int) and not isinstance(first, bool):
            try:
                return _array(
                    np.asarray(value, float), "list" if isinstance(value, list) else "tuple"
                )
            except (TypeError, ValueError):  # other things than numbers are among them
                pass
    opening, closing = "()" if isinstance(value, tuple) else "[]"
    if isinstance(value, Set):
        opening, closing = "{}"
    shown = len(value) if len(value) <= 2 * FEW else FEW
    parts = [_brief(entry, depth - 1) for entry in islice(value, shown)]
    comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
    return opening + ", ".join(parts) + comma + _rest(len(value), shown) + closing


def _rest(length: int, shown: int = FEW) -> str:
    return f", … {length:,} in all" if length > shown else ""


def _array(array: np.ndarray, noun: str = "array") -> str:
    """The shape, range and first entries of an array; all entries of a short one."""
    flat = array.ravel()
    first = [_brief(entry, 1) for entry in flat[:FEW].tolist()]
    if array.size <= FEW and array.ndim == 1:
        return f"[{', '.join(first)}]"
    span = ""
    if array.size and array.dtype.kind in "fiu":
        finite = flat[np.isfinite(flat)]
        missing = array.size - finite.size
        if finite.size:
            span = f", from {_brief(finite.min(), 1)} to {_brief(finite.max(), 1)}"
        span += f", {missing:,} not finite" if missing else ""
    shape = "×".join(map(str, array.shape)) or "one value"
    return f"{noun} of {shape}{span}: [{', '.join(first)}{', …' if array.size > FEW else ''}]"
