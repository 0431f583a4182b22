"""Seeds for the parts of a run and for single samples, each derived from a seed and a name.

A part of a run is named by words (`derived`), a sample by its prompt's key and its own number
(`uniforms`, `request_seed`). A sample therefore does not depend on which other samples are drawn. A
collection that is resumed, split differently or spread over machines gives the same samples as an
uninterrupted one.
"""

import hashlib
from collections.abc import Sequence

import numpy as np

__all__ = ["derived", "generator", "prompt_keys", "request_seed", "uniforms"]


def derived(seed: int, *words: str | int) -> int:
    """The seed of one part of a run, below 2³². Other words give independent seeds.

    >>> derived(0, "evaluate best", 1) == derived(0, "evaluate best", 2)
    False
    """
    return int(np.random.SeedSequence(_entropy(seed, words)).generate_state(1)[0])


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """A generator for one part of a run, named as for `derived`."""
    return np.random.default_rng(_entropy(seed, words))


def prompt_keys(keys: Sequence[str] | None, prompts: Sequence) -> list[str]:
    """The names that seed each prompt's samples: `keys`, or by default the indices "0", "1", …

    Raises ValueError unless there is one key per prompt and no duplicate: prompts with the same key
    would share random numbers.
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
    """An integer of `bits` bits, for a server or an engine that takes a seed."""
    return _digest(seed, key, sample)[0] >> (64 - bits)


def uniforms(seed: int, key: str, first: int, samples: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each of `samples` samples of a prompt, starting at sample
    `first`.

    Philox (Salmon et al., 2011) is counter-based: the prompt is its key, and the sample and
    position are its counter, so any number can be drawn without drawing those before it.
    """
    own = np.array(_digest(seed, key, "philox"), np.uint64)
    drawn = np.empty((samples, count))
    for row in range(samples):
        stream = np.random.Philox(key=own, counter=[0, 0, first + row, 0])
        drawn[row] = (stream.random_raw(count) >> np.uint64(11)) * 2.0**-53
    return drawn


def _entropy(seed: int, words: Sequence[str | int]) -> list[int]:
    """The seed, then each word: a string as its bytes, a number as it is."""
    return [seed, *(n for word in words for n in _numbers(word))]


def _numbers(word: str | int) -> Sequence[int]:
    return word.encode() if isinstance(word, str) else [word]


def _digest(seed: int, *names: str | int) -> tuple[int, int]:
    """Two 64-bit words. Each name is prefixed with its length, so that different lists of names
    differ."""
    text = "".join(f"{len(str(name))}:{name}" for name in (seed, *names))
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little")
