"""A policy that reads the padding before a prompt is refused; no other is, in any precision."""

import numpy as np
import pytest
import torch
from enumerable import EnumerableModel
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from infalign import DataError
from infalign.config import parse_config
from infalign.models import padding
from infalign.models.hf import LanguageModel
from infalign.models.padding import require_hidden_padding
from infalign.models.specs import bundled
from infalign.training.recipe import Recipe
from infalign.training.weights import fresh_policy, lora

pytestmark = pytest.mark.filterwarnings(
    "ignore:fan_in_fan_out is set:UserWarning",  # PEFT's own
    "ignore:`is_gradient_checkpointing`:FutureWarning",  # PEFT's own
)

PRECISIONS = (torch.float32, torch.bfloat16, torch.float16)
SHAPE = {
    "vocab_size": 64,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
HIDING = {
    "llama": {},
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "mistral": {"sliding_window": 3},
    "gemma2": {"sliding_window": 3},
    "bloom": {"n_layer": 2, "n_head": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba": {"state_size": 4},
    "mamba2": {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1, "expand": 2},
}
READING = {
    "recurrent_gemma": {"lru_width": 16, "attention_window_size": 8},
    "rwkv": {"attention_hidden_size": 16, "context_length": 64},
}


def random_model(kind, precision=torch.float32, seed=0, scale=0.3):
    own = (HIDING | READING)[kind]
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**SHAPE, **own}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim > 1:
                weights.copy_(scale * torch.randn(weights.shape, generator=generator))
    return model.eval().to(precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", HIDING)
def test_models_that_hide_padding_pass_in_every_precision(kind, precision):
    for seed in range(3):
        require_hidden_padding(random_model(kind, precision, seed), 0, "The model")


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_models_with_adapters_pass(kind):
    for precision in PRECISIONS:
        adapters = lora(2)
        adapters.init_lora_weights = False  # random ones
        adapted = get_peft_model(random_model(kind, precision), adapters)
        require_hidden_padding(adapted, 0, "The model")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_bundled_model_passes_in_every_precision(precision):
    path = bundled("bundled:language-model", "model")
    model = AutoModelForCausalLM.from_pretrained(path, dtype=precision)
    require_hidden_padding(model, 0, "The model")
    if precision != torch.float16:
        LanguageModel(path, dtype=str(precision).removeprefix("torch."))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", READING)
def test_recurrent_models_that_read_padding_are_refused(kind, precision):
    with pytest.raises(DataError, match=rf"The model 'x' \(of type {kind}\) reads padding"):
        require_hidden_padding(random_model(kind, precision), 0, "The model 'x'")


@pytest.fixture(scope="module")
def recurrent(tmp_path_factory):
    """The folder of a model that reads padding."""
    path = tmp_path_factory.mktemp("recurrent")
    EnumerableModel.make(path, seed=1, letters="abc")
    random_model("rwkv").save_pretrained(path)
    return path


def test_a_policy_is_refused_where_it_is_loaded_with_difference_and_remedy(recurrent):
    with pytest.raises(DataError) as caught:
        LanguageModel(recurrent)
    for words in (repr(str(recurrent)), "nats on average", "Use a model whose attention mask"):
        assert words in str(caught.value)
    model = AutoModelForCausalLM.from_pretrained(recurrent)
    tokenizer = AutoTokenizer.from_pretrained(recurrent)
    tokenizer.pad_token = tokenizer.eos_token
    with pytest.raises(DataError, match="reads padding"):
        LanguageModel.of(model, tokenizer)


def test_a_policy_is_refused_where_it_is_trained(recurrent):
    config = {"model": str(recurrent), "reward": "python:a.b:c", "prompts": {"file": "f"}, "kl": 1}
    recipe = Recipe.of(parse_config(config), str(recurrent))
    with pytest.raises(DataError, match="reads padding"):
        fresh_policy(recipe, 0)


def test_the_difference_is_that_of_the_log_probabilities(recurrent):
    model = AutoModelForCausalLM.from_pretrained(recurrent).eval()
    text = [21, 32, 42, 16]
    with torch.no_grad():
        alone, padded = (
            model(torch.tensor([ids])).logits[0, -4:].log_softmax(-1).double().numpy()
            for ids in (text, [0] * padding.PADDING + text)
        )
    expected = (np.exp(alone) * np.abs(alone - padded)).sum(1).max()
    assert expected > 0.1
    with pytest.raises(DataError, match=rf"by {expected:.2g} nats on average"):
        require_hidden_padding(model, 0, "The model")


def test_a_model_is_tried_once_and_left_as_it_was():
    model = random_model("gpt2").train()
    model.transformer.h[0].eval()
    modes = [part.training for part in model.modules()]
    read = []
    model.register_forward_hook(lambda module, inputs, output: read.append(output.logits.shape[1]))
    numbers = torch.random.get_rng_state()
    for _ in range(2):
        require_hidden_padding(model, 0, "The model")
    assert read == [4, 12, 12]
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), numbers)
    assert all(p.grad is None for p in model.parameters())


def test_a_padding_token_without_an_embedding_is_no_error():
    require_hidden_padding(random_model("llama"), SHAPE["vocab_size"], "The model")


def test_weights_that_are_elsewhere_are_not_read():
    require_hidden_padding(random_model("llama").to("meta"), 0, "The model")
