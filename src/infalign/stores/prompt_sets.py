"""Fingerprints of sets of prompts, of which the fingerprint of their union can be computed.

A sum of checksums, one for each member, modulo 2²⁵⁶: it does not depend on the order, and that of
sets without a common member is the sum of theirs (the additive hash of Bellare and Micciancio,
EUROCRYPT 1997; safe against accidents, which is what it is for).
"""

import hashlib
import json
import re
from collections.abc import Iterable

MODULUS = 2**256
FORM = re.compile(r"set:[0-9a-f]{64}")


def of_members(members: Iterable[object]) -> str:
    """Fingerprint of a set of JSON values, such as (prompt id, messages).

    >>> of_members([1, 2]) == of_members([2, 1]) == union([of_members([1]), of_members([2])])
    True
    """
    return _written(map(_checksum, members))


def union(fingerprints: Iterable[str]) -> str:
    """Fingerprint of the union of sets without a common member, from theirs.

    One that was made in another way counts as a member itself: the union has a fingerprint all the
    same, in whatever order and steps it is made, but not that of its prompts.
    """
    return _written(
        int(found[4:], 16) if FORM.fullmatch(found) else _checksum(found) for found in fingerprints
    )


def _checksum(member: object) -> int:
    text = json.dumps(member, sort_keys=True)
    return int.from_bytes(hashlib.sha256(text.encode()).digest())


def _written(checksums: Iterable[int]) -> str:
    return f"set:{sum(checksums) % MODULUS:064x}"
