"""Sampling, log-probabilities and KL of the bundled models, each along two roads."""

import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel, fits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from transformers import AutoTokenizer
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.classifier import ClassifierReward
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.models.logits import collate, response_logits
from infalign.models.rewards import load_reward, score
from infalign.models.shared_prompts import REPEATABLE
from infalign.seeds import request_seed, uniforms

pytestmark = pytest.mark.pins

PROMPTS = [
    [{"role": "user", "content": "How do I boil an egg?"}],
    [{"role": "user", "content": "My neighbor plays loud music every night. What can I do?"}],
]


def model(temperature=0.9):
    path = bundled("bundled:language-model", "model")
    return LanguageModel(path, temperature=temperature, max_new_tokens=12)


def test_the_same_seed_gives_the_same_responses_whatever_came_before():
    lm = model()
    first = lm.sample(PROMPTS, 3, seed=5)
    torch.rand(7)
    assert lm.sample(PROMPTS, 3, seed=5) == first
    assert lm.sample(PROMPTS, 3, seed=6) != first


def test_log_probabilities_while_sampling_are_those_of_one_forward_pass():
    lm = model()
    for prompt, row in zip(PROMPTS, lm.sample(PROMPTS, 4, seed=0), strict=True):
        ids = lm.tokenizer(lm.prompt_text(prompt))["input_ids"]
        tokens = [r.tokens for r in row]
        batch, mask, kept = collate([ids] * 4, tokens, lm.tokenizer.pad_token_id)
        with torch.no_grad():
            logits = response_logits(lm.model, batch, mask, kept.shape[1], 0.9)
        chosen = logits.log_softmax(-1).gather(2, batch[:, -kept.shape[1] :, None])[..., 0]
        again = (chosen * kept).sum(1).numpy()
        np.testing.assert_allclose(again, [r.logprob for r in row], atol=2e-3)


def test_a_sample_is_the_same_in_any_company():
    lm = model()
    four = lm.sample(PROMPTS, 4, seed=5, keys=["egg", "loud"])
    turned = lm.sample(PROMPTS[::-1], 6, seed=5, keys=["loud", "egg"], batch_size=4)[::-1]
    alone = lm.sample(PROMPTS[1:], 4, seed=5, keys=["loud"])
    assert tokens_of(four) == [row[:4] for row in tokens_of(turned)]
    assert tokens_of(alone) == tokens_of(four)[1:]
    again = LanguageModel.of(lm.model, lm.tokenizer, temperature=0.9, max_new_tokens=5)
    for short, long in zip(
        again.sample(PROMPTS, 4, seed=5, keys=["egg", "loud"]), four, strict=True
    ):
        for a, b in zip(short, long, strict=True):
            assert a.tokens == b.tokens[:5]


def tokens_of(rows):
    return [[r.tokens for r in row] for row in rows]


def test_prompts_of_one_name_are_refused():
    lm = model()
    for keys in (["a", "a"], ["a"]):
        with pytest.raises(ValueError, match=r"`keys` must be one per conversation and all diff"):
            lm.sample(PROMPTS, 2, seed=0, keys=keys)


@settings(max_examples=30)
@given(st.integers(0, 2**64), st.text(max_size=8), st.integers(0, 2**32), st.integers(1, 9))
def test_random_numbers_of_a_sample_do_not_depend_on_how_many_are_drawn(seed, key, first, count):
    whole = uniforms(seed, key, first, 3, count + 4)
    assert ((whole >= 0) & (whole < 1)).all()
    for row in range(3):
        np.testing.assert_array_equal(
            uniforms(seed, key, first + row, 1, count)[0], whole[row, :count]
        )
    assert len(np.unique(whole)) == whole.size


def test_random_numbers_are_uniform_and_independent_across_seeds_prompts_and_samples():
    u = np.stack([uniforms(s, k, 0, 50, 40) for s in range(10) for k in ("a", "b", "a1", "1a")])
    assert kstest(u.ravel(), "uniform").pvalue > 1e-4
    n = u[0].size
    flat = u.reshape(len(u), n) - 0.5
    correlations = (flat @ flat.T)[np.triu_indices(len(u), 1)] * 12 / np.sqrt(n)
    assert np.abs(correlations).max() < 5 and 0.8 < correlations.std() < 1.2
    assert len({request_seed(0, key, k) for key in ("a", "b", "1a", "a1") for k in range(9)}) == 36
    assert max(request_seed(0, str(k)) for k in range(99)) < 2**31


