"""A model computes in the precision that is asked for, and says in which."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from infalign.cli.app import main
from infalign.config import parse_config
from infalign.demo import bundled
from infalign.models import precision
from infalign.models.classifier import ClassifierReward
from infalign.models.fingerprints import (
    judge_parts,
    policy_fingerprints,
    policy_parts,
    policy_precision,
    reward_fingerprint,
    reward_parts,
)
from infalign.models.hf import LanguageModel
from infalign.pipeline.folder import Run
from infalign.stores import StoreWriter

NARROW, REWARD = "bundled:language-model", "bundled:helpful"
CONVERSATIONS = [[{"role": "user", "content": "How do I bake bread?"}]]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A random model that is as wide as `auto` asks for, and has one layer."""
    folder = tmp_path_factory.mktemp("wide")
    size = {"hidden_size": precision.WIDE, "intermediate_size": 8, "vocab_size": 2048}
    config = LlamaConfig(**size, num_hidden_layers=1, num_attention_heads=2, eos_token_id=1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(bundled(NARROW, "model") / name, folder)
    return str(folder)


@pytest.mark.parametrize("multiplies", [True, False])
def test_auto_is_bfloat16_for_wide_models_where_the_processor_multiplies_it(
    wide, monkeypatch, multiplies
):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: multiplies)
    expected = "bfloat16" if multiplies else "float32"
    model = LanguageModel(wide)
    assert policy_precision(wide) == expected == str(model.model.dtype).removeprefix("torch.")
    assert policy_precision(NARROW) == "float32"
    assert precision.trains_in("auto") == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_stated_precision_is_that_of_policies_and_rewards(dtype):
    path = bundled(NARROW, "model")
    assert LanguageModel(path, dtype=dtype).model.dtype == getattr(torch, dtype)
    reward = ClassifierReward(bundled(REWARD, "reward"), dtype=dtype)
    assert reward.model.model.dtype == getattr(torch, dtype)
    assert precision.trains_in(dtype) == dtype
    assert policy_fingerprints(NARROW, dtype=dtype)["dtype"] == dtype


def test_nothing_decides_the_precision_of_servers_and_of_vllm():
    assert policy_precision("http://host/v1#name") is None
    assert policy_precision("vllm:some/model") is None
    assert policy_precision("vllm:some/model", dtype="bfloat16") == "bfloat16"


def test_files_without_a_precision_are_those_of_float32():
    whole = [policy_parts(NARROW, dtype="float32"), reward_parts(REWARD, dtype="float32")]
    half = [policy_parts(NARROW, dtype="bfloat16"), reward_parts(REWARD, dtype="bfloat16")]
    assert half == [own | {"precision": "bfloat16"} for own in whole]
    assert judge_parts(f"reward:{REWARD}", dtype="bfloat16")["reward's precision"] == "bfloat16"
    fingerprints = {reward_fingerprint(REWARD, dtype=d) for d in ("float32", "bfloat16")}
    assert len(fingerprints) == 2


def test_a_score_in_bfloat16_keeps_its_digits():
    policy = LanguageModel(bundled(NARROW, "model"), max_new_tokens=24)
    texts = [r.text for r in policy.sample(CONVERSATIONS, 64, seed=0)[0]]
    whole, half = (
        np.array(ClassifierReward(bundled(REWARD, "reward"), dtype=d)(CONVERSATIONS * 64, texts))
        for d in ("float32", "bfloat16")
    )
    assert len(set(half)) == len(set(whole))
    assert np.abs(half - whole).max() < 0.05 * whole.std()


def test_a_calibration_in_another_precision_is_refused_by_name(tmp_path, monkeypatch, capsys):
    stated = {"dtype": "bfloat16", "sampling": {"strip": False}}
    with StoreWriter(tmp_path, stated, 1) as writer:
        writer.add(["0"], [["a", "b"]], [[0.0, 1.0]])
    words = ["sample", "hello", "--model", NARROW, "--reward", REWARD, "--calibration"]
    words += [str(tmp_path), "--procedure", "soft-best-of-n:4:1", "--max-new-tokens", "4"]
    monkeypatch.setattr("sys.argv", ["infalign", *words])
    with pytest.raises(SystemExit):
        main()
    assert "was made with dtype 'bfloat16', not 'float32'" in capsys.readouterr().err


def test_a_run_states_its_precision_and_gives_it_to_what_it_loads(tmp_path):
    config = parse_config(
        {
            "model": NARROW,
            "reward": REWARD,
            "prompts": {"file": "bundled:helpful", "limit": 4},
            "kl": 0.5,
            "dtype": "bfloat16",
        }
    )
    run = Run(config, tmp_path)
    assert run.provenance["fingerprints"]["dtype"] == "bfloat16"
    assert run.reward.model.model.dtype == torch.bfloat16
    assert run.compared().loading["dtype"] == "bfloat16"
    own = run.inputs._precision()
    assert own == {"dtype": "bfloat16"}


@pytest.mark.parametrize("free, computes_in", [(80, torch.float32), (79, torch.bfloat16)])
def test_memory_that_torch_keeps_on_a_gpu_is_room_for_float32(
    monkeypatch, caplog, free, computes_in
):
    kept, model = [64], torch.nn.Linear(4, 4, dtype=torch.bfloat16)  # 80 bytes in float32
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free - sum(kept), free))
    with precision.in_float32(model):
        assert model.weight.dtype == computes_in
    assert model.weight.dtype == torch.bfloat16
    assert ("no room" in caplog.text) == (computes_in == torch.bfloat16)


@pytest.mark.parametrize("free, computes_in", [(120, torch.float32), (119, torch.bfloat16)])
def test_two_models_compute_in_the_same_precision(monkeypatch, caplog, free, computes_in):
    models = [torch.nn.Linear(4, 4, dtype=torch.bfloat16) for _ in range(2)]  # 40 bytes each

    def left():
        weights = [x for model in models for x in model.parameters()]
        return free + 80 - sum(x.numel() * x.element_size() for x in weights)

    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (left(), free))
    with precision.in_float32(*models):
        assert [model.weight.dtype for model in models] == 2 * [computes_in]
    assert [model.weight.dtype for model in models] == 2 * [torch.bfloat16]
    assert caplog.text.count("no room") == (computes_in == torch.bfloat16)
