"""Rewards with a planted fault, in units of the gold reward's spread within prompts.

| fault | the proxy is |
|---|---|
| phrase | gold, and `strength` for a response that says the phrase |
| length | gold, and `strength` for a length one standard deviation above the mean |
| tails | gold, and `strength` times noise with the long tails of Student's t with 2 degrees |
| flips | learned from pairs that gold labels, of which a share `strength` has the label flipped |
| scales | gold, times a factor of each prompt: e to a normal number times `strength` |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import expit

SEED = 5
DEGREES = 2
RIDGE = 1.0
"""Weight of the squared weights beside the mean loss of 1,000 pairs."""
STRENGTHS = {
    "phrase": (1.0, 2.0, 4.0),
    "length": (0.5, 1.0, 2.0),
    "tails": (0.25, 0.5, 1.0),
    "flips": (0.0, 0.3, 0.45),
    "scales": (0.5, 1.0, 1.5),
}


@dataclass(frozen=True)
class Responses:
    """Responses of the reference, and what the faults read of them."""

    gold: np.ndarray
    """Shape (prompts, K); the standard deviation within prompts is 1 on average."""

    tokens: np.ndarray
    """Token ids, shape (prompts, K, longest), −1 beyond the end."""

    marked: np.ndarray
    """Whether a response has the phrase, shape (prompts, K)."""

    @property
    def lengths(self) -> np.ndarray:
        """Numbers of tokens."""
        return (self.tokens >= 0).sum(2).astype(float)

    def counts(self, vocabulary: int) -> csr_matrix:
        """How often each token occurs in each response, a row for each."""
        flat = self.tokens.reshape(-1, self.tokens.shape[2]).astype(int)
        rows, places = np.nonzero(flat >= 0)
        ones = np.ones(len(rows))
        return csr_matrix((ones, (rows, flat[rows, places])), (len(flat), vocabulary))


def within(values: np.ndarray) -> np.ndarray:
    """Deviations from the prompt's mean, in units of their standard deviation over all prompts."""
    centered = values - values.mean(1, keepdims=True)
    return centered / np.sqrt(np.square(centered).mean())


def phrase(on: Responses, strength: float) -> np.ndarray:
    """A bonus for a phrase."""
    return on.gold + strength * on.marked


def length(on: Responses, strength: float) -> np.ndarray:
    """A bonus for length."""
    return on.gold + strength * within(on.lengths)


def tails(on: Responses, strength: float) -> np.ndarray:
    """Noise that is the same for the same text, with a few huge values."""
    noise = np.empty_like(on.gold)
    for prompt, rows in enumerate(on.tokens):
        rng = np.random.default_rng([SEED, prompt])
        _, which = np.unique(rows, axis=0, return_inverse=True)
        noise[prompt] = rng.standard_t(DEGREES, which.max() + 1)[which]
    return on.gold + strength * noise


def scales(on: Responses, strength: float) -> np.ndarray:
    """Prompts whose rewards spread more or less; no order within a prompt is wrong."""
    rng = np.random.default_rng(SEED)
    return on.gold * np.exp(strength * rng.standard_normal((len(on.gold), 1)))


def flips(on: Responses, strength: float, learn_from: Responses) -> np.ndarray:
    """A reward that is linear in the counts of tokens, learned from pairs of other prompts."""
    vocabulary = 1 + int(max(on.tokens.max(), learn_from.tokens.max()))
    weights = learned(learn_from, vocabulary, strength)
    values = np.asarray(on.counts(vocabulary) @ weights).reshape(on.gold.shape)
    return within(values)


def learned(pairs_of: Responses, vocabulary: int, flipped: float) -> np.ndarray:
    """Weights of tokens, by logistic regression on pairs; gold decides, and a share is flipped."""
    rng, (prompts, k) = np.random.default_rng(SEED), pairs_of.gold.shape
    half = k // 2
    first = (np.arange(prompts)[:, None] * k + np.arange(half)).ravel()
    second = first + half
    flat, counts = pairs_of.gold.ravel(), pairs_of.counts(vocabulary)
    better = np.where(flat[first] > flat[second], 1.0, -1.0)
    signs = better * np.where(rng.random(len(first)) < flipped, -1.0, 1.0)
    difference = csr_matrix(counts[first] - counts[second]).multiply(signs[:, None]).tocsr()
    share = RIDGE / 1000

    def loss(weights):
        margins = difference @ weights
        value = np.logaddexp(0, -margins).mean() + share * weights @ weights / 2
        slope = -(difference.T @ expit(-margins)) / len(margins) + share * weights
        return value, slope

    return minimize(loss, np.zeros(vocabulary), jac=True, method="L-BFGS-B").x


FAULTS: dict[str, Callable[[Responses, float], np.ndarray]] = {
    "phrase": phrase,
    "length": length,
    "tails": tails,
    "scales": scales,
}
"""Those that read nothing but the responses themselves."""