WORDS = ["ab", "c", "cabba"]
SETTINGS = [(1.0, 1.0), (0.7, 1.0), (1.0, 0.8), (1.3, 0.6)]


@pytest.mark.parametrize("family", ["llama", "gpt2", "mistral", "mamba"])
def test_what_is_sampled_has_the_listed_law(tmp_path, family):
    # Prompts of three lengths in one batch; all of a response's past through the cache or not.
    listed = EnumerableModel.make(tmp_path, seed=1, family=family)
    for temperature, top_p in SETTINGS:
        lm = listed.language_model(temperature=temperature, top_p=top_p)
        drawn = lm.sample([listed.conversation(w) for w in WORDS], 1000, seed=2, batch_size=3000)
        for word, row in zip(WORDS, drawn, strict=True):
            law = listed.law(word, temperature, top_p)
            for r in row:
                assert listed.tokens(r.text) == r.tokens
                assert r.logprob == pytest.approx(np.log(law[r.text]), abs=1e-5)
            assert fits(Counter(r.text for r in row), law)


def tokens_read(lm, sample) -> int:
    """Places, padding included, that the body of the model reads while `sample` runs."""
    read = []

    def note(module, args, named):
        read.append((args[0] if args else named["input_ids"]).numel())

    hook = lm.model.base_model.register_forward_pre_hook(note, with_kwargs=True)
    sample()
    hook.remove()
    return sum(read)


def test_a_prompt_is_read_once_for_all_its_responses_where_the_cache_allows_it(tmp_path):
    n, conversations = 8, [[{"role": "user", "content": w}] for w in WORDS]
    for family, shared in [("llama", True), ("gpt2", True), ("mistral", True), ("mamba", False)]:
        listed = EnumerableModel.make(tmp_path / family, seed=1, family=family, max_new_tokens=1)
        lm = listed.language_model()
        assert lm.repeats is shared
        batch = len(WORDS) * 5  # the longest has five letters
        read = tokens_read(lm, lambda lm=lm: lm.sample(conversations, n, seed=0))
        assert read == (batch - len(WORDS) + n * len(WORDS) if shared else n * batch)


def test_both_roads_give_the_same_log_probabilities():
    lm = model()
    shared = lm.sample(PROMPTS, 4, seed=0)
    lm.repeats = False
    for one, other in zip(shared, lm.sample(PROMPTS, 4, seed=0), strict=True):
        for a, b in zip(one, other, strict=True):
            if a.tokens == b.tokens:
                assert a.logprob == pytest.approx(b.logprob, abs=1e-4)
    assert shared == model().sample(PROMPTS, 4, seed=0)


def test_a_cache_with_a_recurrent_state_besides_keys_and_values_is_not_repeated():
    # Its class inherits the repetition of keys and values, which would leave the state as it was.
    assert issubclass(LinearAttentionAndFullAttentionLayer, DynamicLayer)
    assert LinearAttentionAndFullAttentionLayer not in REPEATABLE


def test_prompts_come_back_in_the_order_given_and_batched_by_length(tmp_path):
    listed = EnumerableModel.make(tmp_path, seed=1, max_new_tokens=2)
    lm = listed.language_model(temperature=0.05)  # all but certain, and different by prompt
    words = ["a", "cabba", "b", "bcacb", "c", "abcca"]
    answers = lm.sample([listed.conversation(w) for w in words], 3, seed=0, batch_size=6)
    for word, row in zip(words, answers, strict=True):
        law = listed.law(word, 0.05)
        assert {r.text for r in row} <= {t for t, p in law.items() if p > 1e-3}
    read = tokens_read(
        lm, lambda: lm.sample([listed.conversation(w) for w in words], 1, seed=0, batch_size=2)
    )
    # Pairs of five, of five and one, and of one; then at most one more step of six rows.
    assert 2 * (5 + 5 + 1) <= read <= 2 * (5 + 5 + 1) + 6
    assert lm.sample([], 3, seed=0) == []


