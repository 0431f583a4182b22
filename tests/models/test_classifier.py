"""A reward scores a text as its model does for that text alone, whatever else is in the batch."""

import shutil
from copy import copy, deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    XLNetConfig,
)

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.classifier import ClassifierReward
from infalign.models.limits import positions_of

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2048}
PLACES = 192
BODY = {**SIZE, "intermediate_size": 16, "num_labels": 1, "max_position_embeddings": PLACES}
END = 1  # the bundled tokenizer's end token, which its chat template writes after every message
LLAMA = {**BODY, "eos_token_id": END}
CONFIGS = {
    "llama": LlamaConfig(**LLAMA, pad_token_id=0),
    "llama without padding token": LlamaConfig(**LLAMA, pad_token_id=None),
    "llama padded with its end token": LlamaConfig(**LLAMA, pad_token_id=END),
    "llama with a padding token of no embedding": LlamaConfig(**LLAMA, pad_token_id=0),
    "gpt2 without padding token": GPT2Config(
        **SIZE,
        n_positions=PLACES,
        num_labels=1,
        eos_token_id=END,
        bos_token_id=None,
        pad_token_id=None,
    ),
    "bert": BertConfig(**BODY),
    "roberta": RobertaConfig(**BODY, pad_token_id=0, eos_token_id=END),
    "xlnet, which reads the last position": XLNetConfig(
        vocab_size=2048, d_model=16, n_layer=2, n_head=2, d_inner=16, num_labels=1, pad_token_id=0
    ),
}
UNLIKE = "llama with a padding token of no embedding"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folder of a random classifier of each configuration, with the bundled tokenizer."""
    root, source = tmp_path_factory.mktemp("rewards"), bundled("bundled:helpful", "reward")
    for name, config in CONFIGS.items():
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.3 * torch.randn_like(weight))  # scores that differ by position
        if name == UNLIKE:
            model.config.pad_token_id = -1  # as in the first Llama's configurations
        model.save_pretrained(root / name)
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(source / file, root / name)
        if "without" in name or "end token" in name:
            tokenizer = AutoTokenizer.from_pretrained(root / name)
            tokenizer.pad_token = None if "without" in name else tokenizer.eos_token
            tokenizer.save_pretrained(root / name)
    return root


@pytest.fixture(scope="module")
def rewards(folders):
    return {name: ClassifierReward(folders / name) for name in CONFIGS}


@pytest.fixture(scope="module")
def alone(folders):
    """The library's own score of one text, without padding and without this package."""
    models = {
        name: AutoModelForSequenceClassification.from_pretrained(folders / name).eval()
        for name in CONFIGS
    }

    def score(name, ids):
        with torch.no_grad():
            return float(models[name](torch.tensor([ids])).logits[0, 0])

    return score


def tokens(reward, prompt, reply):
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
    text = reward.tokenizer.apply_chat_template(messages, tokenize=False)
    return reward.tokenizer(text, add_special_tokens=False)["input_ids"]


REPLIES = [
    "Yes.",
    "I would rather not say.",
    "<|end|>",
    "No <|pad|><|pad|>",
    "<|end|><|end|>",
    "w" * 40,
]


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=15)
@given(texts=st.lists(st.sampled_from(REPLIES) | st.text(max_size=30), min_size=1, max_size=6))
def test_scores_in_a_batch_are_those_of_the_model_alone(rewards, alone, name, texts):
    reward = rewards[name]
    scores = reward(prompts=["Why?"] * len(texts), completions=texts)
    own = [alone(name, tokens(reward, "Why?", text)) for text in texts]
    np.testing.assert_allclose(scores, own, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=10)
@given(data=st.data())
def test_prompts_may_come_in_any_order_and_number(rewards, alone, name, data):
    asked = st.sampled_from(["Why?", "Who?", "Is this a much longer question, or is it not?", ""])
    answered = st.sampled_from(REPLIES)
    pairs = data.draw(st.lists(st.tuples(asked, answered), min_size=1, max_size=12))
    if data.draw(st.booleans()):
        pairs.sort()
    reward = copy(rewards[name])
    reward.batch_size = data.draw(st.integers(1, 8))
    scores = reward(prompts=[p for p, _ in pairs], completions=[c for _, c in pairs])
    own = [alone(name, tokens(reward, *pair)) for pair in pairs]
    np.testing.assert_allclose(scores, own, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_causal_models_read_a_prompt_once_for_its_responses(rewards, name):
    reward, read = rewards[name], []
    assert reward.shares is name.startswith(("llama", "gpt2"))
    hook = reward.model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].numel())
    )
    replies = ["Yes.", "I would rather not say.", "No!"] * 4
    try:
        scores = reward(prompts=["Why is this so, and not otherwise?"] * 12, completions=replies)
    finally:
        hook.remove()
    whole = sum(len(tokens(reward, "Why is this so, and not otherwise?", r)) for r in replies)
    assert sum(read) < 0.7 * whole if reward.shares else sum(read) >= whole
    assert len(set(scores)) == 3, "the same text has the same score"


def test_half_precision_shares_nothing(rewards):
    reward = copy(rewards["llama"])
    assert reward.shares and reward._can_share()
    reward.model = deepcopy(reward.model).to(torch.bfloat16)
    assert not reward._can_share()


