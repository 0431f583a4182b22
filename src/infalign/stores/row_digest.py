"""A checksum of exported rewards, which the file carries and an import verifies.

It covers what is imported: ids, rewards, their order and the provenance. It does not depend on how
rows are cut into batches.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign.errors import DataError

from .columns import MADE_WITH

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RowDigest"]

DIGEST, PROMPTS = b"infalign_sha256", b"infalign_prompts"
"""Keys of the checksum, and of the number of prompts of the exported store, in the metadata of a
file."""


class RowDigest:
    """The checksum of the rows of one file, added table by table.

    - `key`, `rewards`: names of the columns.
    """

    def __init__(self, key: str, rewards: str) -> None:
        self.key, self.rewards = key, rewards
        self._parts = [hashlib.sha256() for _ in range(4)]
        self.prompts = 0

    def add(self, table: "pa.Table") -> None:
        """Add rows with an id and a list of rewards each."""
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = pa.concat_arrays(table[self.key].cast(pa.large_string()).chunks)
        lists = pa.concat_arrays(table[self.rewards].chunks)
        values = pc.list_flatten(lists).cast(pa.float64())
        text = "".join(ids.to_pylist()).encode("utf-8", "surrogatepass")
        arrays = (pc.binary_length(ids), pc.list_value_length(lists), values)
        plain = [array.to_numpy(zero_copy_only=False) for array in arrays]
        sizes = [plain[0].astype("<i8"), plain[1].astype("<i8"), plain[2].astype("<f8")]
        for part, data in zip(self._parts, [text, *map(np.ndarray.tobytes, sizes)], strict=True):
            part.update(data)
        self.prompts += len(table)

    def value(self, provenance: object) -> str:
        """The checksum of all rows so far, with their provenance."""
        parts = [part.hexdigest() for part in self._parts]
        text = json.dumps([parts, self.key, self.rewards, provenance], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def metadata(self, stated: Mapping[bytes, bytes], prompts: int) -> dict[bytes, bytes]:
        """The entries that a file with these rows carries.

        - `stated`: the metadata that it has already.
        - `prompts`: number of prompts in all files of the export.
        """
        return {DIGEST: self.value(_provenance(stated)).encode(), PROMPTS: str(prompts).encode()}

    def require(
        self, stated: Mapping[bytes, bytes], used: Mapping[bytes, bytes], file: Path
    ) -> int | None:
        """The number of prompts of the export; None for a file of another tool.

        - `stated`: the metadata of the file.
        - `used`: the metadata of its schema, whose provenance is imported.

        Raises DataError if the rows are not those that were exported.
        """
        if not _carries_digest(file):
            return None
        if stated.get(DIGEST) != self.value(_provenance(used)).encode():
            raise DataError("it is not what was exported: its checksum differs. Export again.")
        return int(stated.get(PROMPTS, b"0"))


def _carries_digest(file: Path) -> bool:
    """Whether the bytes of the footer hold either key. A single flipped bit can make a reader of
    Parquet skip all metadata, but not change both keys."""
    with file.open("rb") as opened:
        opened.seek(-8, os.SEEK_END)
        size = int.from_bytes(opened.read(4), "little")
        opened.seek(-8 - size, os.SEEK_END)
        footer = opened.read(size)
    return DIGEST in footer or PROMPTS in footer


def _provenance(stated: Mapping[bytes, bytes]) -> str:
    return stated.get(MADE_WITH, b"").decode(errors="replace")
