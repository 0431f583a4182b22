"""How many responses are answered between two moments at which work is kept.

A killed command repeats at most one block. Blocks follow from the model and the settings, not from
a clock, so that a resumed command draws the same batches as an uninterrupted one.
"""

from infalign.errors import DataError

from .specs import ModelSpec

__all__ = ["BATCHES", "block_of", "largest_block"]

BATCHES = 4
"""Number of generation batches in a block."""

WORK = 2e12
"""Largest number of operations in a block on a CPU: half a minute of one core."""

FEWEST = 16
"""Least number of responses that `WORK` limits a block to. Fewer would not be drawn any faster."""


def largest_block(parameters: int, tokens: int, batch_size: int) -> int:
    """Number of responses in a block on a CPU: whole batches, or less than one.

    - `parameters`: number of weights of the policy.
    - `tokens`: largest number of tokens in a response.
    """
    most = max(FEWEST, int(WORK / (2 * max(parameters, 1) * tokens)))
    if most < batch_size:
        return most
    return batch_size * min(BATCHES, most // batch_size)


def block_of(spec: str, *, tokens: int, batch_size: int, gpus: bool | None = None) -> int:
    """Number of responses in a block of a policy, a specification for `load_sampler`.

    - `gpus`: whether it runs on GPUs. Default: whether this machine has one.

    Servers, vLLM and GPUs are fast, or tell nothing about their speed.
    """
    named = ModelSpec.parse(spec)
    if not named.has_weights:
        return BATCHES * batch_size
    import torch

    if torch.cuda.is_available() if gpus is None else gpus:
        return BATCHES * batch_size
    from .checkpoints import adapter_of, stored_shapes

    path, who = named.path("model"), f"The model {spec!r}"
    try:
        adapter = adapter_of(path, who)
        weights = stored_shapes(adapter.base if adapter else path, who).values()
    except DataError:  # it is refused where it is loaded
        return BATCHES * batch_size
    return largest_block(sum(weight.numel() for weight in weights), tokens, batch_size)
