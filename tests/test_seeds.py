"""Seeds that are derived from words, and where the former ways to derive them have gone."""

import numpy as np
import pytest

from infalign.seeds import derived, generator

FORMER = [
    # (words, the entropy that was written out at the place of use)
    (("design", 2), [*b"design", 2]),
    (("evaluate reference",), [*b"evaluate reference"]),
    (("sample", 3), [*b"sample", 3]),
    ((5,), [5]),
    (("scramble+noise", 0), [*b"scramble+noise", 0]),
    (("keep", "prüf"), [*b"keep", *"prüf".encode()]),
]


@pytest.mark.parametrize(("words", "entropy"), FORMER)
@pytest.mark.parametrize("seed", [0, 7, 2**40])
def test_a_seed_is_that_of_the_bytes_of_its_words(seed, words, entropy):
    former = np.random.SeedSequence([seed, *entropy])
    assert derived(seed, *words) == int(former.generate_state(1)[0])
    assert generator(seed, *words).random() == np.random.default_rng([seed, *entropy]).random()


def test_other_words_give_other_seeds():
    seeds = {derived(0, *words) for words in [("a",), ("b",), ("a", 1), ("a", 2), (), (1,)]}
    assert len(seeds) == 6
    assert derived(1, "a") not in seeds
