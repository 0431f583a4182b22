"""Sequence KL: both estimates against lists of all responses, and their summaries by prompt."""

import dataclasses

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel
from hypothesis import given
from hypothesis import strategies as st

from infalign.errors import DataError
from infalign.evaluation.divergence import SequenceKL, nats_per_sequence, nats_per_token
from infalign.models import kl as module
from infalign.models.hf import LanguageModel
from infalign.models.interfaces import Response
from infalign.models.kl import sequence_kl

PROMPTS = ["ab", "c", "cabb"]
SETTINGS = [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.4, 0.6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def reference(folder):
    return EnumerableModel.make(folder / "reference", seed=0)


@pytest.fixture(scope="module")
def policy(folder, reference):
    return EnumerableModel.make(folder / "policy", seed=100, near=reference, scale=0.05)


def along(policy_steps, reference_steps, text, tokens) -> tuple[float, float, int]:
    """Exact KL, log-ratio and infinite places along one response, from the laws of each step."""
    exact, ratio, impossible = 0.0, 0.0, 0
    for t, token in enumerate(tokens):
        p, q = policy_steps[text[:t]], reference_steps[text[:t]]
        ratio += np.log(p[token] / q[token]) if q[token] else np.inf
        p, q = p[p > 0], q[p > 0]
        impossible += bool((q == 0).any())
        exact += np.inf if (q == 0).any() else p @ np.log(p / q)
    return exact, ratio, impossible


def listed(policy, reference, prompt, law, reference_law):
    """Of all responses that can occur: text, probability, and what `along` says."""
    p, q = policy.step_laws(prompt, *law), reference.step_laws(prompt, *reference_law)
    possible = {t: c for t, c in policy.law(prompt, *law).items() if c > 0}
    values = np.array([along(p, q, t, policy.tokens(t)) for t in possible])
    return list(possible), np.array(list(possible.values())), values.T


def responses(model, texts):
    return [Response(t, model.tokens(t)) for t in texts]


def mean(chances, values):
    return float(chances @ values)


def variance(chances, values):
    return mean(chances, (values - mean(chances, values)) ** 2)


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
def test_along_every_response_that_there_is(policy, reference, temperature, top_p):
    # The models' code in single precision with padding; the list in double, one by one, without.
    law = (temperature, top_p)
    a, b = (m.language_model(temperature=temperature, top_p=top_p) for m in (policy, reference))
    for whole in (1.0, None):
        against = (temperature, whole or top_p)
        lists = [listed(policy, reference, x, law, against) for x in PROMPTS]
        rows = [responses(policy, texts) for texts, _, _ in lists]
        found = sequence_kl(
            a, b, [policy.conversation(x) for x in PROMPTS], rows, reference_top_p=whole
        )
        for i, (texts, _, (exact, ratio, impossible)) in enumerate(lists):
            n = len(texts)
            np.testing.assert_allclose(found.exact[i, :n], exact, atol=1e-5)
            np.testing.assert_allclose(found.sampled[i, :n], ratio, atol=1e-5)
            np.testing.assert_array_equal(found.impossible[i, :n], impossible)
            np.testing.assert_array_equal(found.tokens[i, :n], [len(r.tokens) for r in rows[i]])
            assert np.isnan(found.exact[i, n:]).all() and np.isnan(found.sampled[i, n:]).all()
            assert not found.tokens[i, n:].any() and not found.impossible[i, n:].any()


@pytest.mark.parametrize(("temperature", "top_p"), SETTINGS)
def test_both_estimates_have_the_kl_of_the_listed_laws_as_their_mean(
    policy, reference, temperature, top_p
):
    a = policy.language_model(temperature=temperature, top_p=top_p)
    b = reference.language_model(temperature=temperature)
    conversations = [policy.conversation(x) for x in PROMPTS]
    drawn = a.sample(conversations, 1500, seed=3, batch_size=5000)
    found = sequence_kl(a, b, conversations, drawn)
    for i, prompt in enumerate(PROMPTS):
        p, q = policy.law(prompt, temperature, top_p), reference.law(prompt, temperature)
        truth = sum(c * np.log(c / q[t]) for t, c in p.items() if c > 0)
        for estimates in (found.exact[i], found.sampled[i]):
            stderr = estimates.std() / np.sqrt(estimates.size)
            assert abs(estimates.mean() - truth) < 4 * stderr + 1e-6


def test_near_the_reference_the_exact_estimate_has_a_fraction_of_the_variance(folder, reference):
    # The log-ratio has a variance of about 2 KL, the exact estimate one of order KL².
    seen = []
    for scale in (0.1, 0.05, 0.01):
        near = EnumerableModel.make(folder / f"near{scale}", seed=7, near=reference, scale=scale)
        for prompt in PROMPTS:
            for temperature in (1.0, 0.7):
                law = (temperature, 1.0)
                _, p, (exact, ratio, _) = listed(near, reference, prompt, law, law)
                assert mean(p, exact) == pytest.approx(mean(p, ratio), abs=1e-12)
                if mean(p, exact) < 1:
                    seen.append((mean(p, exact), variance(p, exact) / variance(p, ratio)))
    nats, share = np.array(seen).T
    assert len(nats) > 10 and nats.max() > 0.5 and nats.min() < 0.05
    assert (share < np.minimum(nats, 1 / 3)).all()


def test_of_a_restricted_reference_the_log_ratio_is_constant_and_the_exact_estimate_is_not():
    # Two fair coins; the policy is the reference given that not both are tails: log 4/3 each time.
    coin, heads = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    reference = {"": coin, "h": coin, "t": coin}
    policy = {"": np.array([2 / 3, 1 / 3]), "h": coin, "t": heads}
    possible = {"hh": (0, 0), "ht": (0, 1), "th": (1, 0)}
    exact, ratio, _ = np.array([along(policy, reference, *y) for y in possible.items()]).T
    third = np.full(3, 1 / 3)
    np.testing.assert_allclose(ratio, np.log(4 / 3), rtol=1e-12)
    assert mean(third, exact) == pytest.approx(np.log(4 / 3), rel=1e-12)
    assert variance(third, exact) == pytest.approx(2 / 9 * np.log(2) ** 2, rel=1e-12)


def test_a_small_top_p_against_the_whole_reference_comes_close_to_that(policy, reference):
    worse = 0
    for prompt in PROMPTS:
        _, p, (exact, ratio, _) = listed(policy, reference, prompt, (1.0, 0.5), (1.0, 1.0))
        worse += variance(p, exact) > variance(p, ratio) / 3
    assert worse


def test_a_reference_that_is_truncated_too_is_reported_as_infinite(policy, reference):
    a, b = (m.language_model(top_p=0.8) for m in (policy, reference))
    conversations = [policy.conversation("ab")]
    drawn = a.sample(conversations, 64, seed=0)
    cut = sequence_kl(a, b, conversations, drawn)
    assert (cut.impossible > 0).any()
    np.testing.assert_array_equal(np.isinf(cut.exact), cut.impossible > 0)
    assert (np.isinf(cut.sampled) <= np.isinf(cut.exact)).all()
    summary = nats_per_sequence(cut.exact)
    assert summary.value == np.inf and np.isnan(summary.stderr) and np.isnan(summary.low)
    whole = sequence_kl(a, b, conversations, drawn, reference_top_p=1)
    assert not whole.impossible.any() and np.isfinite(whole.exact).all()


def test_batches_and_pieces_change_nothing(policy, reference, monkeypatch):
    a, b = policy.language_model(), reference.language_model()
    conversations = [policy.conversation(x) for x in PROMPTS]
    drawn = a.sample(conversations, 9, seed=1)
    whole = sequence_kl(a, b, conversations, drawn)
    monkeypatch.setattr(module, "ENTRIES", 9)  # two tokens at a time
    for batch_tokens in (1, 40):
        parts = sequence_kl(a, b, conversations, drawn, batch_tokens=batch_tokens)
        for field in dataclasses.fields(SequenceKL):
            first, second = (getattr(x, field.name) for x in (whole, parts))
            np.testing.assert_allclose(first, second, atol=1e-5)


@given(
    shapes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=30),
    tokens=st.integers(1, 60),
)
def test_batches_hold_everything_once_and_no_more_than_they_may(shapes, tokens):
    owned = [(prompt, i % 4, response) for i, (prompt, response) in enumerate(shapes)]
    batches = list(module._batches(owned, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(shapes)))
    for batch in batches:
        padded = max(shapes[i][0] for i in batch) + max(shapes[i][1] for i in batch)
        assert len(batch) == 1 or len(batch) * padded <= tokens


