"""What a real model sees of a reward: the probe finds what is there in the model's own states."""

import importlib

import numpy as np
import pytest

import infalign as ia
from infalign import storage
from infalign.demo import bundled as bundled_path


@pytest.fixture
def script(scripts, monkeypatch):
    import sys

    folder = importlib.import_module("trained_cells").HERE / "worst_of_n"
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    return importlib.import_module("worst_of_n.real")


def world(rho, prompts=60, k=16, features=12):
    """States of which one direction has the correlation rho with the score."""
    rng = np.random.default_rng(0)
    rewards = rng.standard_normal((prompts, k))
    states = rng.standard_normal((prompts, k, features)) + 9 * rng.standard_normal((prompts, 1, 1))
    states[..., 3] = rho * rewards + np.sqrt(1 - rho**2) * states[..., 3]
    return 5 * states, rewards


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_probe_finds_the_correlation_that_is_there(script, rho):
    own = script.seen(*world(rho), 1.0)
    error = own.std(ddof=1) / np.sqrt(len(own))
    assert abs(own.mean() - rho) < 4 * error + 0.05


def test_fewer_responses_find_less(script):
    few, many = (script.seen(*world(0.5, features=60), share) for share in (0.125, 1.0))
    assert few.mean() < many.mean() - 0.05


def test_what_is_left_is_theorys_for_a_policy_that_sees_all(script):
    procedure = ia.WorstOfN(8)
    everything, nothing = script.left(0.9999, procedure), script.left(1e-6, procedure)
    best = ia.design(procedure, kl=0.5).win_rate
    assert everything["designed_for_all"] == pytest.approx(100 * best, abs=0.3)
    assert all(value == pytest.approx(50, abs=0.1) for value in nothing.values())
    some = script.left(0.5, procedure)
    assert some["best"] >= some["designed_for_all"] - 1e-6
    assert 50 < some["raw"] < some["best"] < everything["best"]


def test_a_prompt_read_once_gives_the_states_of_whole_texts(script, monkeypatch):
    import torch

    from infalign.models.hf import LanguageModel

    monkeypatch.setattr(script, "LAYERS", (0, 2, 4))
    path = bundled_path("bundled:language-model", "model")
    model = LanguageModel(path, max_new_tokens=4)
    model.model.eval()
    (prompt,) = model.prompt_ids([[{"role": "user", "content": "Hello?"}]], ["a"], 4)
    rows = [[5, 6, 7], [9], [8, 8]]
    own, logs = (f(model.model, prompt, rows) for f in (script.states, script.logprobs))
    for row, features, logprob in zip(rows, own, logs, strict=True):
        with torch.no_grad():
            out = model.model(torch.tensor([[*prompt, *row]]), output_hidden_states=True)
        tokens = out.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert logprob == pytest.approx(float(tokens[range(len(row)), row].sum()), abs=1e-4)
        hidden = out.hidden_states
        inside = [hidden[layer][0, len(prompt) :] for layer in (0, 2, 4)]
        expected = torch.cat(
            [*(x.mean(0) for x in inside), inside[-1][-1], torch.tensor([len(row)])]
        )
        assert np.allclose(features, expected.numpy(), atol=1e-4)


def test_what_the_page_says_of_learned_correlations_holds(script):
    from trained_page import lead_of

    tasks = storage.read_json(script.OUT)["tasks"]
    assert {name for name, task in tasks.items() if task.get("learned")} >= {"harmless", "tldr"}
    for name, task in tasks.items():
        seen, procedure = task["rows"][-1], script.TASKS[name]
        assert task["procedure"] == procedure.spec
        for row in task.get("learned", []):
            assert row["correlation"] < seen["correlation"] - 2 * seen["stderr"]
            assert lead_of(row["left"]) < lead_of(seen) < lead_of(task["sees all"])
            assert row["left"] == pytest.approx(script.left(row["correlation"], procedure))
