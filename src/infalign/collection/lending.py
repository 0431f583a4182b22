"""Stored responses that another collection uses again, so that nothing is drawn twice."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from infalign import storage
from infalign._look import Shown
from infalign.errors import DataError
from infalign.models.interfaces import Response, Scorer
from infalign.prompts import CHECKSUM, Prompt, checksum, fingerprint, read_by
from infalign.stores import by_prompt
from infalign.stores.manifest import NAME, held, read_manifest
from infalign.stores.shards import open_rewards, read_schema, read_shard_samples

from .answers import columns, scored

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Lender", "drawn_with"]

LOG = logging.getLogger(__name__)

READ = "prompt_read"
"""The column of stored samples with checksums of what the reward may read of a prompt beside the
messages."""

DRAWN_WITH = ("model", "tokenizer", "chat_template", "dtype", "probe", "sampling")
"""The entries of a provenance that responses follow from."""


def drawn_with(provenance: Mapping[str, object]) -> dict[str, object]:
    """What responses follow from, apart from prompts and seed: the model and how it is sampled. The
    size of batches changes no response but for rounding."""
    own = {name: provenance.get(name) for name in DRAWN_WITH}
    own["dtype"] = own["dtype"] or "float32"  # what earlier stores do not state
    sampling = own["sampling"]
    if isinstance(sampling, Mapping):
        own["sampling"] = {k: v for k, v in sampling.items() if k != "batch_size"}
    return storage.as_json(own)


@dataclass(frozen=True)
class Lender(Shown):
    """A store, finished or interrupted, with the responses that it has to given prompts."""

    path: Path
    manifest: dict
    prompts: Sequence[Prompt]
    """The prompts that are asked for; the store may have others too."""

    reward: str | None
    """The reward that is asked for; None for one without a specification."""

    @classmethod
    def open(cls, path: Path, prompts: Sequence[Prompt], reward: str | None) -> "Lender | None":
        """The store in a folder; None if there is none."""
        if not (path / NAME).exists():
            return None
        return cls(path, read_manifest(path), prompts, reward)

    @property
    def provenance(self) -> Mapping[str, object]:
        """How the store was made."""
        return self.manifest["provenance"]

    @property
    def finished(self) -> bool:
        """Whether the store has all of its prompts."""
        return 0 < held(self.manifest) == self.manifest["prompts"]

    @cached_property
    def stored(self) -> dict[str, int]:
        """The number of rewards of each prompt in the store."""
        counts: dict[str, int] = {}
        for shard in self.manifest["rewards"]:
            ids, rows = open_rewards(self.path, shard)
            counts |= dict(zip(ids.to_pylist(), rows.counts.tolist(), strict=True))
        return counts

    @cached_property
    def exact(self) -> bool:
        """Whether the store has exactly these prompts."""
        stated = fingerprint(self.prompts, self.reward)
        return self.finished and self.provenance.get("prompts") == stated

    @cached_property
    def counts(self) -> dict[str, int]:
        """The number of stored responses to each of the prompts, as it is now."""
        own = [p for p in self.prompts if p.id in self.stored]
        if self._all_are_known:
            return {p.id: self.stored[p.id] for p in own}
        asked = self._noted(CHECKSUM)
        return {p.id: self.stored[p.id] for p in own if asked.get(p.id) == checksum(p)}

    def is_scored(self, prompt_id: str) -> bool:
        """Whether the reward, if it is the same, has read the same of a prompt as now."""
        if self._all_are_known:
            return True
        return self._noted(READ).get(prompt_id) == self._reads.get(prompt_id, "")

    @cached_property
    def changed(self) -> list[Prompt] | None:
        """Those of the prompts that the store has with other messages, or with other columns that
        the reward reads, as far as these are noted; None if it does not say. All are in the store.
        """
        asked = self._noted(CHECKSUM)
        if any(p.id not in asked for p in self.prompts):
            return None
        read = self._noted(READ) if self.reward is not None else {}
        return [
            p
            for p in self.prompts
            if asked[p.id] != checksum(p) or (read.get(p.id) and not self.is_scored(p.id))
        ]

    @cached_property
    def _reads(self) -> dict[str, str]:
        return read_by(self.prompts, self.reward)

    @cached_property
    def _all_are_known(self) -> bool:
        """Whether the store has no other prompts, and all of its prompts are unchanged."""
        own = [p for p in self.prompts if p.id in self.stored]
        if not self.finished or len(own) < len(self.stored):
            return False
        return self.provenance.get("prompts") == fingerprint(own, self.reward)

    def _noted(self, column: str) -> dict[str, str]:
        """The checksums of the prompts at the time they were asked; empty for stores without
        them."""
        return self._notes.get(column, {})

    @cached_property
    def _notes(self) -> dict[str, dict[str, str]]:
        shards, names = self.manifest["samples"], (CHECKSUM, READ)
        if not shards or not set(names) <= set(read_schema(self.path, shards[0]).names):
            return {}
        notes: dict[str, dict[str, str]] = {name: {} for name in names}
        for shard in shards:
            table = read_shard_samples(self.path, shard, ["prompt_id", *names])
            ids = table["prompt_id"].to_pylist()
            for name in names:
                notes[name] |= dict(zip(ids, table[name].to_pylist(), strict=True))
        return notes

    @cached_property
    def _shard_of(self) -> dict[str, int]:
        """The shard of samples that has the responses to each prompt."""
        where: dict[str, int] = {}
        for number, shard in enumerate(self.manifest["samples"]):
            ids = read_shard_samples(self.path, shard, ["prompt_id"])["prompt_id"]
            where |= dict.fromkeys(ids.unique().to_pylist(), number)
        return where

    @cached_property
    def has_samples(self) -> bool:
        """Whether the store has responses with their tokens, and not rewards alone."""
        shards = self.manifest["samples"]
        return bool(shards) and set(columns().names) <= set(read_schema(self.path, shards[0]).names)

    def rows(self, prompts: Sequence[Prompt], samples: int, scorer: Scorer | None) -> "pa.Table":
        """The first `samples` responses to each of these prompts, with the columns of `answer`.

        - `scorer`: scores them again. Default: their stored rewards are used.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        ids = [p.id for p in prompts]
        table = pa.concat_tables([self._shard(n) for n in sorted({self._shard_of[i] for i in ids})])
        table = table.filter(pc.less(table["sample"], samples))
        table = table.filter(pc.is_in(table["prompt_id"], pa.array(ids)))
        own_rows = by_prompt(table, ids, source=str(self.path))
        if (own_rows.counts != samples).any():
            raise DataError(
                f"{self.path} has fewer than {samples} responses to prompt_id "
                f"{ids[int(np.argmin(own_rows.counts))]!r}, but as many rewards. Remove it, and "
                "calibrate again."
            )
        if scorer is None:
            return own_rows.table
        names = ("completion", "tokens", "logprob")
        drawn = [
            [
                Response(text, tuple(tokens or ()), float("nan") if logprob is None else logprob)
                for text, tokens, logprob in zip(*row, strict=True)
            ]
            for row in zip(*(own_rows.rows(name) for name in names), strict=True)
        ]
        return scored(prompts, drawn, scorer)

    @cached_property
    def _shard(self):
        @lru_cache(maxsize=2)
        def read(number: int) -> "pa.Table":
            shard = self.manifest["samples"][number]
            return read_shard_samples(self.path, shard, columns().names).select(columns().names)

        return read
