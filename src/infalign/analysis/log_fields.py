"""Fields of the objects in a log: each has its kind, or what is wrong with it is said."""

from collections.abc import Mapping
from types import NoneType
from typing import Any

from infalign import _check

__all__ = ["LIST", "NULL", "NUMBER", "OBJECT", "TEXT", "Malformed", "field"]

Kind = tuple[type, ...]

TEXT: Kind = (str,)
NUMBER: Kind = (int, float)
OBJECT: Kind = (dict,)
LIST: Kind = (list,)
NULL: Kind = (NoneType,)

WORDS = {str: "a text", int: "a number", float: "a number", dict: "an object", list: "a list"}
WORDS[NoneType] = "null"

REQUIRED = object()
"""Default of a field that an object must have."""


class Malformed(ValueError):
    """A part of a log is of another form; the message says which part, and what it must be."""


def field(owner: Any, name: str, kind: Kind, default: Any = REQUIRED) -> Any:
    """The value of a field of an object.

    - `kind`: types that it may have; their tuples can be added, such as `TEXT + NULL`.
    - `default`: the value where the field is missing.

    Raises Malformed if the owner is no object, or if the field is missing or of another kind.
    """
    if not isinstance(owner, Mapping):
        raise Malformed(f"{_check.short(owner)} must be an object")
    if name not in owner:
        if default is REQUIRED:
            raise Malformed(f"`{name}` is missing in {_check.short(owner)}")
        return default
    value = owner[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
        words = " or ".join(dict.fromkeys(WORDS[own] for own in kind))
        raise Malformed(f"`{name}` must be {words}; got {_check.short(value)}")
    return value
