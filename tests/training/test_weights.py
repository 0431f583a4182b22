"""Weights of trained policies are loaded whole, or not at all."""

import pytest
import torch
from enumerable import EnumerableModel
from offline_runs import drawn_from, log_ratios_in_training
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    DbrxConfig,
    FalconConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PhimoeConfig,
)

from infalign.config import SamplingSettings, Training
from infalign.errors import DataError
from infalign.training.recipe import Recipe
from infalign.training.weights import fresh_policy, load_policy, save_policy, with_adapters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture
def recipe(tmp_path):
    EnumerableModel.make(tmp_path / "reference", seed=0)
    return Recipe(
        str(tmp_path / "reference"), Training(), SamplingSettings(), 0, trust_remote_code=False
    )


def change(file, edit):
    save_file(edit(load_file(file)), file, metadata={"format": "pt"})


@pytest.mark.parametrize("rank", [0, 2])
def test_saved_weights_come_back(recipe, tmp_path, rank):
    model = with_adapters(fresh_policy(recipe), rank)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(1)
    trained = {k: v.clone() for k, v in model.state_dict().items()}
    save_policy(model, tmp_path / "saved")
    again = with_adapters(fresh_policy(recipe), rank)
    load_policy(again, tmp_path / "saved")
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, trained[name])


def test_weights_of_another_model_are_refused(recipe, tmp_path):
    other = EnumerableModel.make(tmp_path / "other", seed=0, letters="abcd")
    save_policy(other.model(torch.float32), tmp_path / "saved")
    with pytest.raises(DataError, match=r"are not those of the model .* first 'lm_head.weight'"):
        load_policy(fresh_policy(recipe), tmp_path / "saved")


def test_a_trained_policy_without_some_weights_is_refused(recipe, tmp_path):
    save_policy(fresh_policy(recipe), tmp_path / "saved")
    file = tmp_path / "saved" / "model.safetensors"
    change(file, lambda state: {k: v for k, v in state.items() if "lm_head" not in k})
    with pytest.raises(DataError, match=r"The trained policy .* no weights for the language-model"):
        load_policy(fresh_policy(recipe), tmp_path / "saved")


def test_adapters_that_lack_weights_or_have_another_rank_are_refused(recipe, tmp_path):
    save_policy(with_adapters(fresh_policy(recipe), 2), tmp_path / "saved")
    with pytest.raises(DataError, match=r"adapter are not those of the model that is trained"):
        load_policy(with_adapters(fresh_policy(recipe), 3), tmp_path / "saved")
    file = tmp_path / "saved" / "adapter" / "adapter_model.safetensors"
    change(file, lambda state: dict(list(state.items())[1:]))
    with pytest.raises(DataError, match=r"1 of \d+ differ in name or shape, first 'base_model"):
        load_policy(with_adapters(fresh_policy(recipe), 2), tmp_path / "saved")


PEFTS_OWN = pytest.mark.filterwarnings("ignore:fan_in_fan_out:UserWarning")
SMALL = {"vocab_size": 5, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
WIDE = {**SMALL, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
EXPERTS = {"ffn_hidden_size": 8, "moe_num_experts": 2, "moe_top_k": 1}
RANDOM = {
    "gpt2": lambda: GPT2Config(**SMALL, n_embd=8, n_layer=2, n_head=2),  # 0.1 is its own
    # Numbers instead of layers of dropout, those of dbrx in a part of its configuration.
    "llama": lambda: LlamaConfig(**WIDE, intermediate_size=8, attention_dropout=0.3),
    "falcon": lambda: FalconConfig(**WIDE, hidden_dropout=0.3, attention_dropout=0.3),
    "dbrx": lambda: DbrxConfig(
        **SMALL,
        d_model=8,
        n_heads=2,
        n_layers=2,
        max_seq_len=16,
        attn_config={"attn_pdrop": 0.3, "kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8.0},
        ffn_config=EXPERTS,
    ),
    # Whole layers are left out.
    "opt": lambda: OPTConfig(**WIDE, ffn_dim=8, word_embed_proj_dim=8, dropout=0, layerdrop=0.5),
    # Noise is added.
    "phimoe": lambda: PhimoeConfig(
        **WIDE,
        intermediate_size=8,
        num_key_value_heads=2,
        num_local_experts=2,
        input_jitter_noise=0.3,
    ),
}


@PEFTS_OWN
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("family", "rank"), [*((name, 0) for name in RANDOM), ("gpt2", 2), ("llama", 2)]
)
def test_a_policy_is_trained_without_dropout(tmp_path, family, attention, rank):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(RANDOM[family]())
    model.save_pretrained(tmp_path)
    ids = torch.randint(1, 5, (4, 16))
    recipe = Recipe(str(tmp_path), Training(), SamplingSettings(), 0, trust_remote_code=False)
    policy = with_adapters(fresh_policy(recipe), rank)
    (policy.get_base_model() if rank else policy).set_attn_implementation(attention)
    with torch.no_grad():
        same = policy.eval()(ids, use_cache=False).logits
        for _ in range(3):
            assert torch.equal(policy.train()(ids, use_cache=False).logits, same)
        assert not torch.equal(model.train()(ids, use_cache=False).logits, same)
    assert torch.allclose(model.eval()(ids, use_cache=False).logits, same, atol=1e-5)


@PEFTS_OWN
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing`:FutureWarning")  # transformers' own
@pytest.mark.parametrize("rank", [0, 2])
def test_offline_training_of_a_model_with_dropout_starts_at_log_ratios_of_0(tmp_path, rank):
    made = EnumerableModel.make(tmp_path / "made", seed=1, family="gpt2-dropout")
    train = Training(lora=rank, warm_start_learning_rate=1e-12, warm_start_batch_size=32)
    recipe = Recipe(str(made.path), train, SamplingSettings(), 0, False, "float32")
    batches = log_ratios_in_training(recipe, drawn_from(made, 16), tmp_path, passes=2)
    log_ratios = torch.cat(batches)
    assert len(log_ratios) == 64 and log_ratios.abs().max() < 1e-5
