"""The unit of work of every engine: answer a few prompts and score the responses."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from infalign import _check
from infalign.errors import DataError
from infalign.models.interfaces import Response, Sampler, Scorer, sample_from
from infalign.prompts import Prompt, score_responses

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Engine", "answer", "columns", "draw", "scored"]

Load = Callable[[], tuple[Sampler, Scorer]]
"""Loads policy and reward, in the process that needs them and only if they are needed."""


class Engine(Protocol):
    """Executes the work: answers shards of prompts."""

    def answers(
        self,
        shards: Sequence[Sequence[Prompt]],
        samples: int,
        seed: int,
        firsts: Sequence[int] | None = None,
    ) -> Iterator["pa.Table"]:
        """`answer` of each shard, in their order.

        - `firsts`: of each shard, the number of its first response. Default: 0.
        """


def answer(
    prompts: Sequence[Prompt],
    sampler: Sampler,
    scorer: Scorer,
    samples: int,
    seed: int,
    first: int = 0,
) -> "pa.Table":
    """`samples` responses to each prompt with their rewards, one row each, without the responses
    before number `first`.

    Columns: prompt_id, sample (0, 1, …), completion, tokens (ids), logprob (nats, of the sampling
    distribution) and reward. Tokens and log-probabilities that a server does not return are null. A
    row depends only on the seed, the prompt's id and the sample's number, not on other prompts.

    Raises DataError for rewards that are not finite, and for a sampler that returns another number
    of responses.
    """
    return scored(prompts, draw(prompts, sampler, samples, seed, first), scorer, first)


def draw(
    prompts: Sequence[Prompt], sampler: Sampler, samples: int, seed: int, first: int = 0
) -> list[list[Response]]:
    """The responses to each prompt from number `first` to `samples`."""
    missing = _check.count("samples", samples) - first
    conversations, ids = [p.messages for p in prompts], [p.id for p in prompts]
    rows = sample_from(sampler, conversations, missing, first, seed=seed, keys=ids)
    if [len(row) for row in rows] != [missing] * len(prompts):
        raise DataError(
            f"The sampler {type(sampler).__name__} must return {missing} responses to each of "
            f"{len(prompts)} prompts; got {sorted({len(row) for row in rows})} to {len(rows)}."
        )
    return rows


def scored(
    prompts: Sequence[Prompt],
    drawn: Sequence[Sequence[Response]],
    scorer: Scorer,
    first: int = 0,
) -> "pa.Table":
    """The table that `answer` returns, for given responses."""
    import pyarrow as pa

    ids, texts = [p.id for p in prompts], [[r.text for r in row] for row in drawn]
    rewards = np.array(score_responses(scorer, prompts, texts))
    flat, samples = [r for row in drawn for r in row], rewards.shape[1]
    tokens = [list(r.tokens) if r.tokens else None for r in flat]
    logprobs = [None if math.isnan(r.logprob) else r.logprob for r in flat]
    return pa.Table.from_arrays(
        [
            pa.array([i for i in ids for _ in range(samples)], pa.string()),
            pa.array(np.tile(np.arange(first, first + samples), len(ids))),
            pa.array([r.text for r in flat], pa.string()),
            pa.array(tokens, pa.list_(pa.int32())),
            pa.array(logprobs, pa.float64()),
            pa.array(rewards.ravel()),
        ],
        schema=columns(),
    )


def columns() -> "pa.Schema":
    """The columns of `answer`."""
    import pyarrow as pa

    return pa.schema(
        {
            "prompt_id": pa.string(),
            "sample": pa.int64(),
            "completion": pa.string(),
            "tokens": pa.list_(pa.int32()),
            "logprob": pa.float64(),
            "reward": pa.float64(),
        }
    )
