"""Low-rank adapters through the whole pipeline."""

import json

import numpy as np
import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from infalign import storage
from infalign.config import load_config
from infalign.demo import bundled
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.pipeline.folder import Run

BASE = bundled("bundled:language-model", "model")
RANK = 2
CONFIG = {
    "model": "bundled:language-model",
    "reward": "bundled:harmless",
    "prompts": {"file": "bundled:harmless", "limit": 24},
    "procedure": "best-of-n:2",
    "kl": 0.1,
    "sampling": {"max_new_tokens": 8, "batch_size": 64},
    "calibration": {"samples": 8},
    "train": {
        "lora": RANK,
        "baselines": [],
        "warm_start": 2,
        "warm_start_learning_rate": 3e-3,
        "warm_start_batch_size": 16,
        "steps": 2,
        "learning_rate": 1e-4,
        "batch_size": 16,
        "group": 4,
    },
    "evaluate": {"prompts": {"limit": 4}, "samples": 4},
    "evidence": False,
}


@pytest.fixture(scope="module")
def folder(runs, tmp_path_factory):
    path = tmp_path_factory.mktemp("lora")
    (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ended = runs("run", path / "config.yaml", "--out", path / "run")
    assert ended.code == 0, ended.stderr
    return path / "run"


def weights(path):
    return load_file(path / "model.safetensors")


def test_what_is_trained_is_a_change_of_low_rank_in_the_linear_layers(folder):
    before = weights(BASE)
    after = weights(folder / "train/rloo/model")
    assert before.keys() == after.keys()
    changed = {name: after[name] - before[name].to(after[name]) for name in before}
    changed = {name: delta for name, delta in changed.items() if delta.abs().max() > 1e-6}
    assert changed, "nothing was trained"
    for name, delta in changed.items():
        assert "proj" in name
        sizes = torch.linalg.svdvals(delta.double())
        assert sizes[RANK - 1] > 0 and sizes[RANK] < 1e-4 * sizes[0], name


def test_the_on_policy_steps_start_from_the_warm_start(folder):
    # Two small steps end near where they started: at the adapters, not at the reference.
    reference = weights(BASE)
    start = weights(folder / "train/rloo/warm_start/model")
    end = weights(folder / "train/rloo/on_policy/model")
    moved = {k: reference[k].to(v) - v for k, v in start.items() if "proj" in k}
    stepped = {k: end[k] - start[k] for k in moved}
    assert 0 < norm(stepped) < norm(moved) / 4
    adapter = folder / "train/rloo/warm_start/model/adapter"
    assert json.loads((adapter / "adapter_config.json").read_text())["r"] == RANK


def norm(parts):
    return float(torch.cat([delta.double().ravel() for delta in parts.values()]).norm())


def test_the_policy_meets_the_target_kl_and_is_evaluated(folder):
    landing = json.loads((folder / "train/rloo/landing.json").read_text())
    assert abs(landing["kl"] / 0.1 - 1) <= 0.1
    results = json.loads((folder / "evaluation/results.json").read_text())
    (policy,) = results["policies"]
    assert policy["kl"]["value"] > 0.01 and (folder / "report.html").exists()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's own
def test_the_adapter_and_the_merged_policy_are_one_policy(folder):
    reference, merged = LanguageModel(BASE), folder / "train/rloo/on_policy/model"
    adapted = PeftModel.from_pretrained(LanguageModel(BASE).model, merged / "adapter")
    models = [AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32), adapted]
    loaded = [LanguageModel.of(m, reference.tokenizer, max_new_tokens=8) for m in models]
    asked = [[{"role": "user", "content": text}] for text in ("How are you?", "Who lies?")]
    # The two round differently, so a draw may differ: the same responses are asked of both.
    drawn = loaded[0].sample(asked, 16, seed=0)
    ours, theirs = (sequence_kl(policy, reference, asked, drawn) for policy in loaded)
    np.testing.assert_allclose(ours.sampled, theirs.sampled, atol=1e-4)
    ours, theirs = ours.exact, theirs.exact
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert ours.mean() > 1e-3


def test_the_kl_of_the_evaluation_is_that_of_the_landed_policy_by_hand(folder):
    run = Run(load_config(folder / "config.yaml"), folder)
    paths = folder / "train/rloo/model", BASE
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32).eval() for p in paths
    )
    read = AutoTokenizer.from_pretrained(BASE).apply_chat_template
    asked = {
        p.id: read(list(p.messages), add_generation_prompt=True)["input_ids"]
        for p in run.test_prompts
    }
    rows = storage.read_table(folder / "evaluation/rloo.parquet").to_pylist()
    assert len(rows) == 16
    for row in rows:
        text, written = asked[row["prompt_id"]], row["token_ids"]
        with torch.no_grad():
            ids = torch.tensor([[*text, *written]])
            ours, theirs = (m(ids).logits[0, len(text) - 1 : -1] for m in (policy, reference))
        ours, theirs = ours.log_softmax(-1), theirs.log_softmax(-1)
        assert row["kl"] == pytest.approx(float((ours.exp() * (ours - theirs)).sum()), abs=1e-4)
