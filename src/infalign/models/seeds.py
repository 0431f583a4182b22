"""Randomness of single samples: each follows from a seed, its prompt's key and its own number.

So a sample is the same whatever is drawn with it, before it or instead of it: a collection that is
resumed, split otherwise or spread over machines gives the samples of one that is not.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def prompt_keys(keys: Sequence[str] | None, prompts: Sequence) -> list[str]:
    """The names that prompts draw under: `keys`, or their places "0", "1", …

    Raises ValueError where they are not one for each prompt, or repeat: prompts of the same name
    would have the same random numbers.
    """
    if keys is None:
        return [str(i) for i in range(len(prompts))]
    keys = [str(key) for key in keys]
    if len(keys) != len(prompts) or len(set(keys)) < len(keys):
        raise ValueError(
            "`keys` must be one per conversation and all different; got "
            f"{len(keys)} ({len(set(keys))} different) for {len(prompts)} conversations. Give each "
            "its prompt id, and ask for more samples of one prompt with `n`."
        )
    return keys


def request_seed(seed: int, key: str, sample: int = 0, *, bits: int = 31) -> int:
    """A whole number of so many bits, for a server or an engine that takes a seed."""
    return _words(seed, key, sample)[0] >> (64 - bits)


def uniforms(seed: int, key: str, first: int, samples: int, count: int) -> np.ndarray:
    """Numbers in [0, 1) for `samples` samples of a prompt from number `first` on, `count` each.

    Philox (Salmon et al., 2011) is counter-based: the prompt is its key, sample and place are its
    counter, so nothing before a number has to be drawn.
    """
    own = np.array(_words(seed, key, "philox"), np.uint64)
    drawn = np.empty((samples, count))
    for row in range(samples):
        stream = np.random.Philox(key=own, counter=[0, 0, first + row, 0])
        drawn[row] = (stream.random_raw(count) >> np.uint64(11)) * 2.0**-53
    return drawn


def _words(seed: int, *names) -> tuple[int, int]:
    """Two 64-bit words; each name says its length, so that no two lists of names read alike."""
    text = "".join(f"{len(str(name))}:{name}" for name in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