def test_responses_may_be_ragged_and_none(policy, reference):
    a, b = policy.language_model(), reference.language_model()
    rows = [responses(policy, ["", "ab"]), responses(policy, ["c"])]
    found = sequence_kl(a, b, [policy.conversation(x) for x in PROMPTS[:2]], rows)
    np.testing.assert_array_equal(found.tokens, [[1, 3], [2, 0]])
    np.testing.assert_array_equal(np.isnan(found.exact), [[False, False], [False, True]])
    assert sequence_kl(a, b, [], []).exact.shape == (0, 0)


def test_a_sampled_token_that_rounding_moved_over_the_edge_counts_as_sampled(policy, reference):
    a, b = policy.language_model(top_p=0.5), reference.language_model()
    conversations = [policy.conversation("ab")]
    (row,) = a.sample(conversations, 200, seed=0)
    outside = next(t for t, c in policy.law("ab", 1.0, 0.5).items() if c == 0 and len(t) == 1)
    (stray,) = responses(policy, [outside])
    found = sequence_kl(a, b, conversations, [[*row, stray]])
    assert np.isfinite(found.exact).all() and np.isfinite(found.sampled).all()


def test_what_cannot_be_measured_is_refused(policy, reference, folder):
    a, b = policy.language_model(), reference.language_model()
    conversations = [policy.conversation("ab")]
    drawn = a.sample(conversations, 50, seed=0)
    with pytest.raises(ValueError, match=r"`responses` must have one row .* got 1 rows for 2\."):
        sequence_kl(a, b, conversations * 2, drawn)
    with pytest.raises(ValueError, match=r"prompt 0, response 1 \(1 of 2 .* `LanguageModel`"):
        sequence_kl(a, b, conversations, [[drawn[0][0], Response("a")]])
    with pytest.raises(ValueError, match=r"`reference_top_p` must lie in \(0, 1\]; got 1.2"):
        sequence_kl(a, b, conversations, drawn, reference_top_p=1.2)
    with pytest.raises(ValueError, match=r"`batch_tokens` must be a whole number of at least 1"):
        sequence_kl(a, b, conversations, drawn, batch_tokens=0)
    narrow = policy.language_model(top_p=0.3)
    with pytest.raises(DataError, match=r"\d+ of their \d+ tokens are outside its top-p of 0.3"):
        sequence_kl(narrow, b, conversations, drawn)


