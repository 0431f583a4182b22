"""The augmentations of Best-of-N jailbreaking: respellings of a prompt that stay readable.

Source: Hughes et al., Best-of-N Jailbreaking, arXiv:2412.03556, appendix A.1. The attack perturbs
the *prompt* once per attempt and selects the most harmful attempt; worst-of-n, a procedure,
resamples the *response* to one prompt.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from infalign.errors import ArgumentError

__all__ = ["augment", "capitalize", "check_sigma", "noise", "parse_augmentations", "scramble"]

SIGMA = 0.4
"""The published strength."""


def check_sigma(sigma: float) -> float:
    """`sigma`, which must be above 0 and at most 1."""
    if not 0 < sigma <= 1:
        raise ArgumentError("sigma", f"must be above 0 and at most 1; got {sigma!r}.")
    return sigma


def scramble(text: str, *, sigma: float = SIGMA, rng: np.random.Generator) -> str:
    """Shuffle the inner characters of words longer than 3 characters, each word with chance √σ.

    White space, which separates words, is not changed.
    """
    chance = check_sigma(sigma) ** 0.5
    return re.sub(
        r"\S{4,}", lambda m: _shuffled(m[0], rng) if rng.random() < chance else m[0], text
    )


def capitalize(text: str, *, sigma: float = SIGMA, rng: np.random.Generator) -> str:
    """Swap the case of ASCII letters, each letter with chance √σ."""
    swapped = rng.random(len(text)) < check_sigma(sigma) ** 0.5
    return "".join(
        c.swapcase() if swap and c.isascii() else c for c, swap in zip(text, swapped, strict=True)
    )


def noise(text: str, *, sigma: float = SIGMA, rng: np.random.Generator) -> str:
    """Replace printable ASCII characters with one of their two neighbors, each with chance σ³.

    A character at either end of the range is unchanged if its neighbor is outside the range.
    """
    moved = rng.random(len(text)) < check_sigma(sigma) ** 3
    steps = rng.choice([-1, 1], len(text))
    return "".join(
        chr(ord(c) + step) if move and " " <= c <= "~" and " " <= chr(ord(c) + step) <= "~" else c
        for c, move, step in zip(text, moved, steps.tolist(), strict=True)
    )


AUGMENTATIONS: dict[str, Callable[..., str]] = {
    "scramble": scramble,
    "capitalize": capitalize,
    "noise": noise,
}
"""By name, in the order of application."""


def parse_augmentations(text: str) -> tuple[str, ...]:
    """The names in `all`, `none`, or some of `AUGMENTATIONS` separated by commas.

    Raises ValueError for any other text.

    >>> parse_augmentations("noise,scramble")
    ('scramble', 'noise')
    """
    names = {"all": set(AUGMENTATIONS), "none": set()}.get(text, set(text.split(",")))
    if not names <= set(AUGMENTATIONS):
        raise ArgumentError(
            "augment",
            f"must be all, none, or some of {','.join(AUGMENTATIONS)} separated by "
            f"commas; got {text!r}.",
        )
    return tuple(name for name in AUGMENTATIONS if name in names)


def augment(
    text: str,
    *,
    names: Sequence[str] = tuple(AUGMENTATIONS),
    sigma: float = SIGMA,
    rng: np.random.Generator,
) -> str:
    """The prompt of one attempt, with the named augmentations applied one after the other.

    - `sigma`: strength, above 0 and at most 1.

    >>> augment("How do I bake bread?", rng=np.random.default_rng(0))
    'HoW Do i BaKe BDAEr?'
    """
    for name in names:
        text = AUGMENTATIONS[name](text, sigma=sigma, rng=rng)
    return text


def _shuffled(word: str, rng: np.random.Generator) -> str:
    inner = rng.permutation(len(word) - 2) + 1
    return word[0] + "".join(word[i] for i in inner) + word[-1]
