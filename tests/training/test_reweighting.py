"""Responses of one policy measure the KL of another, with importance weights."""

from itertools import product

import numpy as np
import pytest

from infalign.training.reweighting import Along, expected_share, reweighted

LENGTH, TOKENS = 4, 3
PROMPTS, EACH = 40, 50
OWNERS = np.repeat(np.arange(PROMPTS), EACH)


class Chain:
    """A policy whose next token depends on the last one; token 0 ends a response."""

    def __init__(self, scale):
        direction = np.random.default_rng(5).normal(size=(TOKENS, TOKENS))
        logits = np.random.default_rng(4).normal(size=(TOKENS, TOKENS)) + scale * direction
        self.log = logits - np.log(np.exp(logits).sum(1, keepdims=True))

    def along(self, responses, reference):
        """The values along responses, rows of tokens padded with -1."""
        last = np.hstack([np.ones((len(responses), 1), int), responses[:, :-1]])
        inside = responses >= 0
        exact = (np.exp(self.log) * (self.log - reference.log)).sum(1)
        return Along(
            np.where(inside, exact[last], 0.0), np.where(inside, self.log[last, responses], 0.0)
        )

    def sample(self, rng, number):
        rows = np.full((number, LENGTH), -1)
        for row in rows:
            last = 1
            for place in range(LENGTH):
                last = row[place] = rng.choice(TOKENS, p=np.exp(self.log[last]))
                if last == 0:
                    break
        return rows

    def kl(self, reference):
        """The KL from the reference, summed over all responses."""
        total = 0.0
        for tokens in product(range(TOKENS), repeat=LENGTH):
            ends = tokens.index(0) + 1 if 0 in tokens else LENGTH
            if any(tokens[ends:]):
                continue  # the same response again, with other tokens after its end
            pairs = list(zip((1, *tokens), tokens[:ends], strict=False))
            log = sum(self.log[pair] for pair in pairs)
            total += np.exp(log) * (log - sum(reference.log[pair] for pair in pairs))
        return total


REFERENCE = Chain(0.0)


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.9])
def test_the_kl_of_a_policy_is_measured_on_responses_of_another(scale):
    moved, writer = Chain(scale), Chain(0.6)
    rows = writer.sample(np.random.default_rng(0), PROMPTS * EACH)
    drawn = writer.along(rows, REFERENCE)
    found = reweighted(moved.along(rows, REFERENCE), drawn, OWNERS)
    assert abs(found.kl - moved.kl(REFERENCE)) < 4 * found.stderr
    assert abs(reweighted(drawn, drawn, OWNERS).kl - moved.kl(REFERENCE)) > 4 * found.stderr
    assert 0.5 < found.share < 1


def test_the_stated_error_is_the_spread_of_the_estimate():
    moved, writer, rng = Chain(0.9), Chain(0.6), np.random.default_rng(1)
    found = []
    for _ in range(60):
        rows = writer.sample(rng, 400)
        own = np.repeat(np.arange(40), 10)
        along = writer.along(rows, REFERENCE)
        found.append(reweighted(moved.along(rows, REFERENCE), along, own))
    spread = np.std([one.kl for one in found], ddof=1)
    assert np.mean([one.stderr for one in found]) == pytest.approx(spread, rel=0.3)


def test_a_policys_own_responses_have_equal_weights():
    rows = REFERENCE.sample(np.random.default_rng(0), 200)
    along = Chain(0.4).along(rows, REFERENCE)
    found = reweighted(along, along, np.repeat(np.arange(20), 10))
    assert found.share == pytest.approx(1) and found.kl == pytest.approx(along.exact.sum(1).mean())


def test_fewer_responses_count_farther_away():
    writer, shares, expected = Chain(0.6), [], []
    rows = writer.sample(np.random.default_rng(0), PROMPTS * EACH)
    drawn = writer.along(rows, REFERENCE)
    for scale in (0.6, 0.5, 1.2, 2.4):
        moved = Chain(scale).along(rows, REFERENCE)
        shares.append(reweighted(moved, drawn, OWNERS).share)
        expected.append(expected_share(scale, 0.6, writer.kl(REFERENCE)))
    assert shares == sorted(shares, reverse=True) and expected == sorted(expected, reverse=True)
    assert shares[:2] == pytest.approx(expected[:2], abs=0.05) and shares[-1] < 0.5