def test_padding_that_costs_more_than_the_prompt_is_not_shared(rewards):
    reward = rewards["llama"]
    replies = ["w" * 60, *["No."] * 5]
    rows = [tokens(reward, "Why?", reply) for reply in replies]
    assert not list(reward._groups(["Why?"] * 6, rows))
    (group,) = reward._groups(["Why?"] * 5, rows[1:])
    assert list(group.index) == [0, 1, 2, 3, 4] and group.longest == 1


@pytest.mark.parametrize("name", CONFIGS)
def test_the_probe_tells_whether_padding_is_safe(rewards, name):
    assert rewards[name].pads is ("last position" not in name)


def test_the_end_token_is_read_where_no_padding_token_is_named(rewards):
    # Read one token early, the score would be that of the text without its end token.
    reward = rewards["llama without padding token"]
    ids = tokens(reward, "Why?", "Yes.")
    assert ids[-1] == END
    (score,) = reward(prompts=["Why?"], completions=["Yes."])
    early = float(reward._scores([ids[:-1]])[0])
    assert abs(score - early) > 0.01


def test_the_model_is_left_as_it_was(rewards):
    for name, reward in rewards.items():
        expected = -1 if name == UNLIKE else CONFIGS[name].pad_token_id
        reward(prompts=["a", "b"], completions=["Yes.", "No, never."])
        assert reward.model.config.pad_token_id == expected


def test_a_batch_that_holds_every_token_is_split(rewards):
    reward = rewards["llama without padding token"]
    everything = list(range(2, 2048))
    rows = [[*everything[start : start + 93], 0, END] for start in range(0, 2046, 93)]
    assert reward._padding(rows) is None
    one_by_one = [reward._scores([row])[0] for row in rows]
    np.testing.assert_allclose(reward._scores(rows), one_by_one, atol=2e-5)


LIMITS = {
    "roberta": PLACES - 1,  # positions begin at the padding index + 1
    "bert": PLACES,
    "llama": PLACES,
    "gpt2 without padding token": PLACES,
}


@pytest.mark.parametrize(("name", "limit"), LIMITS.items())
def test_the_last_position_is_read_and_the_next_is_refused(rewards, name, limit):
    reward = rewards[name]
    assert positions_of(reward.model, reward.tokenizer) == reward.max_length == limit
    tokenizer = reward.tokenizer
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        text = "a a" * (limit // 2)
        while len(tokenizer(f"q\n{text}")["input_ids"]) > limit:
            text = text[:-1]
        assert len(tokenizer(f"q\n{text}")["input_ids"]) == limit
        assert np.isfinite(reward(prompts=["q"], completions=[text])).all()
        with pytest.raises(DataError, match=rf"reads at most {limit} tokens; completion 1 with"):
            reward(prompts=["q", "q"], completions=["", text + " zebra"])
    finally:
        tokenizer.chat_template = template


def test_without_positions_the_tokenizers_limit_holds(rewards):
    reward = rewards["xlnet, which reads the last position"]
    assert reward.max_length == 512  # as the bundled tokenizer's configuration says
    reward.tokenizer.model_max_length, before = 10**30, reward.tokenizer.model_max_length
    assert positions_of(reward.model, reward.tokenizer) is None
    reward.tokenizer.model_max_length = before


def test_scores_that_change_from_call_to_call_are_refused(folders, monkeypatch):
    forward = LlamaForSequenceClassification.forward

    def noisy(self, *args, **options):
        output = forward(self, *args, **options)
        output.logits = output.logits + torch.randn(1)
        return output

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", noisy)
    with pytest.raises(DataError, match=r"The reward '.*llama' gives the same text different scor"):
        ClassifierReward(folders / "llama")


def test_scores_that_depend_on_the_batch_are_refused(folders, monkeypatch):
    forward = LlamaForSequenceClassification.forward

    def normed(self, *args, **options):
        output = forward(self, *args, **options)
        output.logits = output.logits / len(output.logits)
        return output

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", normed)
    with pytest.raises(DataError, match=r"'.*llama' gives a text the score .* beside a copy of it"):
        ClassifierReward(folders / "llama")


def test_a_model_that_cannot_run_is_named(folders, monkeypatch):
    def broken(self, *args, **options):
        raise RuntimeError("expected scalar type Float but found BFloat16\nmore")

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", broken)
    with pytest.raises(
        DataError, match=r"llama' cannot score a text in torch.float32: expected .*16\.$"
    ):
        ClassifierReward(folders / "llama")


@pytest.mark.parametrize("name", [name for name in CONFIGS if "xlnet" not in name])
def test_rounding_to_half_precision_is_no_disagreement(folders, name):
    assert ClassifierReward(folders / name, dtype="bfloat16").pads


def test_scores_of_every_token_are_no_reward(folders, monkeypatch):
    forward = LlamaForSequenceClassification.forward

    def spread(self, ids, **options):
        output = forward(self, ids, **options)
        output.logits = output.logits[:, None].expand(-1, ids.shape[1], -1)
        return output

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", spread)
    with pytest.raises(DataError, match=r"returns scores of shape \(1, \d+, 1\) for 1 texts"):
        ClassifierReward(folders / "llama")