def test_more_responses_than_a_batch_holds_are_drawn_in_several(tmp_path):
    listed = EnumerableModel.make(tmp_path, seed=1)
    lm = listed.language_model()
    (row,) = lm.sample([listed.conversation("ab")], 1000, seed=0, batch_size=300)
    assert len(row) == 1000 and fits(Counter(r.text for r in row), listed.law("ab"))


def test_the_models_own_generation_settings_are_not_sampled_with(tmp_path):
    listed = EnumerableModel.make(tmp_path, seed=1)
    path = tmp_path / "generation_config.json"
    settings = json.loads(path.read_text())
    own = {"repetition_penalty": 3.0, "suppress_tokens": [2], "temperature": 0.2, "top_k": 1}
    path.write_text(json.dumps({**settings, **own, "do_sample": True}))
    lm = listed.language_model()
    assert lm.model.generation_config.repetition_penalty == 3.0
    (row,) = lm.sample([listed.conversation("ab")], 1000, seed=0, batch_size=1000)
    assert fits(Counter(r.text for r in row), listed.law("ab"))
    assert lm.model.generation_config.repetition_penalty == 3.0  # and it is saved as it was


def test_a_response_ends_with_its_end_token_or_at_the_limit():
    lm = model()
    for row in lm.sample(PROMPTS, 16, seed=1):
        for r in row:
            ends = [t == lm.tokenizer.eos_token_id for t in r.tokens]
            assert not any(ends[:-1]) and (ends[-1] or len(r.tokens) == 12)
            assert "<|" not in r.text


def test_the_exact_kl_per_token_agrees_with_the_sampled_log_ratio():
    # E log π/π_ref over samples of π is the KL; the sum of exact per-token KLs has the same mean.
    reference, policy = model(), model()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in policy.model.parameters():
            p += 0.004 * torch.randn(p.shape, generator=generator)
    drawn = policy.sample(PROMPTS, 200, seed=2)
    exact = sequence_kl(policy, reference, PROMPTS, drawn).exact
    # The policy's temperature is the reference's: ask the reference for the same tokens.
    ratio = np.array(
        [
            [r.logprob - logprob(reference, prompt, r.tokens) for r in row[:60]]
            for prompt, row in zip(PROMPTS, drawn, strict=True)
        ]
    )
    for k1, rb in zip(ratio, exact, strict=True):
        stderr = np.hypot(k1.std() / np.sqrt(k1.size), rb.std() / np.sqrt(rb.size))
        assert abs(k1.mean() - rb.mean()) < 4 * stderr
    assert exact.mean() > 0.01 and exact.var() < ratio.var() / 3


def logprob(lm, prompt, tokens) -> float:
    ids = lm.tokenizer(lm.prompt_text(prompt))["input_ids"]
    with torch.no_grad():
        logits = lm.model(torch.tensor([[*ids, *tokens]])).logits[0, len(ids) - 1 : -1] / 0.9
    return float(logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).sum())


def test_the_kl_of_a_policy_with_itself_is_zero():
    lm = model()
    drawn = lm.sample(PROMPTS, 2, seed=0)
    assert np.abs(sequence_kl(lm, lm, PROMPTS, drawn).exact).max() == 0


@pytest.mark.parametrize("kind", ["helpful", "harmless"])
def test_rewards_do_not_depend_on_the_batch_they_are_scored_in(kind):
    reward = load_reward(f"bundled:{kind}")
    texts = [["Boil it for eight minutes.", "No."], ["Talk to them first.", "I don't know."]]
    together = score(reward, PROMPTS, texts, ["a", "b"])
    reward.batch_size = 1
    np.testing.assert_allclose(score(reward, PROMPTS, texts, ["a", "b"]), together, atol=1e-4)
    assert len(np.unique(together)) == 4


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_a_model_with_adapters_is_sampled_with_them_and_left_as_it_was(tmp_path):
    from peft import LoraConfig, get_peft_model

    listed = EnumerableModel.make(tmp_path, seed=1)
    plain = listed.language_model()
    own = plain.model.generation_config
    torch.manual_seed(0)
    adapters = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    adapters.init_lora_weights = False  # random ones, that change the law
    adapted = get_peft_model(plain.model, adapters).eval()
    lm = LanguageModel.of(adapted, plain.tokenizer, max_new_tokens=listed.max_new_tokens)
    (row,) = lm.sample([listed.conversation("ab")], 100, seed=0)
    assert plain.model.generation_config is own
    law = listed.law("ab")
    assert max(abs(r.logprob - np.log(law[r.text])) for r in row) > 0.1
    for r in row:
        with torch.no_grad():
            logits = adapted(torch.tensor([[1, 2, *r.tokens]]), use_cache=False).logits[0, 1:-1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(r.tokens)[:, None])
        assert r.logprob == pytest.approx(float(chosen.sum()), abs=1e-4)


