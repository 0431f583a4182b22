"""A reward that is linear in the words of a reply and in its pairs of neighboring words.

`ngrams.py` copies this file beside the weights that it learns, with their checksum in it: other
weights are another function.
"""

import hashlib
import re
import zlib
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

FEATURES = 1 << 16
"""Words and pairs of words share this many weights, by a hash."""
WEIGHTS = "weights.npy"
CHECKSUM = ""
WORD = re.compile(r"[a-z']+|[0-9]+|[^\w\s]")


def features(reply: str) -> list[int]:
    """The different words and pairs of neighbors of a reply, as places of weights."""
    words = ["<", *WORD.findall(reply.lower()), ">"]
    texts = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    return sorted({zlib.crc32(text.encode()) % FEATURES for text in texts})


def rows(replies: list[str]) -> csr_matrix:
    """One row for each reply, of length 1."""
    places = [features(reply) for reply in replies]
    values = np.concatenate([np.full(len(p), len(p) ** -0.5) for p in places])
    ends = np.cumsum([0, *map(len, places)])
    return csr_matrix((values, np.concatenate(places), ends), (len(replies), FEATURES))


@cache
def weights() -> np.ndarray:
    """The weights beside this file."""
    path = Path(__file__).parent / WEIGHTS
    if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != CHECKSUM:
        raise ValueError(f"{path} has SHA-256 {got}; expected {CHECKSUM}")
    return np.load(path)


def score(completions, **columns) -> list[float]:
    """The score of each reply, a text or a list of one message."""
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [float(value) for value in rows(texts) @ weights()]
