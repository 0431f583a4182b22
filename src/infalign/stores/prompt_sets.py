"""Fingerprints of sets of prompts. The fingerprint of a union follows from those of its parts.

A fingerprint is the sum of one checksum per member, modulo 2²⁵⁶. It does not depend on the order,
and the fingerprint of a union of disjoint sets is the sum of their fingerprints: the additive hash
of Bellare and Micciancio (EUROCRYPT 1997). It detects accidents; it does not resist attacks.
"""

import hashlib
import json
import re
from collections.abc import Iterable

__all__ = ["is_fingerprint", "of_members", "union"]

MODULUS = 2**256
FORM = re.compile(r"set:[0-9a-f]{64}")


def of_members(members: Iterable[object]) -> str:
    """Fingerprint of a set of JSON values, such as (prompt id, messages).

    >>> of_members([1, 2]) == of_members([2, 1]) == union([of_members([1]), of_members([2])])
    True
    """
    return _written(map(_checksum, members))


def is_fingerprint(value: object) -> bool:
    """Whether a value is a fingerprint of this module."""
    return isinstance(value, str) and FORM.fullmatch(value) is not None


def union(fingerprints: Iterable[str]) -> str:
    """Fingerprint of the union of disjoint sets, from their fingerprints.

    A fingerprint in another format is treated as a member. The result is then still independent of
    the order and grouping of the union, but it is not the fingerprint of the prompts.
    """
    return _written(int(f[4:], 16) if is_fingerprint(f) else _checksum(f) for f in fingerprints)


def _checksum(member: object) -> int:
    text = json.dumps(member, sort_keys=True, default=repr)  # a table has dates and bytes too
    return int.from_bytes(hashlib.sha256(text.encode()).digest())


def _written(checksums: Iterable[int]) -> str:
    return f"set:{sum(checksums) % MODULUS:064x}"