def test_models_with_different_tokens_have_no_kl(policy, folder):
    a, conversations = policy.language_model(), [policy.conversation("ab")]
    drawn = a.sample(conversations, 50, seed=0)
    turned = EnumerableModel.make(folder / "turned", seed=0, letters="acb").language_model()
    with pytest.raises(DataError) as caught:
        sequence_kl(a, turned, conversations, drawn)
    assert str(caught.value) == (
        f"The policy {str(policy.path)!r} and the reference {str(folder / 'turned')!r} write with "
        "different tokens, so they have no KL: id 2 is 'b' for the policy and 'c' for the "
        "reference (2 of 4 ids differ). Use a reference with the policy's tokenizer, or evaluate "
        "without KL: --no-kl, or `evaluate.kl_samples: 0` in a configuration."
    )


def test_a_reference_with_more_tokens_has_a_kl_and_one_with_fewer_has_none(policy, folder):
    more = EnumerableModel.make(folder / "more", seed=0, letters="abcd")
    a, b, conversations = policy.language_model(), more.language_model(), [policy.conversation("a")]
    drawn = a.sample(conversations, 400, seed=0)
    ours, theirs = policy.law("a"), more.law("a")
    exact = sum(p * np.log(p / theirs[text]) for text, p in ours.items())
    values = sequence_kl(a, b, conversations, drawn).exact
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(values.size)
    drawn = b.sample(conversations, 50, seed=0)
    with pytest.raises(DataError, match=r"wrote the token 'd', which the reference .* has not"):
        sequence_kl(b, a, conversations, drawn)
    kept = [[r for r in row if 4 not in r.tokens] for row in drawn]
    with pytest.raises(DataError, match=r"gives 0\.\d+ of its probability to tokens that the ref"):
        sequence_kl(b, a, conversations, kept)


def test_logits_without_tokens_do_not_change_the_kl(policy, reference, folder):
    # Embeddings are often padded to a round size; the rows added here are all but impossible.
    a, conversations = policy.language_model(), [policy.conversation("ab")]
    drawn, b = a.sample(conversations, 20, seed=0), reference.language_model()
    expected = sequence_kl(a, b, conversations, drawn).exact
    assert expected.min() > 0
    for padded in (a, b):
        bias = torch.nn.Linear(8, 9, bias=True)
        bias.weight.data[:4], bias.weight.data[4:] = padded.model.lm_head.weight.data, 0
        bias.bias.data[:4], bias.bias.data[4:] = 0, -40
        padded.model.lm_head = bias
        np.testing.assert_allclose(
            sequence_kl(a, b, conversations, drawn).exact, expected, atol=1e-5
        )