TURNS = [
    {"role": "user", "content": "How do I boil an egg?"},
    {"role": "assistant", "content": "In water."},
    {"role": "user", "content": "How long?"},
]


@pytest.fixture
def plain(tmp_path):
    """A bundled model's folder without its chat template, and with tokens around plain text."""
    from tokenizers.processors import TemplateProcessing

    def make(name, kind):
        path = tmp_path / kind
        shutil.copytree(bundled(f"bundled:{name}", kind), path)
        (path / "chat_template.jinja").unlink()
        tokenizer = AutoTokenizer.from_pretrained(path)
        end = tokenizer.eos_token_id
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", end)]
        )
        tokenizer.save_pretrained(path)
        return path

    return make


def test_without_a_chat_template_a_conversation_is_refused_and_a_message_read(plain):
    lm = LanguageModel(plain("language-model", "model"))
    assert lm.prompt_text(TURNS[:1]) == "How do I boil an egg?"
    with pytest.raises(DataError) as caught:
        lm.sample([TURNS[:1], TURNS], 2, seed=0)
    assert str(caught.value) == (
        "The model has no chat template to read a conversation with; the prompt that begins 'How "
        "do I boil an egg?' has 3 messages. Use prompts of one message, or give its tokenizer a "
        "chat template."
    )


def test_a_reward_without_a_chat_template_refuses_conversations(plain):
    reward = ClassifierReward(plain("harmless", "reward"))
    with pytest.raises(DataError, match=r"The reward model has no chat template .* has 3 messages"):
        reward(prompts=[TURNS], completions=["Eight minutes."])


def test_a_reward_without_a_chat_template_reads_special_tokens_too(plain):
    reward = ClassifierReward(plain("harmless", "reward"))
    scored = reward(prompts=["How long?", TURNS[2:]], completions=["Eight minutes."] * 2)
    ids = reward.tokenizer("How long?\nEight minutes.")["input_ids"]
    assert ids[0] == reward.tokenizer.eos_token_id
    with torch.no_grad():
        expected = float(reward.model(torch.tensor([ids])).logits[0, 0])
    assert scored == pytest.approx([expected] * 2, abs=1e-5)
    # The limit counts what is read: the same text passes at its own length, and not at one less.
    reward.max_length = len(ids)
    reward(prompts=["How long?"], completions=["Eight minutes."])
    reward.max_length = len(ids) - 1
    with pytest.raises(DataError, match=rf"completion 0 with its prompt has {len(ids)}"):
        reward(prompts=["How long?"], completions=["Eight minutes."])


def test_plain_prompts_are_sampled_and_measured_with_the_tokens_that_trl_trains_on(plain):
    lm = LanguageModel(plain("language-model", "model"), max_new_tokens=6)
    ids = lm.tokenizer("How long?")["input_ids"]  # as TRL reads a prompt that is a text
    assert ids[0] == lm.tokenizer.eos_token_id
    (row,) = lm.sample([TURNS[2:]], 4, seed=0)
    for r in row:
        with torch.no_grad():
            logits = lm.model(torch.tensor([[*ids, *r.tokens]])).logits[0, len(ids) - 1 : -1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(r.tokens)[:, None])
        assert float(chosen.sum()) == pytest.approx(r.logprob, abs=2e-3)


def test_a_text_too_long_for_the_reward_is_refused_with_its_place():
    reward = ClassifierReward(bundled("bundled:harmless", "reward"))
    with pytest.raises(DataError, match=r"at most 512 tokens; completion 1 .* has \d+"):
        reward(prompts=["a", "a"], completions=["short", "very long " * 600])


def test_bundled_models_fit_in_16_megabytes_and_hold_no_pickle():
    files = [p for p in bundled("bundled:language-model", "model").parent.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 16e6
    assert {p.suffix for p in files} <= {".json", ".jinja", ".safetensors", ".md"}
    assert len([p for p in files if p.name == "README.md"]) == 3
