"""A search for the target KL meets it, draws few responses, and can be killed at any time."""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from infalign.config import Prompts, parse_config
from infalign.demo import bundled
from infalign.manifest import Manifest, Stage
from infalign.models.hf import LanguageModel
from infalign.models.kl import sequence_kl
from infalign.prompts import load_prompts
from infalign.training import landing
from infalign.training.landing import TRIES, land
from infalign.training.recipe import Recipe

TARGET, PROMPTS, TOKENS = 0.2, 12, 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The bundled model after a change of its weights that is far too large."""
    folder = tmp_path_factory.mktemp("trained")
    source = bundled("bundled:language-model", "model")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.35 * weight.std() * torch.randn(weight.shape, generator=generator)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


@pytest.fixture
def prompts(monkeypatch):
    monkeypatch.setattr(landing, "SAMPLES", 96)
    return load_prompts(Prompts(file="bundled:helpful", split="test", limit=PROMPTS))


def landed(trained, prompts, out, *, dtype="float32", target=TARGET):
    config = parse_config(
        {
            "model": "bundled:language-model",
            "reward": "bundled:helpful",
            "prompts": {"file": "bundled:helpful"},
            "kl": target,
            "dtype": dtype,
            "sampling": {"max_new_tokens": TOKENS},
        }
    )
    recipe = Recipe.of(config, str(bundled(config.model, "model")))
    out.mkdir(exist_ok=True)
    steps = []
    land(
        recipe,
        trained,
        prompts,
        target,
        seed=1,
        out=out,
        stage=Stage(Manifest(out), "train", {}),
        report=lambda *step: steps.append(step),
    )
    assert steps == sorted(steps) and steps[-1][0] == steps[-1][1]
    return json.loads((out / "landing.json").read_text())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_policy_far_from_the_target_is_brought_there(trained, prompts, tmp_path, dtype):
    record = landed(trained, prompts, tmp_path, dtype=dtype)
    assert record["first"] > 10 * TARGET and record["alpha"] < 0.5
    assert len(record["drawn"]) <= 2 and record["effective_share"] >= landing.COUNTING
    policy, reference = (
        LanguageModel(path, max_new_tokens=TOKENS, dtype=dtype)
        for path in (tmp_path / "model", bundled("bundled:language-model", "model"))
    )
    asked = [p.messages for p in prompts]
    fresh = sequence_kl(policy, reference, asked, policy.sample(asked, 24, seed=7)).exact
    # The search's responses are fewer than these, and have an error of their own.
    within = (fresh - fresh.mean(1, keepdims=True)).std() / fresh.size**0.5
    assert abs(fresh.mean() - record["kl"]) < 4 * within * (1 + 24 / 8) ** 0.5


def test_one_prompt_has_no_standard_error(trained, prompts, tmp_path):
    record = landed(trained, prompts[:1], tmp_path, target=0.2)
    assert record["stderr"] is None and abs(record["kl"] / 0.2 - 1) < landing.ACCEPTED


def test_a_search_killed_at_any_block_ends_as_if_nothing_had_happened(
    trained, prompts, tmp_path, monkeypatch
):
    monkeypatch.setattr(landing, "block_of", lambda *_, **__: 32)
    calls, allowed = [], [10**6]
    rows = landing._Tries._rows

    def counted(self, alpha, some, written, each):
        if len(calls) == allowed[0]:
            raise KeyboardInterrupt
        calls.append((alpha, tuple(some)))
        return rows(self, alpha, some, written, each)

    monkeypatch.setattr(landing._Tries, "_rows", counted)
    whole = landed(trained, prompts, tmp_path / "whole")
    expected = list(calls)
    calls.clear()
    for stop in range(0, len(expected), 2):
        allowed[0] = stop
        with pytest.raises(KeyboardInterrupt):
            landed(trained, prompts, tmp_path / "killed")
    allowed[0] = 10**6
    assert landed(trained, prompts, tmp_path / "killed") == whole
    assert calls == expected
    files = [sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("whole", "killed")]
    assert files[0] == files[1] and TRIES not in files[0]
    weights = [
        (tmp_path / n / "model" / "model.safetensors").read_bytes() for n in ("whole", "killed")
    ]
    assert weights[0] == weights[1]
    assert np.isfinite(whole["stderr"])
