"""Models, rewards and judges that cannot be what they are asked to be are refused before any work,
and loading them is refused alike."""

import shutil

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from infalign.demo import bundled
from infalign.errors import DataError
from infalign.models.classifier import ClassifierReward
from infalign.models.hf import LanguageModel
from infalign.models.inspection import inspect_policy, inspect_reward

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 2048}
BODY = {**SIZE, "intermediate_size": 16}
SPECIAL = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}
ONE = {"num_labels": 1}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**BODY, **SPECIAL)),
    "tied llama": lambda: LlamaForCausalLM(
        LlamaConfig(**BODY, **SPECIAL, tie_word_embeddings=True)
    ),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**SIZE, **SPECIAL)),
    "qwen": lambda: Qwen2ForCausalLM(Qwen2Config(**BODY, **SPECIAL, num_key_value_heads=1)),
    "llama reward": lambda: LlamaForSequenceClassification(LlamaConfig(**BODY, **SPECIAL, **ONE)),
    "tied llama reward": lambda: LlamaForSequenceClassification(
        LlamaConfig(**BODY, **SPECIAL, **ONE, tie_word_embeddings=True)
    ),
    "gpt2 reward": lambda: GPT2ForSequenceClassification(GPT2Config(**SIZE, **SPECIAL, **ONE)),
    "bert reward": lambda: BertForSequenceClassification(BertConfig(**BODY, **ONE)),
    "roberta reward": lambda: RobertaForSequenceClassification(
        RobertaConfig(**BODY, **ONE, pad_token_id=0, eos_token_id=1)
    ),
    "masked bert": lambda: BertForMaskedLM(BertConfig(**BODY)),
}
POLICIES = ("llama", "tied llama", "gpt2", "qwen")
REWARDS = ("llama reward", "tied llama reward", "gpt2 reward", "bert reward", "roberta reward")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """Folder of each of the models."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("zoo")
    for name, make in MODELS.items():
        make().save_pretrained(folder / name)
        for file in TOKENIZER:
            shutil.copy(bundled("bundled:language-model", "model") / file, folder / name)
    return folder


@pytest.fixture
def copy(zoo, tmp_path):
    """A copy of a model's folder, to be damaged."""

    def make(name):
        return shutil.copytree(zoo / name, tmp_path / name)

    return make


def refused(inspect, load, path, *words):
    """Both roads refuse the folder; returns the message, which is one."""
    messages = []
    for call in (inspect, load):
        with pytest.raises(DataError) as caught:
            call(str(path))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    for word in (str(path), *words):
        assert word in messages[0]
    return messages[0]


@pytest.mark.parametrize("name", POLICIES)
def test_language_models_are_policies_and_no_rewards(zoo, name):
    inspect_policy(str(zoo / name))
    LanguageModel(str(zoo / name))
    refused(
        inspect_reward, ClassifierReward, zoo / name, "score head", "rewards", "ForCausalLM"[:0]
    )


@pytest.mark.parametrize("name", REWARDS)
def test_reward_models_are_rewards_and_no_policies(zoo, name):
    inspect_reward(str(zoo / name))
    ClassifierReward(str(zoo / name))
    refused(inspect_policy, LanguageModel, zoo / name, "is not a language model")
