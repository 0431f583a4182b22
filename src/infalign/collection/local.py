"""Collection in this process."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infalign import _progress
from infalign._look import Shown
from infalign.models.reward_server import ServerReward
from infalign.prompts import Prompt

from .answers import Load, draw, scored

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Local"]


@dataclass(frozen=True)
class Local(Shown):
    """One shard after another; while a reward server scores a shard, the next one is drawn."""

    load: Load

    def answers(
        self,
        shards: Sequence[Sequence[Prompt]],
        samples: int,
        seed: int,
        firsts: Sequence[int] | None = None,
    ) -> Iterator["pa.Table"]:
        """`answer` of each shard, in their order."""
        sampler, scorer = self.load()
        parts = list(zip(shards, firsts or [0] * len(shards), strict=True))
        if not isinstance(scorer, ServerReward):  # a local model would use the same cores
            for part, first in parts:
                with _progress.share(0, _progress.DRAWING):
                    drawn = draw(part, sampler, samples, seed, first)
                with _progress.share(_progress.DRAWING, 1):
                    table = scored(part, drawn, scorer, first)
                yield table
            return
        waiting: Future | None = None
        with ThreadPoolExecutor(1) as beside:
            for part, first in parts:
                drawn = draw(part, sampler, samples, seed, first)
                if waiting is not None:
                    yield waiting.result()
                waiting = beside.submit(scored, part, drawn, scorer, first)
            if waiting is not None:
                yield waiting.result()