def test_each_model_reads_the_prompt_in_its_own_template(policy, reference):
    a, b = policy.language_model(), reference.language_model()
    conversations = [policy.conversation("ab")]
    drawn = a.sample(conversations, 400, seed=0)
    b.tokenizer.chat_template = "{% for m in messages %}c{{ m['content'] }}a{% endfor %}"
    ours, theirs = policy.law("ab"), reference.law("caba")
    exact = sum(p * np.log(p / theirs[text]) for text, p in ours.items())
    values = sequence_kl(a, b, conversations, drawn).exact
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(values.size)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("top_p", 0), ("top_p", 1.5), ("top_p", np.nan), ("temperature", 0), ("max_new_tokens", 0)],
)
def test_impossible_sampling_settings_are_refused(reference, setting, value):
    with pytest.raises(ValueError, match=f"`{setting}` must"):
        LanguageModel(reference.path, **{setting: value})


# Summaries


def test_a_summary_by_hand():
    nats = np.array([[1.0, 3.0], [5.0, np.nan], [0.5, 0.5]])
    tokens = np.array([[10, 30], [20, 0], [10, 10]])
    # Prompts have 2, 5 and 0.5 nats, and 20, 20 and 10 tokens.
    per_sequence, per_token = nats_per_sequence(nats), nats_per_token(nats, tokens)
    assert per_sequence.value == pytest.approx(2.5)
    np.testing.assert_allclose(per_sequence.per_prompt, [2, 5, 0.5])
    assert per_sequence.stderr == pytest.approx(np.std([2, 5, 0.5], ddof=1) / np.sqrt(3))
    assert per_token.value == pytest.approx(7.5 / 50)
    # R = 0.15, b̄ = 50/3; a − R b = −1, 2, −1; their spread over b̄ √3.
    assert per_token.stderr == pytest.approx(np.sqrt(3) / (50 / 3) / np.sqrt(3))
    assert per_token.per_prompt.mean() == pytest.approx(per_token.value)


def test_the_error_per_token_is_that_of_repeated_experiments():
    rng = np.random.default_rng(0)
    values, errors = [], []
    for _ in range(600):
        length = rng.gamma(4, 5, (80, 1)) + rng.gamma(2, 2, (80, 3)) + 1
        nats = 0.1 * length * rng.gamma(2, 0.5, (80, 1)) + rng.normal(0, 0.3, (80, 3))
        found = nats_per_token(nats, length)
        values.append(found.value)
        errors.append(found.stderr)
    spread = np.std(values, ddof=1)
    # The spread of 600 values is known to 1 in √1200; the delta method adds terms of 1/80.
    assert abs(np.mean(errors) / spread - 1) < 4 / np.sqrt(1200) + 2 / 80
    assert abs(np.mean(values) - 0.1) < 4 * spread / np.sqrt(600) + 0.1 / 80


@given(
    rate=st.floats(-3, 3),
    lengths=st.lists(st.integers(1, 500), min_size=2, max_size=12),
)
def test_a_constant_rate_has_no_error_whatever_the_lengths(rate, lengths):
    tokens = np.array(lengths)[:, None]
    found = nats_per_token(rate * tokens, tokens)
    assert found.value == pytest.approx(rate, abs=1e-12)
    assert found.stderr == pytest.approx(0, abs=1e-12)


def test_one_infinite_response_makes_both_rates_infinite():
    nats, tokens = [[1.0, np.inf], [2.0, 3.0]], np.ones((2, 2))
    for found in (nats_per_sequence(nats), nats_per_token(nats, tokens)):
        assert found.value == np.inf and np.isnan([found.stderr, found.low, found.high]).all()
        assert list(np.isinf(found.per_prompt)) == [True, False]


@pytest.mark.parametrize(
    ("nats", "tokens", "message"),
    [
        ([1.0], [1], r"`nats` must be a non-empty array of shape .* got shape \(1,\)"),
        ([[1.0, -np.inf]], [[1, 1]], r"`nats` must not be -inf; .* response 1 .* measure its own"),
        ([[1.0], [np.nan]], [[1], [1]], r"prompt 1 has none \(1 of 2 prompts\)\. Measure some"),
        ([[1.0]], [[1, 1]], r"`tokens` must have the shape of `nats`; got \(1, 2\) and \(1, 1\)"),
        ([[1.0, 2.0]], [[1, 0]], r"`tokens` must be at least 1; got 0 .* The end token is counted"),
    ],
)
def test_values_that_are_no_kl_are_refused(nats, tokens, message):
    with pytest.raises(ValueError, match=message):
        nats_per_token(nats, tokens)
    if "`nats`" in message[:8] or "prompt" in message[:8]:
        with pytest.raises(ValueError, match=message):
            nats_per_sequence(nats)
