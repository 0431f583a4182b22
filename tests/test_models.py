"""Sampling, log-probabilities and KL of the bundled models, each along two roads."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.classifier import ClassifierReward
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.models.logits import collate, response_logits
from infalign.models.rewards import load_reward, score

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
    drawn = policy.sample(PROMPTS, 400, seed=2)
    exact = sequence_kl(policy, reference, PROMPTS, drawn).exact
    # The policy's temperature is the reference's: ask the reference for the same tokens.
    ratio = np.array(
        [
            [r.logprob - logprob(reference, prompt, r.tokens) for r in row[:150]]
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
